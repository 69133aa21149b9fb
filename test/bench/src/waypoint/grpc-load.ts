/** gRPC unary calls over node:http2: a message of a few bytes there and back, with trailers. */
import { type ClientHttp2Session, connect } from "node:http2";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { openCarrier } from "./carriers.ts";
import { service, type WaypointLoad, type WaypointLoadResult } from "./measures.ts";

const warmUpMs = 300;
/** Not compressed, five bytes. */
const message = Buffer.from([0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);

export async function grpcLoad(
  { authority, target, connections, streams, ms }: WaypointLoad & { kind: "grpc" },
  percentiles: (latencies: number[]) => NonNullable<WaypointLoadResult["latency"]>,
): Promise<WaypointLoadResult> {
  await using carrier = await openCarrier(authority, target);
  const sessions: ClientHttp2Session[] = [];
  for (let index = 0; index < connections; index++) sessions.push(sessionOver(await carrier.stream("http2")));
  let [measuring, running, failures] = [false, true, 0];
  const latencies: number[] = [];
  const loops = sessions.flatMap((session) =>
    Array.from({ length: streams }, async () => {
      while (running) {
        const sent = performance.now();
        const answered = await unary(session);
        if (!answered) failures++;
        else if (measuring) latencies.push(performance.now() - sent);
        if (session.destroyed) return;
      }
    }),
  );
  await sleep(warmUpMs);
  measuring = true;
  const start = performance.now();
  await sleep(ms);
  measuring = false;
  const seconds = (performance.now() - start) / 1000;
  running = false;
  await Promise.all(loops);
  for (const session of sessions) session.destroy();
  return { count: latencies.length, seconds, failures, latency: percentiles(latencies) };
}

function sessionOver(stream: Duplex): ClientHttp2Session {
  const session = connect(`http://${service.hostname}:${service.grpcPort}`, { createConnection: () => stream });
  session.on("error", () => undefined);
  return session;
}

function unary(session: ClientHttp2Session): Promise<boolean> {
  return new Promise((resolve) => {
    const call = session.request({ ":method": "POST", ":path": "/bench.App/Ping", "content-type": "application/grpc", te: "trailers" });
    let status: unknown;
    call.on("trailers", (trailers) => {
      status = trailers["grpc-status"];
    });
    call.on("error", () => undefined);
    call.on("close", () => resolve(status === "0"));
    call.resume();
    call.end(message);
  });
}
