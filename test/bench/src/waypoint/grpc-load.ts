/** gRPC unary calls over node:http2: a message of a few bytes there and back, with trailers. */
import { type ClientHttp2Session, connect } from "node:http2";
import type { Duplex } from "node:stream";
import { openCarrier } from "./carriers.ts";
import { closedLoops } from "./closed-loops.ts";
import { service, type WaypointLoad, type WaypointLoadResult } from "./measures.ts";

const warmUpMs = 300;
/** Not compressed, five bytes. */
const message = Buffer.from([0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);

export async function grpcLoad({ authority, target, connections, streams, ms }: WaypointLoad & { kind: "grpc" }): Promise<WaypointLoadResult> {
  await using carrier = await openCarrier(authority, target);
  const sessions: ClientHttp2Session[] = [];
  for (let index = 0; index < connections; index++) sessions.push(sessionOver(await carrier.stream("http2")));
  const callers = sessions.flatMap((session) => Array.from({ length: streams }, () => () => call(session)));
  const measured = await closedLoops(callers, { warmUpMs, ms });
  for (const session of sessions) session.destroy();
  return measured;
}

async function call(session: ClientHttp2Session): Promise<"answered" | "failed" | "gone"> {
  if (session.destroyed) return "gone";
  return (await unary(session)) ? "answered" : "failed";
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
