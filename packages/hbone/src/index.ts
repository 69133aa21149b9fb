/** Tunnel bytes over HTTP/2 CONNECT, given any duplex stream; knows no TLS. */
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
