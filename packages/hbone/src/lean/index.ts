/** The lean engine: HBONE over framing of its own, for CONNECT and nothing else, straight on the TLS socket. */
import { type Clock, systemClock } from "@fairway/runtime";
import type { TunnelEngine } from "../engine.ts";
import { connectTunnel } from "./client.ts";
import { serveTunnel } from "./server.ts";

/** The engine with another clock, for tests that own time. */
export function createLeanEngine(clock: Clock): TunnelEngine {
  return {
    name: "lean",
    connect: (transport, settings, options) => connectTunnel(clock, transport, settings, options),
    serve: (transport, settings, ...heard) => serveTunnel(clock, transport, settings, ...heard),
  };
}

export const leanEngine: TunnelEngine = createLeanEngine(systemClock);
