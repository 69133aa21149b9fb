/** A small Kubernetes API server in memory. */
export { gatewayDefinitions } from "./gateway-definitions.ts";
export type { ContainerRef, DialRequest, ExecRequest, ExecSession, KubeletGateway, LogRequest } from "./kubelet-gateway.ts";
export { type ApiServer, type ApiServerLimits, type ApiServerOptions, defaultApiServerLimits, startApiServer } from "./server.ts";
