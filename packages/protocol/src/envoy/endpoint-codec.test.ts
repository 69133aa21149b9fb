import { parseIp } from "@fairway/model";
import test from "ava";
import { ClusterLoadAssignment } from "../gen/resources/envoy/config/endpoint/v3/endpoint.ts";
import { changed, type Mutable, refuses } from "../sample-change.ts";
import { decodeEndpoints, encodeEndpoints } from "./endpoint-codec.ts";

const endpoints = encodeEndpoints({
  cluster: "c",
  localities: [
    {
      locality: { region: "", zone: "", subzone: "" },
      priority: 0,
      weight: 1,
      endpoints: [{ address: { ip: parseIp("10.0.0.1"), port: 80 }, tunnel: "hbone", workload: "uid", health: "healthy", weight: 1 }],
    },
  ],
});
type WireEndpoint = Mutable<ClusterLoadAssignment>["endpoints"][number]["lbEndpoints"][number];
const refusedInEndpoints: readonly (readonly [message: string, change: (message: WireEndpoint) => void])[] = [
  ['endpoints of "c": lb_endpoints.health_status: unknown value 5', (message) => (message.healthStatus = 5)],
  ['endpoints of "c": lb_endpoints.load_balancing_weight: must be at least 1', (message) => (message.loadBalancingWeight = 0)],
  ['endpoints of "c": lb_endpoints.endpoint_name is not supported', (message) => (message.hostIdentifier = { $case: "endpointName", value: "e" })],
  [
    'endpoints of "c": lb_endpoints.endpoint.address.envoy_internal_address.metadata.waypoint is not supported',
    ({ metadata }) => metadata?.filterMetadata.set("envoy.filters.listener.original_dst", { local: "10.0.0.1:80", waypoint: "10.0.0.2:15008" }),
  ],
  [
    'endpoints of "c": lb_endpoints.endpoint.address.envoy_internal_address.metadata.local: differs from endpoint_id',
    ({ metadata }) => metadata?.filterMetadata.set("envoy.filters.listener.original_dst", { local: "10.0.0.2:80" }),
  ],
];

for (const [message, change] of refusedInEndpoints) {
  test(`endpoints are refused: ${message}`, (t) => {
    const bytes = changed(ClusterLoadAssignment, endpoints, (assignment) => {
      const endpoint = assignment.endpoints[0]?.lbEndpoints[0];
      if (endpoint !== undefined) change(endpoint);
    });
    refuses(t, decodeEndpoints, bytes, message);
  });
}
