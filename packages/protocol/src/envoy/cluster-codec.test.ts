import { unlimited } from "@fairway/model";
import test from "ava";
import * as wire from "../gen/resources/envoy/config/cluster/v3/cluster.ts";
import { changed, empty, type Mutable, refuses, set } from "../sample-change.ts";
import { decodeCluster, encodeCluster } from "./cluster-codec.ts";

type WireCluster = Mutable<wire.Cluster>;
const cluster = encodeCluster({
  name: "c",
  service: { namespace: "shop", hostname: "api.shop", port: 80 },
  protocol: "same",
  connectTimeoutMs: 1,
  loadBalancing: "random",
  limits: unlimited,
  ejection: { consecutiveErrors: 1, consecutiveGatewayErrors: 1, baseEjectionMs: 1, maxEjectionMs: 1, maxEjectedPercent: 1 },
});
const refusedInClusters: readonly (readonly [message: string, change: (message: WireCluster) => void])[] = [
  ['cluster "c": type: only EDS is supported', (message) => (message.clusterDiscoveryType = { $case: "type", value: wire.Cluster_DiscoveryType.STATIC })],
  ['cluster "c": cluster_type is not supported', (message) => (message.clusterDiscoveryType = { $case: "clusterType", value: empty })],
  ['cluster "c": lb_policy: unknown value 2', (message) => (message.lbPolicy = wire.Cluster_LbPolicy.RING_HASH)],
  ['cluster "c": transport_socket is not supported', (message) => (message.transportSocket = empty)],
  ['cluster "c": health_checks is not supported', (message) => (message.healthChecks = [empty])],
  ['cluster "c": load_balancing_policy is not supported', (message) => (message.loadBalancingPolicy = { policies: [] })],
  ['cluster "c": eds_cluster_config: missing', (message) => (message.edsClusterConfig = undefined)],
  ['cluster "c": metadata.istio.services: missing', (message) => (message.metadata = undefined)],
  [
    'cluster "c": outlier_detection.enforcing_success_rate is not supported',
    ({ outlierDetection }) => set(outlierDetection, { enforcingSuccessRate: undefined }),
  ],
  [
    'cluster "c": outlier_detection.enforcing_consecutive_5xx: 50: an endpoint is ejected always or never',
    ({ outlierDetection }) => set(outlierDetection, { enforcingConsecutive5xx: 50 }),
  ],
  [
    'cluster "c": circuit_breakers.per_host_thresholds is not supported',
    ({ circuitBreakers: breakers }) => breakers?.perHostThresholds.push(...breakers.thresholds),
  ],
  [
    'cluster "c": typed_extension_protocol_options."other" is not supported',
    (message) => message.typedExtensionProtocolOptions.set("other", { typeUrl: "t", value: empty }),
  ],
];

for (const [message, change] of refusedInClusters) {
  test(`a cluster is refused: ${message}`, (t) => {
    refuses(t, decodeCluster, changed(wire.Cluster, cluster, change), message);
  });
}
