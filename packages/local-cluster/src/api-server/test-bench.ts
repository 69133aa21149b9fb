/** What the tests of the API server drive it with: a scripted kubelet, a bare HTTPS client, and the real kubectl and helm. */
import { spawn } from "node:child_process";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { MeshError } from "@fairway/runtime";
import { isObject, type Json, type JsonObject } from "./json.ts";
import type { ExecSession, KubeletGateway } from "./kubelet-gateway.ts";
import { type ApiServer, type ApiServerOptions, startApiServer } from "./server.ts";

/** A kubelet of one answer each: logs name their container, `exec` knows cat, echo, fail and exit, dial goes to loopback and, as a kubelet's, arrives paused. */
export const scriptedKubelet: KubeletGateway = {
  async *logs({ container, tailLines, follow }, { signal }) {
    if (container === "broken") throw new MeshError("LOCAL_CLUSTER_NO_LOG", "the container never started; check its image");
    const lines = ["one", "two", "three"].map((word) => `${container} ${word}\n`);
    for (const line of lines.slice(-(tailLines ?? lines.length))) yield Buffer.from(line);
    if (follow && !signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  },
  exec: async ({ command }) => scriptedProcess(command),
  dial: ({ port }) =>
    new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => resolve(socket.pause()));
      socket.once("error", reject);
    }),
};

function scriptedProcess([name = "", ...args]: readonly string[]): ExecSession {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const exit = Promise.withResolvers<number>();
  const finish = (code: number): void => {
    stdout.end();
    stderr.end();
    exit.resolve(code);
  };
  let stdin: Writable = new Writable({ write: (_chunk, _encoding, done) => done() });
  if (name === "cat") {
    stdin = new PassThrough();
    (stdin as PassThrough).pipe(stdout, { end: false });
    stdin.once("finish", () => setImmediate(() => finish(0)));
  } else if (name === "fail") {
    stderr.write("it failed\n");
    finish(Number(args[0] ?? 1));
  } else {
    stdout.write(`${args.join(" ")}\n`);
    finish(0);
  }
  return { stdin, stdout, stderr, exit: exit.promise };
}

export interface Answer {
  readonly code: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body, when it is a JSON object. */
  readonly body: JsonObject;
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RequestParts {
  readonly token?: string | undefined;
  readonly type?: string;
  readonly accept?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class TestBench implements AsyncDisposable {
  readonly server: ApiServer;
  readonly kubeconfig: string;
  readonly #folder: string;
  readonly #agent: Agent = new Agent({ keepAlive: true, maxSockets: 4 });

  private constructor(server: ApiServer, folder: string) {
    this.server = server;
    this.#folder = folder;
    this.kubeconfig = join(folder, "kubeconfig");
  }

  static async start(options: Partial<ApiServerOptions> = {}): Promise<TestBench> {
    const server = await startApiServer({ kubelet: scriptedKubelet, ...options });
    const folder = await mkdtemp(join(tmpdir(), "fairway-api-server-"));
    const bench = new TestBench(server, folder);
    await writeFile(bench.kubeconfig, server.kubeconfig(), { mode: 0o600 });
    return bench;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    await this.server[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Sends one request, as the admin unless another token, or none (`undefined`), is given. */
  send(method: string, path: string, body?: Json | Buffer, parts: RequestParts = {}): Promise<Answer> {
    const token = "token" in parts ? parts.token : this.server.adminToken;
    const bytes = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const outgoing = request(
        `${this.server.url}${path}`,
        {
          method,
          ca: this.server.caPem,
          agent: this.#agent,
          headers: {
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
            ...(bytes === undefined
              ? {}
              : {
                  "content-type": parts.type ?? "application/json",
                  ...(parts.headers?.["transfer-encoding"] === undefined ? { "content-length": bytes.length } : {}),
                }),
            ...(parts.accept === undefined ? {} : { accept: parts.accept }),
            ...parts.headers,
          },
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
          incoming.on("error", reject);
          incoming.on("end", () => {
            const text = Buffer.concat(chunks).toString("utf8");
            resolve({ code: incoming.statusCode ?? 0, headers: incoming.headers, text, body: parsed(text) });
          });
        },
      );
      outgoing.on("error", reject);
      outgoing.end(bytes);
    });
  }

  /** Starts a watch and returns its events as they come. */
  async *watch(path: string, options: { signal: AbortSignal }): AsyncGenerator<{ type: string; object: JsonObject }> {
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { authorization: `Bearer ${this.server.adminToken}` };
      request(`${this.server.url}${path}`, { ca: this.server.caPem, agent: false, headers, signal: options.signal }, resolve).on("error", reject).end();
    });
    if (incoming.statusCode !== 200) throw new MeshError("LOCAL_CLUSTER_TEST", `the watch answered ${incoming.statusCode}`);
    let rest = "";
    for await (const chunk of incoming) {
      rest += String(chunk);
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line) as { type: string; object: JsonObject };
    }
  }

  kubectl(args: string, input = ""): Promise<Ran> {
    return this.run("kubectl", args, input);
  }

  /** Runs a program with this server's kubeconfig and a home of its own. `args` are split at spaces. */
  run(program: string, args: string | readonly string[], input = ""): Promise<Ran> {
    return new Promise((resolve, reject) => {
      const child = spawn(program, typeof args === "string" ? args.split(" ") : args, {
        env: { ...process.env, KUBECONFIG: this.kubeconfig, HOME: this.#folder },
        stdio: ["pipe", "pipe", "pipe"],
        timeout: 50_000,
      });
      let stdout = "";
      let stderr = "";
      child.stdout.on("data", (chunk: Buffer) => {
        stdout += chunk.toString("utf8");
      });
      child.stderr.on("data", (chunk: Buffer) => {
        stderr += chunk.toString("utf8");
      });
      child.on("error", reject);
      child.on("close", (code) => resolve({ code: code ?? -1, stdout, stderr }));
      child.stdin.on("error", () => undefined);
      child.stdin.end(input);
    });
  }
}

/** The first of the programs that exists on the path or as a file, or nothing. */
export async function findProgram(...candidates: readonly string[]): Promise<string | undefined> {
  for (const candidate of candidates) {
    const paths = candidate.includes("/") ? [candidate] : (process.env["PATH"] ?? "").split(":").map((folder) => join(folder, candidate));
    for (const path of paths) {
      const found = await access(path).then(
        () => true,
        () => false,
      );
      if (found) return path;
    }
  }
  return undefined;
}

function parsed(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
