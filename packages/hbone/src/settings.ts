/** Settings of both ends of a tunnel (ztunnel contract 1.7), and the bounds that keep a hostile peer cheap. */
import type { TunnelSettings } from "./engine.ts";

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

export const defaultClientSettings: TunnelSettings = {
  streamWindow: 4 * mebibyte,
  // Four times the stream window on purpose: a few streams that nobody reads must not starve the others.
  connectionWindow: 16 * mebibyte,
  frameSize: mebibyte,
  maxStreams: 100,
  maxHeaderBytes: 16 * kibibyte,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
};

export const defaultServerSettings: TunnelSettings = { ...defaultClientSettings, maxStreams: 200, maxHeaderBytes: 64 * kibibyte };

/** Header fields of one CONNECT; the mesh sends at most six. */
export const maxHeaderPairs = 64;
/**
 * Resets a client may send at once before the server ends the tunnel (CVE-2023-44487). The default of node:http2, 1,000 and then 33 a
 * second, is what ended tunnels under bursts of connections: applications that hang up become resets, and every stream of the tunnel pays.
 */
export const resetBurst = 10_000;
/** Resets per second that refill the burst. */
export const resetRate = 1_000;
/**
 * Streams refused over the life of a tunnel. A server that is behind in closing streams refuses some without any fault of the client;
 * the default of node:http2 ends the tunnel after 100.
 */
export const maxRefusedStreams = 100_000;
/** Frames that name a stream in the wrong state; late frames of a stream just reset count too. */
export const maxInvalidFrames = 10_000;
/** Megabytes of one session, header tables and unsent data included; above it new streams are refused. */
export const maxSessionMegabytes = 256;
/** How long a peer may take for its SETTINGS. */
export const settingsTimeoutMs = 10_000;
