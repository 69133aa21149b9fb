/** istio.workload.Service to and from the model, with the defaults and refusals of ztunnel contract 3.4 and 4.1. */
import { ipToBytes, type LoadBalancing, type LocalityScope, type Service, type SpiffeId, tryParseSpiffeId } from "@fairway/model";
import { decodeGatewayAddress, decodeNetworkAddress, decodePort, encodeGatewayAddress, encodeNetworkAddress, encodePort } from "./gateway-codec.ts";
import type * as wire from "./gen/istio/workload/workload.ts";
import { readEnum, requireField } from "./wire.ts";

const ipFamilies = ["automatic", "ipv4", "ipv6", "dual"] as const;
const visibilities: readonly Service["visibility"][] = ["public", "namespace"];
const scopes: readonly LocalityScope[] = ["region", "zone", "subzone", "node", "cluster", "network"];
const modes = ["unspecified", "strict", "failover", "passthrough"] as const;
const healthPolicies = ["only-healthy", "allow-all"] as const;
const noLoadBalancing: LoadBalancing = { routingPreference: [], mode: "unspecified", healthPolicy: "only-healthy" };

/** Throws ProtocolDecodeError. An unknown visibility is public; identities that do not parse are left out, so they can never be expected. */
export function serviceFromWire(message: wire.Service): Service {
  const addresses = message.addresses.map((address) => decodeNetworkAddress("addresses", address));
  return {
    name: message.name,
    namespace: message.namespace,
    hostname: requireField("hostname", message.hostname),
    vips: addresses.flatMap((address) => (address.kind === "host" ? [address.address] : [])),
    cidrVips: addresses.flatMap((address) => (address.kind === "range" ? [{ network: address.network, range: address.range }] : [])),
    ports: message.ports.map((port) => decodePort("ports", port)),
    subjectAltNames: message.subjectAltNames.filter((name) => tryParseSpiffeId(name) !== undefined).map((name) => name as SpiffeId),
    waypoint: message.waypoint && decodeGatewayAddress("waypoint", message.waypoint),
    weightedWaypoints: message.weightedWaypoints.map(({ destination, weight }) => ({
      destination: decodeGatewayAddress("weighted_waypoints", requireField("weighted_waypoints.destination", destination)),
      weight,
    })),
    loadBalancing: message.loadBalancing === undefined ? noLoadBalancing : decodeLoadBalancing(message.loadBalancing),
    ipFamilies: readEnum("ip_families", ipFamilies, message.ipFamilies),
    canonical: message.canonical,
    ingressUseWaypoint: message.ingressUseWaypoint,
    visibility: visibilities[message.visibility] ?? "public",
  };
}

export function serviceToWire(service: Service): wire.Service {
  const hosts = service.vips.map(encodeNetworkAddress);
  const ranges = service.cidrVips.map(({ network, range }) => ({ network, address: ipToBytes(range.ip), length: range.length }));
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: [...hosts, ...ranges],
    ports: service.ports.map(encodePort),
    subjectAltNames: service.subjectAltNames,
    waypoint: service.waypoint && encodeGatewayAddress(service.waypoint),
    weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) => ({ destination: encodeGatewayAddress(destination), weight })),
    loadBalancing: encodeLoadBalancing(service.loadBalancing),
    ipFamilies: ipFamilies.indexOf(service.ipFamilies) as wire.IPFamilies,
    extensions: [],
    canonical: service.canonical,
    ingressUseWaypoint: service.ingressUseWaypoint,
    visibility: visibilities.indexOf(service.visibility) as wire.Service_Visibility,
  };
}

/** UNSPECIFIED_SCOPE is refused: it is position 0 on the wire, before the first word. */
function decodeLoadBalancing({ routingPreference, mode, healthPolicy }: wire.LoadBalancing): LoadBalancing {
  return {
    routingPreference: routingPreference.map((scope) => readEnum("load_balancing.routing_preference", scopes, scope - 1)),
    mode: readEnum("load_balancing.mode", modes, mode),
    healthPolicy: readEnum("load_balancing.health_policy", healthPolicies, healthPolicy),
  };
}

function encodeLoadBalancing({ routingPreference, mode, healthPolicy }: LoadBalancing): wire.LoadBalancing | undefined {
  if (routingPreference.length === 0 && mode === "unspecified" && healthPolicy === "only-healthy") return undefined;
  return {
    routingPreference: routingPreference.map((scope) => (scopes.indexOf(scope) + 1) as wire.LoadBalancing_Scope),
    mode: modes.indexOf(mode) as wire.LoadBalancing_Mode,
    healthPolicy: healthPolicies.indexOf(healthPolicy) as wire.LoadBalancing_HealthPolicy,
  };
}
