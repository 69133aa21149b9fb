/**
 * HTTP/1 inside streams of tunnels, of each engine: a reset of the stream is the end of the client, or of the endpoint, never that of a message.
 */

import { duplexPair } from "node:stream";
import { defaultClientSettings, defaultServerSettings, leanEngine, nodeHttp2Engine, type TunnelStream } from "@fairway/hbone";
import { HeaderFields } from "@fairway/model";
import test from "ava";
import { type Delivery, defaultHttpLimits, type IncomingRequest } from "./http-connection.ts";
import { connectHttp1 } from "./http1/client-connection.ts";
import { serveHttp1 } from "./http1/server-connection.ts";
import { ask, collect, ScriptedBody, until } from "./test-forwarder.ts";

const signal = new AbortController().signal;

for (const engine of [leanEngine, nodeHttp2Engine]) {
  /** A tunnel stream, both ends. */
  async function streams(): Promise<{ near: TunnelStream; far: TunnelStream }> {
    const [client, server] = duplexPair();
    const far = Promise.withResolvers<TunnelStream>();
    engine.serve(server, defaultServerSettings, (exchange) => far.resolve(exchange.accept({})));
    const tunnel = await engine.connect(client, defaultClientSettings, { signal });
    const { stream } = await tunnel.open({ authority: "10.0.0.1:80" }, { signal });
    return { near: stream, far: await far.promise };
  }

  test(`${engine.name}: a client whose stream is reset while it waits is gone`, async (t) => {
    const { near, far } = await streams();
    let outcome: Delivery | undefined;
    let asked: IncomingRequest | undefined;
    serveHttp1(far.duplex(), {
      limits: defaultHttpLimits,
      onRefused: () => undefined,
      onRequest: (request) => {
        asked = request;
        request.onDone = (delivery) => {
          outcome = delivery;
        };
      },
    });
    const client = near.duplex().on("error", () => undefined);
    client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => asked !== undefined);
    near.reset();
    await until(() => outcome !== undefined);
    t.like(outcome?.error, { code: "WAYPOINT_CLIENT_GONE" });
  });

  // The reset of node:http2 sends END_STREAM first; its peer cannot know better.
  if (engine !== nodeHttp2Engine)
    test(`${engine.name}: an answer that ends with the connection is broken when the stream is reset, and whole when it is ended`, async (t) => {
      for (const reset of [true, false]) {
        const { near, far } = await streams();
        const connection = connectHttp1(near.duplex(), { limits: defaultHttpLimits, onUnusable: () => undefined });
        const application = far.duplex().on("error", () => undefined);
        application.resume();
        const sending = connection.send(ask(), { signal });
        application.write("HTTP/1.1 200 OK\r\n\r\nhello");
        const body = collect((await sending).body);
        await until(() => body.text === "hello");
        if (reset) far.reset();
        else application.end();
        await body.over;
        t.is(body.outcome instanceof Error, reset);
      }
    });

  test(`${engine.name}: an answer that breaks off here resets the stream`, async (t) => {
    const { near, far } = await streams();
    const body = new ScriptedBody();
    serveHttp1(far.duplex(), {
      limits: defaultHttpLimits,
      onRefused: () => undefined,
      onRequest: (request) => request.respond({ status: 200, headers: new HeaderFields(), body }),
    });
    const connection = connectHttp1(near.duplex(), { limits: defaultHttpLimits, onUnusable: () => undefined });
    const seen = collect((await connection.send(ask(), { signal })).body);
    body.write("hello");
    await until(() => seen.text === "hello");
    body.fail(new Error("broken"));
    await seen.over;
    t.like(seen.outcome, { code: "WAYPOINT_UPSTREAM_RESET" });
  });
}
