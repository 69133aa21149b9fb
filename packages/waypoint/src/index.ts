/** The L7 proxy: requests of bound services and workloads, governed and routed. */
export { type Body, type BodySink, emptyBody, textBody } from "./body.ts";
export { createCodecs } from "./codecs.ts";
export type { ProxyConfig } from "./config.ts";
export type { Downstream, Exchange, ExchangeRecord, Stage } from "./exchange.ts";
export {
  type Answer,
  type ClientConnection,
  type ConnectHttp,
  type Delivery,
  defaultHttpLimits,
  type HttpLimits,
  type HttpVersion,
  type IncomingRequest,
  type OutgoingRequest,
  type ServeHttp,
  type ServerConnection,
  type ServerConnectionOptions,
} from "./http-connection.ts";
export type { ThreadSettings } from "./thread-protocol.ts";
export { holdThread, type TrafficThread } from "./traffic-thread.ts";
export { runTrafficWorker } from "./traffic-worker.ts";
export { boundYoungObjects, trafficThreadMemory } from "./young-objects.ts";
