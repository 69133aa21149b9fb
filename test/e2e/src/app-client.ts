/** The application of the end-to-end tests, client side: one action, one JSON answer (or a line each for those that go on). */
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { lookup, Resolver } from "node:dns/promises";
import { request } from "node:http";
import { connect, isIPv6, type Socket } from "node:net";
import { callGrpc, chat, fetchMany, fetchOne, rawHttp } from "./echo-client.ts";
import { largeBodies, load } from "./load-client.ts";
import { testStream, testStreamDigest } from "./test-stream.ts";

const actionTimeoutMs = 60_000;

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function open(host: string, port: string, timeoutMs = 10_000): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
    const timer = setTimeout(() => socket.destroy(new Error("connect timed out")), timeoutMs);
    socket.once("error", reject);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/** Everything until the other side's FIN. Rejects when the connection broke instead. */
function readToEnd(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => received.push(chunk));
    socket.on("end", () => resolve(Buffer.concat(received)));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("closed before the end")));
  });
}

function firstData(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.once("data", (chunk: Buffer) => resolve(chunk.toString()));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed before any byte")));
  });
}

type Action = (...args: string[]) => Promise<object | undefined>;

const actions: Readonly<Record<string, Action>> = {
  echo: async (host = "", port = "", text = "ping") => {
    const socket = await open(host, port);
    const reply = readToEnd(socket);
    socket.end(text);
    return { reply: (await reply).toString() };
  },
  greeting: async (host = "", port = "") => {
    const socket = await open(host, port);
    const greeting = await firstData(socket);
    socket.write("thanks");
    const echoed = await firstData(socket);
    socket.end();
    return { greeting, echoed };
  },
  upload: async (host = "", port = "", bytes = "0") => {
    const socket = await open(host, port);
    const reply = readToEnd(socket);
    testStream(Number(bytes)).pipe(socket);
    return { reply: (await reply).toString(), expected: `${bytes} ${testStreamDigest(Number(bytes))}` };
  },
  download: async (host = "", port = "", bytes = "0") => {
    const socket = await open(host, port);
    const hash = createHash("sha256");
    let received = 0;
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      hash.update(chunk);
    });
    socket.write(`${bytes}\n`);
    await new Promise((resolve, reject) => {
      socket.on("end", resolve);
      socket.on("error", reject);
    });
    socket.end();
    return { reply: `${received} ${hash.digest("hex")}`, expected: `${bytes} ${testStreamDigest(Number(bytes))}` };
  },
  /** The server ends first; the client goes on sending and then ends. */
  farewell: async (host = "", port = "", bytes = "0") => {
    const socket = await open(host, port);
    const bye = (await readToEnd(socket)).toString();
    await new Promise<void>((resolve) => testStream(Number(bytes)).pipe(socket).on("finish", resolve));
    return { bye, sent: Number(bytes) };
  },
  /** `count` connections open at the same time, each proven by an echo while all stand. */
  many: async (host = "", port = "", count = "0") => {
    const results = await Promise.allSettled(
      Array.from({ length: Number(count) }, async (_, index) => {
        const socket = await open(host, port, actionTimeoutMs);
        const reply = firstData(socket);
        socket.write(`connection ${index}`);
        if ((await reply) !== `connection ${index}`) throw new Error("another connection's bytes");
        return socket;
      }),
    );
    const sockets = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    const standing = sockets.filter((socket) => !socket.destroyed && socket.readable).length;
    for (const socket of sockets) socket.destroy();
    const failure = results.find((result) => result.status === "rejected");
    return { standing, failed: results.length - sockets.length, failure: failure === undefined ? undefined : String(failure.reason) };
  },
  udp: async (host = "", port = "", text = "ping") => {
    const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
    const reply = new Promise<string>((resolve) => socket.on("message", (message) => resolve(message.toString())));
    socket.send(text, Number(port), host);
    const answer = { reply: await reply };
    socket.close();
    return answer;
  },
  /** What the C library's resolver finds, as applications ask it: search domains, both families, TCP when an answer is cut. */
  lookup: async (name = "") => {
    const found = await lookup(name, { all: true, order: "verbatim" });
    return { addresses: found.map(({ address }) => address).sort() };
  },
  /** What one question is answered with, nothing appended to the name: A with its time to live, or any other type. */
  resolve: async (type = "", name = "") => {
    const resolver = new Resolver({ timeout: 5_000, tries: 1 });
    return { records: type === "A" ? await resolver.resolve4(name, { ttl: true }) : await resolver.resolve(name, type) };
  },
  http: (url = "") =>
    new Promise((resolve, reject) => {
      const outgoing = request(url, { agent: false, timeout: 10_000 }, (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => {
          body += chunk.toString();
        });
        response.on("end", () => resolve({ status: response.statusCode, body: body.trim() }));
      });
      outgoing.on("timeout", () => outgoing.destroy(new Error("timed out")));
      outgoing.on("error", reject);
      outgoing.end();
    }),
  fetch: (url = "", options = "{}") => fetchOne(url, JSON.parse(options) as object),
  "fetch-many": (url = "", count = "1", options = "{}") => fetchMany(url, Number(count), JSON.parse(options) as object),
  "raw-http": (host = "", port = "", bytes = "") => rawHttp(host, Number(port), bytes),
  websocket: (url = "", count = "1") => chat(url, Number(count)),
  grpc: (target = "", kind = "unary", count = "1", options = "{}") => callGrpc(target, kind, Number(count), JSON.parse(options) as object),
  /** Requests at a rate for a while: what became of them. */
  "http-load": (url = "", perSecond = "1", durationMs = "1000") => load(url, Number(perSecond), Number(durationMs)),
  "http-bodies": (base = "", bytes = "0") => largeBodies(base, Number(bytes)),
  /** A new connection with an echo each interval, a line each, until stopped. */
  load: async (host = "", port = "", everyMs = "100") => {
    for (let index = 0; ; index++) {
      const at = Date.now();
      const attempt = async (): Promise<void> => {
        const socket = await open(host, port);
        const reply = readToEnd(socket);
        socket.end(`request ${index}`);
        if ((await reply).toString() !== `request ${index}`) throw new Error("wrong echo");
      };
      void attempt().then(
        () => print({ at, ok: true }),
        (error: unknown) => print({ at, ok: false, error: String(error) }),
      );
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, at + Number(everyMs) - Date.now())));
    }
  },
  /** One connection that echoes each interval; says when it opened, every echo, and how it closed. */
  stay: async (host = "", port = "", everyMs = "100") => {
    const socket = await open(host, port);
    print({ event: "open", at: Date.now() });
    socket.on("data", () => print({ event: "echo", at: Date.now() }));
    socket.on("error", (error) => print({ event: "error", at: Date.now(), error: error.message }));
    const timer = setInterval(() => socket.write("tick"), Number(everyMs));
    await new Promise((resolve) => socket.on("close", resolve));
    clearInterval(timer);
    return { event: "closed", at: Date.now() };
  },
};

export async function act(action: string, args: readonly string[]): Promise<void> {
  const perform = actions[action];
  if (perform === undefined) throw new Error(`unknown action ${action}`);
  const finish = (answer: object): never => {
    print(answer);
    process.exit(0);
  };
  const unbounded = action === "load" || action === "stay";
  if (!unbounded) setTimeout(() => finish({ error: `${action} did not end within ${actionTimeoutMs} ms` }), actionTimeoutMs);
  finish((await perform(...args).catch((error: unknown) => ({ error: String(error) }))) ?? {});
}
