/** A tiny API server for the tests of this package: list, watch, and every way in which a real one fails. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { KubeObject } from "./collection.ts";
import type { Credentials } from "./transport.ts";

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly contentType: string;
  readonly authorization: string;
  readonly body: unknown;
}

interface Stored {
  readonly object: KubeObject;
  readonly resourceVersion: number;
}

/** Serves one collection path; `answer` overrides anything. */
export class FakeApiServer implements AsyncDisposable {
  readonly requests: SeenRequest[] = [];
  /** Answers a request instead of the store when it returns true. */
  answer: (request: SeenRequest, response: ServerResponse) => boolean = () => false;
  readonly #server: Server;
  readonly #objects = new Map<string, Stored>();
  readonly #log: { resourceVersion: number; line: string }[] = [];
  readonly #watches = new Set<ServerResponse>();
  #resourceVersion = 100;
  #oldest = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(): Promise<FakeApiServer> {
    const server = createServer();
    const fake = new FakeApiServer(server);
    server.on("request", (request, response) => void fake.#serve(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get credentials(): Credentials {
    const server = new URL(this.url);
    return { server, authorize: async () => ({ headers: { authorization: "Bearer test" }, agent: (await import("node:http")).globalAgent }) };
  }

  get watches(): number {
    return this.#watches.size;
  }

  set(object: KubeObject): void {
    const resourceVersion = ++this.#resourceVersion;
    const key = object.metadata.name;
    const type = this.#objects.has(key) ? "MODIFIED" : "ADDED";
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(resourceVersion) } };
    this.#objects.set(key, { object: stored, resourceVersion });
    this.send({ type, object: stored }, resourceVersion);
  }

  delete(name: string): void {
    const stored = this.#objects.get(name);
    if (stored === undefined) return;
    this.#objects.delete(name);
    const resourceVersion = ++this.#resourceVersion;
    this.send(
      { type: "DELETED", object: { ...stored.object, metadata: { ...stored.object.metadata, resourceVersion: String(resourceVersion) } } },
      resourceVersion,
    );
  }

  /** Changes the store without telling any watch and forgets the history: the next resume must be answered 410. */
  compactAndSet(...objects: readonly KubeObject[]): void {
    this.#objects.clear();
    for (const object of objects) {
      const resourceVersion = ++this.#resourceVersion;
      this.#objects.set(object.metadata.name, {
        object: { ...object, metadata: { ...object.metadata, resourceVersion: String(resourceVersion) } },
        resourceVersion,
      });
    }
    this.#log.length = 0;
    this.#oldest = this.#resourceVersion;
  }

  send(event: unknown, resourceVersion: number = this.#resourceVersion): void {
    const line = `${JSON.stringify(event)}\n`;
    this.#log.push({ resourceVersion, line });
    for (const watch of this.#watches) watch.write(line);
  }

  endWatches(how: "close" | "reset"): void {
    for (const watch of this.#watches) {
      if (how === "close") watch.end();
      else watch.destroy();
    }
    this.#watches.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const url = new URL(request.url ?? "/", this.url);
    const text = Buffer.concat(chunks).toString();
    const seen: SeenRequest = {
      method: request.method ?? "",
      path: url.pathname,
      query: url.searchParams,
      contentType: request.headers["content-type"] ?? "",
      authorization: request.headers.authorization ?? "",
      body: text === "" ? undefined : JSON.parse(text),
    };
    this.requests.push(seen);
    response.on("error", () => undefined);
    if (this.answer(seen, response)) return;
    if (seen.query.get("watch") === "true") this.#watch(seen, response);
    else this.#list(seen, response);
  }

  #list(seen: SeenRequest, response: ServerResponse): void {
    const all = [...this.#objects.values()].map(({ object }) => object);
    const limit = Number(seen.query.get("limit") ?? 500);
    const offset = Number(seen.query.get("continue") ?? 0);
    const next = offset + limit < all.length ? String(offset + limit) : "";
    reply(response, 200, { metadata: { resourceVersion: String(this.#resourceVersion), continue: next }, items: all.slice(offset, offset + limit) });
  }

  #watch(seen: SeenRequest, response: ServerResponse): void {
    const from = Number(seen.query.get("resourceVersion") ?? 0);
    response.writeHead(200, { "content-type": "application/json" });
    if (from < this.#oldest) {
      response.end(`${JSON.stringify({ type: "ERROR", object: { kind: "Status", code: 410, reason: "Expired" } })}\n`);
      return;
    }
    response.flushHeaders();
    for (const { resourceVersion, line } of this.#log) if (resourceVersion > from) response.write(line);
    this.#watches.add(response);
    response.on("close", () => this.#watches.delete(response));
  }
}

export function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** Waits until `condition` holds, without guessing how long; the test's own timeout is the limit. */
export async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
