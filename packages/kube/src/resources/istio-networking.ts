/** networking.istio.io/v1, as far as it is read here: how the endpoints of a service are treated. */
import type { KubeObject, ResourceType } from "../collection.ts";
import type { Condition } from "./core.ts";

export interface TrafficPolicy {
  loadBalancer?: { simple?: string };
  connectionPool?: {
    tcp?: { maxConnections?: number; connectTimeout?: string };
    http?: { http1MaxPendingRequests?: number; http2MaxRequests?: number; maxRetries?: number };
  };
  outlierDetection?: {
    consecutive5xxErrors?: number | null;
    consecutiveGatewayErrors?: number | null;
    baseEjectionTime?: string;
    maxEjectionPercent?: number;
  };
}

export interface DestinationRule extends KubeObject {
  spec?: {
    host?: string;
    trafficPolicy?: TrafficPolicy & { portLevelSettings?: (TrafficPolicy & { port?: { number?: number } })[] };
  };
  status?: { conditions?: Condition[] };
}

export const destinationRules: ResourceType<DestinationRule> = {
  group: "networking.istio.io",
  version: "v1",
  plural: "destinationrules",
  kind: "DestinationRule",
  namespaced: true,
};
