/** The load generator: a process of its own that does one measurement at a time. */
import { connect, type Socket } from "node:net";
import { serveParent } from "./child.ts";
import { type LoadRequest, type LoadResult, requestBytes } from "./measures.ts";

const block = Buffer.alloc(256 * 1024, 7);
const warmUpMs = 200;
const idle: Socket[] = [];

function dial(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function throughput({ direction, connections, port, ms }: LoadRequest & { kind: "throughput" }): Promise<LoadResult> {
  const sockets = await Promise.all(Array.from({ length: connections }, () => dial(port)));
  let bytes = 0;
  let failures = 0;
  for (const socket of sockets) {
    socket.on("error", () => {
      failures += 1;
    });
    if (direction === "down") {
      socket.on("data", (chunk) => {
        bytes += chunk.length;
      });
      socket.write("go");
    } else {
      const write = (): void => {
        while (!socket.destroyed && socket.write(block));
      };
      socket.on("drain", write);
      write();
    }
  }
  const moved = (): number => (direction === "down" ? bytes : sockets.reduce((sum, socket) => sum + socket.bytesWritten - socket.writableLength, 0));
  await later(warmUpMs);
  const [before, start] = [moved(), performance.now()];
  await later(ms);
  const [count, seconds] = [moved() - before, (performance.now() - start) / 1000];
  for (const socket of sockets) socket.destroy();
  return { count, seconds, failures };
}

async function requests({ connections, port, ms }: LoadRequest & { kind: "requests" }): Promise<LoadResult> {
  const body = Buffer.alloc(requestBytes, 1);
  const latencies: number[] = [];
  let [measuring, failures] = [false, 0];
  const sockets = await Promise.all(Array.from({ length: connections }, () => dial(port)));
  for (const socket of sockets) {
    let [got, sent] = [0, performance.now()];
    socket.on("error", () => {
      failures += 1;
    });
    socket.on("data", (chunk) => {
      got += chunk.length;
      if (got < requestBytes) return;
      const now = performance.now();
      if (measuring) latencies.push(now - sent);
      [got, sent] = [0, now];
      socket.write(body);
    });
    socket.write(body);
  }
  await later(warmUpMs);
  measuring = true;
  const start = performance.now();
  await later(ms);
  measuring = false;
  const seconds = (performance.now() - start) / 1000;
  for (const socket of sockets) socket.destroy();
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => (latencies[Math.floor(latencies.length * share)] ?? 0) * 1000;
  return { count: latencies.length, seconds, failures, latency: { p50: at(0.5), p90: at(0.9), p99: at(0.99) } };
}

/** Connect, one byte there and back, close: `concurrency` of them at any time. */
async function connects({ concurrency, port, ms }: LoadRequest & { kind: "connects" }): Promise<LoadResult> {
  let [count, failures, running, measuring] = [0, 0, true, false];
  const once = (): Promise<void> =>
    new Promise((resolve) => {
      let echoed = false;
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      socket.on("connect", () => socket.write("x"));
      socket.on("data", () => {
        echoed = true;
        socket.end();
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        if (measuring && echoed) count += 1;
        if (!echoed) failures += 1;
        resolve();
      });
    });
  const loops = Array.from({ length: concurrency }, async () => {
    while (running) await once();
  });
  await later(warmUpMs);
  measuring = true;
  const start = performance.now();
  await later(ms);
  measuring = false;
  const seconds = (performance.now() - start) / 1000;
  running = false;
  await Promise.all(loops);
  return { count, seconds, failures };
}

/** Adds connections that exchanged one byte and then stay silent. */
async function openIdle({ connections, port }: LoadRequest & { kind: "idle-open" }): Promise<LoadResult> {
  let failures = 0;
  const batch = 50;
  while (idle.length < connections) {
    const sockets = await Promise.all(Array.from({ length: Math.min(batch, connections - idle.length) }, () => dial(port)));
    await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<void>((resolve) => {
            socket.on("error", () => {
              failures += 1;
            });
            socket.once("close", () => resolve());
            socket.once("data", () => resolve());
            socket.write("x");
          }),
      ),
    );
    idle.push(...sockets);
  }
  return { count: idle.length, seconds: 0, failures };
}

function closeIdle(): LoadResult {
  const count = idle.length;
  for (const socket of idle.splice(0)) socket.destroy();
  return { count, seconds: 0, failures: 0 };
}

serveParent(async (request: LoadRequest | { kind: "hello" }): Promise<unknown> => {
  switch (request.kind) {
    case "throughput":
      return throughput(request);
    case "requests":
      return requests(request);
    case "connects":
      return connects(request);
    case "idle-open":
      return openIdle(request);
    case "idle-close":
      return closeIdle();
    case "hello":
      return {};
  }
});
