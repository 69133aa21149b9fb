/** `serve` runs the application; `connects|requests|down <ip> <seconds>` puts load on it and prints what was done. Both run inside pods. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export type LoadKind = "connects" | "requests" | "down";

export interface LoadResult {
  /** Connections, requests, or bytes. */
  readonly done: number;
  readonly failed: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const echoPort = 8_000;
const sourcePort = 8_001;
const connecting = 16;
const requesting = 32;
const streaming = 8;
const request = Buffer.alloc(1_024, "r");
const chunk = Buffer.alloc(256 * 1_024, "d");

function serve(): void {
  createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  }).listen(echoPort);
  createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    const push = (): void => {
      while (socket.write(chunk));
    };
    socket.on("drain", push);
    push();
  }).listen(sourcePort);
}

async function open(ip: string, port: number): Promise<Socket> {
  const socket = connect({ host: ip, port, noDelay: true });
  await once(socket, "connect");
  return socket;
}

/** Sends one request and waits for all of its echo. */
async function exchange(socket: Socket): Promise<void> {
  let left = request.length;
  socket.write(request);
  while (left > 0) left -= ((await once(socket, "data"))[0] as Buffer).length;
}

const clients: Readonly<Record<LoadKind, { readonly count: number; readonly run: (ip: string, more: () => boolean, note: Note) => Promise<void> }>> = {
  connects: {
    count: connecting,
    run: async (ip, more, note) => {
      while (more()) {
        const at = performance.now();
        try {
          const socket = await open(ip, echoPort);
          socket.on("error", () => {});
          await exchange(socket);
          const closed = once(socket, "close");
          socket.end();
          note.done(1, performance.now() - at);
          await closed;
        } catch {
          note.failed();
        }
      }
    },
  },
  requests: {
    count: requesting,
    run: async (ip, more, note) => {
      const socket = await open(ip, echoPort);
      while (more()) {
        const at = performance.now();
        await exchange(socket);
        note.done(1, performance.now() - at);
      }
      socket.destroy();
    },
  },
  down: {
    count: streaming,
    run: async (ip, more, note) => {
      const socket = await open(ip, sourcePort);
      while (more()) note.done(((await once(socket, "data"))[0] as Buffer).length, 0);
      socket.destroy();
    },
  },
};

interface Note {
  readonly done: (count: number, ms: number) => void;
  readonly failed: () => void;
}

async function load(kind: LoadKind, ip: string, seconds: number): Promise<LoadResult> {
  const { count, run } = clients[kind];
  const latencies: number[] = [];
  let [done, failed] = [0, 0];
  const note: Note = {
    done: (some, ms) => {
      done += some;
      if (ms > 0) latencies.push(ms);
    },
    failed: () => {
      failed++;
    },
  };
  const started = performance.now();
  const more = (): boolean => performance.now() - started < seconds * 1_000;
  await Promise.all(Array.from({ length: count }, () => run(ip, more, note)));
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? 0;
  return { done, failed, seconds: (performance.now() - started) / 1_000, p50Ms: at(0.5), p99Ms: at(0.99) };
}

const [mode = "", ip = "", seconds = ""] = process.argv.slice(2);
if (mode === "serve") serve();
else if (mode === "connects" || mode === "requests" || mode === "down") {
  process.stdout.write(JSON.stringify(await load(mode, ip, Number(seconds))));
  process.exit(0);
}
