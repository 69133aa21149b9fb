/** The load generator: a process of its own that does one measurement at a time. */
import { connect } from "node:net";
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

/** Connect, one byte there and back, close: `concurrency` of them at any time. */
async function connects({ host, concurrency, port, ms }: LoadRequest & { kind: "connects" }): Promise<LoadResult> {
  let [count, failures, running, measuring] = [0, 0, true, false];
  const once = (): Promise<void> =>
    new Promise((resolve) => {
      let echoed = false;
      const socket = connect({ port, host, noDelay: true });
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
