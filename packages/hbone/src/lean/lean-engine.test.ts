/** The lean engine against the suites that every engine passes. */
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { errorCode } from "@fairway/runtime";
import test from "ava";
import { hostileCompliance } from "../compliance/hostile-compliance.ts";
import { type Link, memoryLink, tcpLink, tlsLink } from "../compliance/link.ts";
import { forever, tunnelCompliance, withoutPings } from "../compliance/tunnel-compliance.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { createLeanEngine, leanEngine } from "./index.ts";

/** Both ends of a stream, as plain duplexes: double HBONE (ztunnel contract 1.10). */
async function nestedLink(): Promise<Link> {
  const outer = await tcpLink();
  const far = Promise.withResolvers<Duplex>();
  leanEngine.serve(outer.server, { ...defaultServerSettings, ...withoutPings }, (exchange) => far.resolve(exchange.accept({}).duplex()));
  const tunnel = await leanEngine.connect(outer.client, { ...defaultClientSettings, ...withoutPings }, { signal: forever });
  const { stream } = await tunnel.open({ authority: "gateway.mesh:15008" }, { signal: forever });
  const client = stream.duplex();
  // The outer tunnel ends with its only stream.
  client.once("close", () => tunnel.drain());
  return { client, server: await far.promise };
}

tunnelCompliance(test, {
  engine: leanEngine,
  connections: new Map<string, () => Promise<Link>>([
    ["memory", memoryLink],
    ["TCP", tcpLink],
    ["TLS", tlsLink],
    ["a stream of another tunnel", nestedLink],
  ]),
});

hostileCompliance(test, { name: "lean", create: createLeanEngine });

test("a connection that is closed already is neither waited for nor served", async (t) => {
  for (const settled of [true, false]) {
    const [near, far] = [await tcpLink(), await tcpLink()];
    for (const socket of [near.client, near.server, far.client, far.server]) socket.destroy();
    if (settled) await Promise.all([near.client, far.server].map((socket) => once(socket, "close")));
    await t.throwsAsync(leanEngine.connect(near.client, defaultClientSettings, { signal: forever }), { code: "HBONE_TUNNEL_LOST" });
    t.is(errorCode(await leanEngine.serve(far.server, defaultServerSettings, () => t.fail()).closed), "HBONE_TUNNEL_LOST");
  }
});
