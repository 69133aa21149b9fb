/** The reference engine: HBONE over node:http2. */
import { type Clock, systemClock } from "@fairway/runtime";
import type { TunnelEngine } from "./engine.ts";
import { connectTunnel } from "./node-http2-client.ts";
import { serveTunnel } from "./node-http2-server.ts";

/** The engine with another clock, for tests that own time. */
export function createNodeHttp2Engine(clock: Clock): TunnelEngine {
  return {
    name: "node-http2",
    connect: (transport, settings, options) => connectTunnel(clock, transport, settings, options),
    serve: (transport, settings, ...heard) => serveTunnel(clock, transport, settings, ...heard),
  };
}

export const nodeHttp2Engine: TunnelEngine = createNodeHttp2Engine(systemClock);
