/** HTTP to the API server: whole JSON answers with a deadline and a size limit, and line streams for watches. */
import { type Agent as HttpAgent, type IncomingMessage, type RequestOptions, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { errorCode, MeshError } from "@fairway/runtime";
import { type StatusDocument, statusError, unreachable } from "./errors.ts";

/** How requests prove who we are; asked before every request, so that rotated tokens and certificates are picked up. */
export interface Credentials {
  readonly server: URL;
  authorize(): Promise<{ headers: Record<string, string>; agent: HttpAgent }>;
}

export interface ApiRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
}

/** Longest wait for a whole answer. */
const answerTimeoutMs = 30_000;
/** Largest answer accepted; a page of 500 large objects stays well below. */
const answerLimitBytes = 256 * 1024 * 1024;
/** Longest single watch event; etcd refuses objects above 1.5 MiB. */
const lineLimitBytes = 16 * 1024 * 1024;
/** Dead peers are found by the kernel even when a watch is quiet. */
const tcpKeepaliveMs = 30_000;

export class Transport {
  readonly #credentials: Credentials;

  constructor(credentials: Credentials) {
    this.#credentials = credentials;
  }

  get server(): string {
    return this.#credentials.server.href.replace(/\/$/, "");
  }

  /** The parsed answer. Throws MeshError KUBE_*, or the signal's reason. */
  async json<R>(request: ApiRequest): Promise<R> {
    const timeout = AbortSignal.timeout(answerTimeoutMs);
    const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout]);
    try {
      const response = await this.#open(request, signal);
      const body = await readAll(response);
      if ((response.statusCode ?? 0) >= 300) throw statusError(response.statusCode ?? 0, parseStatus(body), request);
      return parseAnswer(body, response) as R;
    } catch (thrown) {
      if (request.signal?.aborted) throw request.signal.reason;
      if (thrown instanceof MeshError) throw thrown;
      throw unreachable(thrown, this.server, request);
    }
  }

  /**
   * Lines of a streamed answer, in batches as they arrive. Ends when the server closes cleanly.
   * Throws MeshError KUBE_* on an error status, a reset, or a signal that aborts.
   */
  async *lines(request: ApiRequest & { readonly signal: AbortSignal }): AsyncGenerator<readonly string[], void, undefined> {
    let response: IncomingMessage;
    try {
      response = await this.#open(request, request.signal);
    } catch (thrown) {
      if (request.signal.aborted) throw request.signal.reason;
      throw unreachable(thrown, this.server, request);
    }
    try {
      if ((response.statusCode ?? 0) >= 300) throw statusError(response.statusCode ?? 0, parseStatus(await readAll(response)), request);
      yield [];
      response.setEncoding("utf8");
      let rest = "";
      for await (const chunk of response) {
        const parts = (rest + String(chunk)).split("\n");
        rest = parts.pop() ?? "";
        if (rest.length > lineLimitBytes) throw new MeshError("KUBE_UNAVAILABLE", `${request.path}: one event exceeds ${lineLimitBytes} bytes`);
        if (parts.length > 0) yield parts;
      }
      if (rest.trim() !== "") yield [rest];
    } catch (thrown) {
      if (request.signal.aborted) throw request.signal.reason;
      if (thrown instanceof MeshError) throw thrown;
      throw unreachable(thrown, this.server, request);
    } finally {
      response.destroy();
    }
  }

  async #open({ method, path, body, contentType = "application/json" }: ApiRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { headers, agent } = await this.#credentials.authorize();
    const { server } = this.#credentials;
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const options: RequestOptions = {
      method,
      host: server.hostname.replace(/^\[|\]$/g, ""),
      port: server.port === "" ? (server.protocol === "https:" ? 443 : 80) : Number(server.port),
      path: `${server.pathname.replace(/\/$/, "")}${path}`,
      agent,
      signal,
      headers: {
        accept: "application/json",
        "user-agent": "fairway",
        ...(payload === undefined ? {} : { "content-type": contentType, "content-length": payload.length }),
        ...headers,
      },
    };
    const attempt = (): Promise<{ response: IncomingMessage } | { error: Error; reused: boolean }> =>
      new Promise((resolve) => {
        const request = (server.protocol === "https:" ? requestHttps : requestHttp)(options, (response) => resolve({ response }));
        request.on("error", (error) => resolve({ error, reused: request.reusedSocket }));
        request.on("socket", (socket) => socket.setKeepAlive(true, tcpKeepaliveMs));
        request.end(payload);
      });
    let outcome = await attempt();
    // A kept connection that the server closed in the same moment: nothing was processed, so one more try is safe.
    if ("error" in outcome && outcome.reused && errorCode(outcome.error) === "ECONNRESET" && !signal.aborted) outcome = await attempt();
    if ("error" in outcome) throw outcome.error;
    return outcome.response;
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    const bytes = chunk as Buffer;
    size += bytes.length;
    if (size > answerLimitBytes) throw new MeshError("KUBE_UNAVAILABLE", `the answer exceeds ${answerLimitBytes} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseAnswer(body: string, response: IncomingMessage): unknown {
  if (body === "") return undefined;
  if (!(response.headers["content-type"] ?? "application/json").includes("json")) return body;
  return JSON.parse(body);
}

function parseStatus(body: string): StatusDocument {
  try {
    const document: unknown = JSON.parse(body);
    return typeof document === "object" && document !== null ? (document as StatusDocument) : {};
  } catch {
    return { message: body.slice(0, 200) };
  }
}
