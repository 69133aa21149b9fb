/** The load generator of the waypoint's bench: HTTP/1.1 and gRPC over mutual TLS or over tunnels, one measurement at a time. */
import { setTimeout as sleep } from "node:timers/promises";
import { serveParent } from "../child.ts";
import { openCarrier } from "./carriers.ts";
import { closedLoops, percentiles } from "./closed-loops.ts";
import { grpcLoad } from "./grpc-load.ts";
import { HttpConnection } from "./http-connection.ts";
import type { WaypointLoad, WaypointLoadResult } from "./measures.ts";

const warmUpMs = 300;
/** Each one makes the proxy open one to the application. */
const warmUpPerConnectionMs = 5;

async function requests({ authority, target, connections, ms }: WaypointLoad & { kind: "requests" }): Promise<WaypointLoadResult> {
  await using carrier = await openCarrier(authority, target);
  const open = await Promise.all(Array.from({ length: connections }, async () => new HttpConnection(await carrier.stream())));
  const answered = async (connection: HttpConnection): Promise<"answered"> => {
    await connection.get("/");
    return "answered";
  };
  const measured = await closedLoops(
    open.map((connection) => () => answered(connection)),
    { warmUpMs: warmUpMs + connections * warmUpPerConnectionMs, ms },
  );
  const failures = open.reduce((sum, { failures: failed }) => sum + failed, 0);
  for (const connection of open) connection.close();
  return { ...measured, failures };
}

async function paced({ authority, target, connections, perSecond, ms }: WaypointLoad & { kind: "paced" }): Promise<WaypointLoadResult> {
  await using carrier = await openCarrier(authority, target);
  const idle = await Promise.all(Array.from({ length: connections }, async () => new HttpConnection(await carrier.stream())));
  const all = [...idle];
  const latencies: number[] = [];
  const waiting: number[] = [];
  const start = performance.now();
  const total = Math.round((perSecond * (warmUpMs + ms)) / 1000);
  const send = async (connection: HttpConnection, due: number): Promise<void> => {
    await connection.get("/");
    if (due - start >= warmUpMs) latencies.push(performance.now() - due);
    const next = waiting.shift();
    if (next === undefined) idle.push(connection);
    else void send(connection, next);
  };
  for (let index = 0; index < total; index++) {
    const planned = start + (index * 1000) / perSecond;
    const early = planned - performance.now();
    if (early > 1) await sleep(early);
    // Timers are no finer than a millisecond: what goes out before its time counts from then, or its latency would be less than it is.
    const due = Math.min(planned, performance.now());
    const connection = idle.pop();
    if (connection === undefined) waiting.push(due);
    else void send(connection, due);
  }
  while (idle.length < all.length) await sleep(5);
  const failures = all.reduce((sum, { failures: failed }) => sum + failed, 0);
  for (const connection of all) connection.close();
  return { count: latencies.length, seconds: ms / 1000, failures, latency: percentiles(latencies) };
}

async function body({ authority, target, direction, bytes }: WaypointLoad & { kind: "body" }): Promise<WaypointLoadResult> {
  await using carrier = await openCarrier(authority, target);
  const connection = new HttpConnection(await carrier.stream());
  await connection.get("/");
  const start = performance.now();
  const moved = direction === "down" ? await connection.get(`/bytes/${bytes}`) : await connection.put("/sink", bytes);
  const seconds = (performance.now() - start) / 1000;
  connection.close();
  return { count: moved, seconds, failures: connection.failures + (moved === bytes ? 0 : 1) };
}

async function probe({ authority, target }: WaypointLoad): Promise<WaypointLoadResult> {
  try {
    await using carrier = await openCarrier(authority, target);
    const connection = new HttpConnection(await carrier.stream());
    const count = (await connection.get("/")) > 0 && connection.failures === 0 ? 1 : 0;
    connection.close();
    return { count, seconds: 0, failures: 0 };
  } catch {
    return { count: 0, seconds: 0, failures: 1 };
  }
}

serveParent(async (load: WaypointLoad | { kind: "hello" }): Promise<unknown> => {
  switch (load.kind) {
    case "requests":
      return requests(load);
    case "paced":
      return paced(load);
    case "grpc":
      return grpcLoad(load);
    case "body":
      return body(load);
    case "probe":
      return probe(load);
    case "hello":
      return {};
  }
});
