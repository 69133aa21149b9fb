/** Tunnel bytes over HTTP/2 CONNECT, given any duplex stream; knows no TLS. */
export {
  type Authority,
  type Baggage,
  type Forwarded,
  formatAuthority,
  formatBaggage,
  formatForwarded,
  makeTraceparent,
  parseAuthority,
  parseBaggage,
  parseForwarded,
  parseTraceparent,
  type TraceContext,
} from "./connect-request.ts";
export type {
  ClientTunnel,
  ConnectExchange,
  ConnectRequest,
  PipeOutcome,
  ServerTunnel,
  TunnelEngine,
  TunnelKey,
  TunnelSettings,
  TunnelStream,
} from "./engine.ts";
export { defaultEngineName, type EngineName, engineNames, tunnelEngine } from "./engines.ts";
export { createLeanEngine, leanEngine } from "./lean/index.ts";
export { createHboneMetrics, type HboneMetrics } from "./metrics.ts";
export { createNodeHttp2Engine, nodeHttp2Engine } from "./node-http2-engine.ts";
export { type PipeOptions, pipe } from "./pipe.ts";
export { type OpenedStream, type TunnelDial, TunnelPool, type TunnelPoolOptions } from "./pool.ts";
export { defaultClientSettings, defaultServerSettings } from "./settings.ts";
export { localEnd, refuse, remoteEnd, socketEnd } from "./socket-ends.ts";
export { UnblockedTransport } from "./unblocked-transport.ts";
export { collectYoungObjectsByBytes, collectYoungObjectsEarly } from "./young-generation.ts";
