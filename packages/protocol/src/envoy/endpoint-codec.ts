/**
 * envoy.config.endpoint.v3.ClusterLoadAssignment to and from the model. An endpoint of the mesh is Envoy's internal listener that opens
 * tunnels, with the application's address as its id (waypoint contract 2.3); any other is its own address.
 */
import { type ClusterEndpoints, type Endpoint, formatSocketAddress, type LocalityEndpoints, tryParseSocketAddress } from "@fairway/model";
import * as address from "../gen/resources/envoy/config/core/v3/address.ts";
import { Locality } from "../gen/resources/envoy/config/core/v3/base.ts";
import { HealthStatus } from "../gen/resources/envoy/config/core/v3/health_check.ts";
import { ClusterLoadAssignment } from "../gen/resources/envoy/config/endpoint/v3/endpoint.ts";
import * as wire from "../gen/resources/envoy/config/endpoint/v3/endpoint_components.ts";
import { readMessage } from "../wire.ts";
import { Place } from "./place.ts";
import { meshMetadataFromWire, metadataToWire, socketAddressFromWire, socketAddressToWire, textOf, typeUrlOf } from "./values.ts";

export const endpointTypeUrl: string = typeUrlOf(ClusterLoadAssignment);

/** The internal listener of the reference that opens a tunnel. */
const tunnelListener = "connect_originate";
const originalDestination = "envoy.filters.listener.original_dst";
/** Envoy's limit. */
const maxPriority = 128;

export function encodeEndpoints(endpoints: ClusterEndpoints): Uint8Array {
  const message = ClusterLoadAssignment.fromPartial({ clusterName: endpoints.cluster, endpoints: endpoints.localities.map(localityToWire) });
  return ClusterLoadAssignment.encode(message).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeEndpoints(bytes: Uint8Array): ClusterEndpoints {
  const { clusterName, endpoints, ...rest } = readMessage(ClusterLoadAssignment, ClusterLoadAssignment.$type, bytes);
  const place = new Place(`endpoints of ${JSON.stringify(clusterName)}`);
  place.at("cluster_name").required(clusterName);
  place.refuseRest(ClusterLoadAssignment, rest);
  return { cluster: clusterName, localities: endpoints.map((locality) => localityFromWire(place, locality)) };
}

/** Envoy takes weights from 1; whatever has none is left out there, as here. */
function localityToWire({ locality, priority, weight, endpoints }: LocalityEndpoints): wire.LocalityLbEndpoints {
  return wire.LocalityLbEndpoints.fromPartial({
    locality: localityNameToWire(locality),
    priority,
    loadBalancingWeight: weight === 0 ? undefined : weight,
    lbEndpoints: endpoints.filter((endpoint) => endpoint.weight > 0).map(endpointToWire),
  });
}

export function localityNameToWire({ region, zone, subzone }: LocalityEndpoints["locality"]): Locality {
  return { region, zone, subZone: subzone };
}

function localityFromWire(place: Place, message: wire.LocalityLbEndpoints): LocalityEndpoints {
  const { locality, lbEndpoints, loadBalancingWeight, priority, ...rest } = message;
  place.refuseRest(wire.LocalityLbEndpoints, rest, { metadata: "belongs to other readers", proximity: "is not used by any balancer of ours" });
  const { region, zone, subZone, ...others } = locality ?? Locality.fromPartial({});
  place.at("locality").refuseRest(Locality, others);
  if (priority > maxPriority) throw place.at("priority").invalid(`${priority} is above ${maxPriority}`);
  return {
    locality: { region, zone, subzone: subZone },
    priority,
    weight: loadBalancingWeight ?? 0,
    endpoints: lbEndpoints.map((endpoint) => endpointFromWire(place.at("lb_endpoints"), endpoint)),
  };
}

function endpointToWire(endpoint: Endpoint): wire.LbEndpoint {
  const target = formatSocketAddress(endpoint.address);
  const tunnelled = endpoint.tunnel === "hbone";
  return wire.LbEndpoint.fromPartial({
    hostIdentifier: { $case: "endpoint", value: { address: tunnelled ? tunnelTo(target) : socketAddressToWire(endpoint.address) } },
    healthStatus: healthToWire(endpoint.health),
    loadBalancingWeight: endpoint.weight,
    metadata: metadataToWire({
      ...(tunnelled && { [originalDestination]: { local: target } }),
      ...(endpoint.workload !== "" && { istio: { uid: endpoint.workload } }),
    }),
  });
}

function tunnelTo(target: string): address.Address {
  const internal = { addressNameSpecifier: { $case: "serverListenerName", value: tunnelListener } as const, endpointId: target };
  return { address: { $case: "envoyInternalAddress", value: internal } };
}

function endpointFromWire(place: Place, { hostIdentifier, healthStatus, loadBalancingWeight, metadata, ...rest }: wire.LbEndpoint): Endpoint {
  place.refuseRest(wire.LbEndpoint, rest);
  if (hostIdentifier?.$case === "endpointName") throw place.refuse("host_identifier", hostIdentifier);
  const { address: where, ...others } = place.at("endpoint").required(hostIdentifier?.value);
  place.at("endpoint").refuseRest(wire.Endpoint, others, { hostname: "endpoints are reached by address" });
  const weight = loadBalancingWeight ?? 1;
  if (weight === 0) throw place.at("load_balancing_weight").invalid("must be at least 1");
  const mesh = meshMetadataFromWire(metadata);
  return {
    ...addressFromWire(place.at("endpoint.address"), where?.address, metadata?.filterMetadata.get(originalDestination)),
    workload: mesh["uid"] === undefined ? "" : textOf(place, mesh, "uid"),
    health: healthFromWire(place.at("health_status"), healthStatus),
    weight,
  };
}

function addressFromWire(
  place: Place,
  where: address.Address["address"],
  original: Readonly<Record<string, unknown>> | undefined,
): Pick<Endpoint, "address" | "tunnel"> {
  switch (where?.$case) {
    case "socketAddress":
      if (original !== undefined) throw place.at("metadata").invalid(`${originalDestination} belongs to a tunnel`);
      return { address: socketAddressFromWire(place.at("socket_address"), where.value), tunnel: "none" };
    case "envoyInternalAddress":
      return { address: tunnelTarget(place.at("envoy_internal_address"), where.value, original), tunnel: "hbone" };
    default:
      throw place.refuse("address", where);
  }
}

/** The destination stands twice, and both must agree; a second waypoint on the way is not supported. */
function tunnelTarget(place: Place, message: address.EnvoyInternalAddress, original: Readonly<Record<string, unknown>> | undefined): Endpoint["address"] {
  const { addressNameSpecifier, endpointId, ...rest } = message;
  place.refuseRest(address.EnvoyInternalAddress, rest);
  if (addressNameSpecifier?.value !== tunnelListener) throw place.at("server_listener_name").invalid(`must be ${tunnelListener}`);
  const target = tryParseSocketAddress(endpointId);
  if (target === undefined) throw place.at("endpoint_id").invalid(`${JSON.stringify(endpointId)} is not an address and a port`);
  const { local, ...others } = original ?? { local: endpointId };
  if (local !== endpointId) throw place.at("metadata.local").invalid("differs from endpoint_id");
  const [other] = Object.keys(others);
  if (other !== undefined) throw place.at(`metadata.${other}`).unsupported();
  return target;
}

export function healthToWire(health: Endpoint["health"]): HealthStatus {
  switch (health) {
    case "healthy":
      return HealthStatus.HEALTHY;
    case "unhealthy":
      return HealthStatus.UNHEALTHY;
    case "draining":
      return HealthStatus.DRAINING;
  }
}

function healthFromWire(place: Place, status: HealthStatus): Endpoint["health"] {
  switch (status) {
    case HealthStatus.UNKNOWN:
    case HealthStatus.HEALTHY:
      return "healthy";
    case HealthStatus.UNHEALTHY:
    case HealthStatus.TIMEOUT:
      return "unhealthy";
    case HealthStatus.DRAINING:
      return "draining";
    default:
      throw place.unknownEnum(status);
  }
}
