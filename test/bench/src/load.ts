/** The load generator: a process of its own that does one measurement at a time. */
import { connect, type Socket } from "node:net";
import { serveParent } from "./child.ts";
import { dial, later } from "./load-connection.ts";
import { checkHeld, hold, release } from "./load-held.ts";
import { paced } from "./load-paced.ts";
import { type LoadRequest, type LoadResult, percentiles, requestBytes } from "./measures.ts";

const block = Buffer.alloc(256 * 1024, 7);
const warmUpMs = 200;

async function throughput({ host, direction, connections, port, ms, warmUpMs: rampMs }: LoadRequest & { kind: "throughput" }): Promise<LoadResult> {
  const sockets = await Promise.all(Array.from({ length: connections }, () => dial(port, host)));
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
  await later(rampMs);
  const [before, start] = [moved(), performance.now()];
  await later(ms);
  const [count, seconds] = [moved() - before, (performance.now() - start) / 1000];
  for (const socket of sockets) socket.destroy();
  return { count, seconds, failures };
}

async function requests({ host, connections, port, ms }: LoadRequest & { kind: "requests" }): Promise<LoadResult> {
  const body = Buffer.alloc(requestBytes, 1);
  const latencies: number[] = [];
  let [measuring, failures] = [false, 0];
  const sockets = await Promise.all(Array.from({ length: connections }, () => dial(port, host)));
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
  return { count: latencies.length, seconds, failures, latency: percentiles(latencies) };
}

/** Whether somebody listens. */
async function probe({ host, port }: LoadRequest & { kind: "probe" }): Promise<LoadResult> {
  try {
    (await dial(port, host)).destroy();
    return { count: 1, seconds: 0, failures: 0 };
  } catch {
    return { count: 0, seconds: 0, failures: 0 };
  }
}

/**
 * Connect, one byte there and back, close: `concurrency` of them at any time. What this costs is taken from what is measured, so a connection here
 * has no more than it needs: one buffer for the bytes of all, listeners that know their connection by `this`, no promise, no option of the socket.
 */
async function connects({ host, concurrency, port, ms }: LoadRequest & { kind: "connects" }): Promise<LoadResult> {
  let [count, failures, running, measuring, open] = [0, 0, true, false, 0];
  const { promise: over, resolve: onOver } = Promise.withResolvers<void>();
  const buffer = Buffer.alloc(1);
  const start = (): void => {
    open += 1;
    const onread = { buffer, callback: (): boolean => !!socket.end() };
    const socket = connect({ port, host, onread }, greet);
    socket.on("error", ignore);
    socket.on("close", onClose);
  };
  function onClose(this: Socket): void {
    if (this.bytesRead === 0) failures += 1;
    else if (measuring) count += 1;
    open -= 1;
    if (running) start();
    else if (open === 0) onOver();
  }
  for (let started = 0; started < concurrency; started++) start();
  await later(warmUpMs);
  measuring = true;
  const begun = performance.now();
  await later(ms);
  measuring = false;
  const seconds = (performance.now() - begun) / 1000;
  running = false;
  await over;
  return { count, seconds, failures };
}

function greet(this: Socket): void {
  this.write("x");
}

function ignore(): void {}

serveParent(async (request: LoadRequest | { kind: "hello" }): Promise<unknown> => {
  switch (request.kind) {
    case "throughput":
      return throughput(request);
    case "requests":
      return requests(request);
    case "connects":
      return connects(request);
    case "paced":
      return paced(request);
    case "hold":
      return hold(request);
    case "held":
      return checkHeld(request);
    case "release":
      return release(request);
    case "probe":
      return probe(request);
    case "hello":
      return {};
  }
});
