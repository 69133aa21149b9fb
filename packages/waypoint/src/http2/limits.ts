/** Bounds of an HTTP/2 session that node:http2 enforces (waypoint contract 6.2): floods end the session, not the process. */
import type { ServerSessionOptions, Settings } from "node:http2";
import type { HttpLimits } from "../http-connection.ts";

/** Windows in bytes: the defaults of HTTP/2 (64 KiB) would bound a stream at 64 KiB per round trip. */
const streamWindow = 1024 * 1024;
export const connectionWindow: number = 8 * 1024 * 1024;
/** Pairs beyond the limit of a message that are still read, to answer 431 instead of resetting. */
const headerPairsMargin = 64;
const maxSessionMegabytes = 16;
const maxInvalidFrames = 100;
const maxRejectedStreams = 100;
const maxSettings = 32;
/** Resets a peer may send at once, and per second (CVE-2023-44487). */
const resetBurst = 200;
const resetRate = 50;

export function sessionOptions(limits: HttpLimits): ServerSessionOptions {
  return {
    maxHeaderListPairs: limits.maxHeaderCount + headerPairsMargin,
    maxSessionMemory: maxSessionMegabytes,
    maxSessionInvalidFrames: maxInvalidFrames,
    maxSessionRejectedStreams: maxRejectedStreams,
    maxSettings,
    streamResetBurst: resetBurst,
    streamResetRate: resetRate,
  };
}

export function sessionSettings({ maxHeaderBytes, maxConcurrentStreams }: HttpLimits): Settings {
  return { initialWindowSize: streamWindow, maxHeaderListSize: maxHeaderBytes, maxConcurrentStreams };
}
