/** The engines that stand behind the seam, by name. Both pass the same compliance suite and speak to each other. */
import type { TunnelEngine } from "./engine.ts";
import { leanEngine } from "./lean/index.ts";
import { nodeHttp2Engine } from "./node-http2-engine.ts";

/** `lean`: our own CONNECT-only framing, for speed. `node-http2`: the reference, and the fallback. */
export const engineNames = ["lean", "node-http2"] as const;
export type EngineName = (typeof engineNames)[number];
export const defaultEngineName: EngineName = "lean";

export function tunnelEngine(name: EngineName): TunnelEngine {
  return name === "lean" ? leanEngine : nodeHttp2Engine;
}
