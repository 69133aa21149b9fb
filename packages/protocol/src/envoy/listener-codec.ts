/**
 * envoy.config.listener.v3.Listener to and from a target of a waypoint: its addresses, and a filter chain for each port; two for a port
 * whose protocol is told by the first bytes (waypoint contract 2.3, 2.4).
 */
import { type IpAddress, isPort, type ServedPort, type ServedTarget } from "@fairway/model";
import type { Address } from "../gen/resources/envoy/config/core/v3/address.ts";
import * as wire from "../gen/resources/envoy/config/listener/v3/listener.ts";
import { Filter, FilterChain, FilterChainMatch, ListenerFilter } from "../gen/resources/envoy/config/listener/v3/listener_components.ts";
import { readMessage } from "../wire.ts";
import { httpFiltersFromWire, httpFiltersToWire, isHttp, type TcpFilters, tcpFiltersFromWire, tcpFiltersToWire } from "./filter-codec.ts";
import { type Harmless, Place } from "./place.ts";
import { meshMetadataFromWire, meshMetadataToWire, socketAddressFromWire, socketAddressToWire, textOf, typeUrlOf } from "./values.ts";

export const listenerTypeUrl: string = typeUrlOf(wire.Listener);

/** What Envoy's inspector says of bytes that are HTTP. */
const httpProtocols: readonly string[] = ["http/1.1", "h2c"];
const inspectors: readonly string[] = [
  "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
  "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
  "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
];
const [, httpInspector = ""] = inspectors;

const harmlessInListener: Harmless<wire.Listener> = {
  statPrefix: "names a metric",
  trafficDirection: "names a metric",
  enableReusePort: "nothing is bound",
};

export function encodeTarget(target: ServedTarget): Uint8Array {
  const ports = target.anyPort === undefined ? target.ports : [...target.ports, target.anyPort];
  const [address, ...additional] = target.addresses.map((ip) => socketAddressToWire({ ip, port: 0 }));
  const message = wire.Listener.fromPartial({
    name: target.name,
    address,
    additionalAddresses: additional.map((each) => ({ address: each })),
    bindToPort: false,
    metadata: meshMetadataToWire(originToWire(target)),
    listenerFilters: ports.some(({ protocol }) => protocol === "detect") ? [inspector] : [],
    filterChains: ports.flatMap(chainsToWire),
  });
  return wire.Listener.encode(message).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeTarget(bytes: Uint8Array): ServedTarget {
  const { name, address, additionalAddresses, bindToPort, metadata, listenerFilters, filterChains, ...rest } = readMessage(
    wire.Listener,
    wire.Listener.$type,
    bytes,
  );
  const place = new Place(`listener ${JSON.stringify(name)}`);
  place.at("name").required(name);
  place.refuseRest(wire.Listener, rest, harmlessInListener);
  if (bindToPort !== false) throw place.at("bind_to_port").invalid("must be false");
  for (const each of listenerFilters) checkListenerFilter(place.at(`listener_filters.${JSON.stringify(each.name)}`), each);
  const ports = portsFromWire(place, filterChains);
  return {
    name,
    ...originFromWire(place, meshMetadataFromWire(metadata)),
    addresses: [
      ...(address === undefined ? [] : [ipFromWire(place.at("address"), address)]),
      ...additionalAddresses.map((each) => additionalFromWire(place, each)),
    ],
    ports: ports.filter(({ port }) => port !== 0),
    anyPort: ports.find(({ port }) => port === 0),
  };
}

type Origin = Pick<ServedTarget, "kind" | "namespace" | "hostname">;

function originToWire({ kind, namespace, hostname }: Origin): Readonly<Record<string, unknown>> {
  if (kind === "workload") return { workloads: [{ name: hostname, namespace }] };
  return { services: [{ host: hostname, name: hostname.split(".")[0], namespace }] };
}

function originFromWire(place: Place, { services, workloads }: Readonly<Record<string, unknown>>): Origin {
  const [service] = Array.isArray(services) ? services : [];
  const [workload] = Array.isArray(workloads) ? workloads : [];
  if (isRecord(service)) return { kind: "service", namespace: textOf(place, service, "namespace"), hostname: textOf(place, service, "host") };
  if (isRecord(workload)) return { kind: "workload", namespace: textOf(place, workload, "namespace"), hostname: textOf(place, workload, "name") };
  throw place.at("metadata.istio.services").missing();
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function additionalFromWire(place: Place, { address, ...rest }: wire.AdditionalAddress): IpAddress {
  const at = place.at("additional_addresses");
  at.refuseRest(wire.AdditionalAddress, rest);
  return ipFromWire(at, at.at("address").required(address));
}

function ipFromWire(place: Place, { address }: Address): IpAddress {
  if (address?.$case !== "socketAddress") throw place.refuse("address", address);
  return socketAddressFromWire(place.at("socket_address"), address.value, true).ip;
}

const inspector: ListenerFilter = ListenerFilter.fromPartial({
  name: "envoy.filters.listener.http_inspector",
  configType: { $case: "typedConfig", value: { typeUrl: httpInspector, value: new Uint8Array() } },
});

/** What these find out is known without them. */
function checkListenerFilter(place: Place, { name: _, configType, ...rest }: ListenerFilter): void {
  place.refuseRest(ListenerFilter, rest, { filterDisabled: "whatever the filter would find out is known without it" });
  if (configType?.$case !== "typedConfig") throw place.refuse("config_type", configType);
  if (!inspectors.includes(configType.value.typeUrl)) throw place.unsupported();
}

function chainsToWire({ port, protocol, routes = "", tcpBackends, policies, tokens }: ServedPort): FilterChain[] {
  const chain = (kind: string, filters: FilterChain["filters"], applicationProtocols: readonly string[]) =>
    FilterChain.fromPartial({
      name: `${port}|${kind}`,
      filterChainMatch: { destinationPort: port === 0 ? undefined : port, applicationProtocols },
      filters,
    });
  const http = () => httpFiltersToWire(`${port}|http`, { routes, policies, tokens });
  const tcp = () => tcpFiltersToWire(`${port}|tcp`, { backends: tcpBackends, policies });
  switch (protocol) {
    case "http":
      return [chain("http", http(), [])];
    case "tcp":
      return [chain("tcp", tcp(), [])];
    case "detect":
      return [chain("http", http(), httpProtocols), chain("tcp", tcp(), [])];
  }
}

interface ChainsOfPort {
  readonly port: number;
  /** For bytes that were found to be HTTP. */
  detected: FilterChain | undefined;
  others: FilterChain | undefined;
}

function portsFromWire(place: Place, chains: readonly FilterChain[]): ServedPort[] {
  const ports = new Map<number, ChainsOfPort>();
  for (const chain of chains) {
    const at = placeOf(place, chain);
    const { destinationPort = 0, applicationProtocols, ...rest } = chain.filterChainMatch ?? FilterChainMatch.fromPartial({});
    at.at("filter_chain_match").refuseRest(FilterChainMatch, rest);
    if (chain.filterChainMatch?.destinationPort !== undefined && !isPort(destinationPort)) {
      throw at.at("filter_chain_match.destination_port").invalid(`${destinationPort} is not a port`);
    }
    const found = ports.get(destinationPort) ?? { port: destinationPort, detected: undefined, others: undefined };
    const kind = isDetection(at, applicationProtocols) ? "detected" : "others";
    if (found[kind] !== undefined) throw at.invalid("a second filter chain for the same match");
    found[kind] = chain;
    ports.set(destinationPort, found);
  }
  return [...ports.values()].map((each) => portFromWire(place, each));
}

function placeOf(place: Place, { name }: FilterChain): Place {
  return place.at(`filter_chains[${JSON.stringify(name)}]`);
}

function isDetection(place: Place, protocols: readonly string[]): boolean {
  if (protocols.length === 0) return false;
  const known = protocols.filter((protocol) => protocol !== "http/1.0");
  if (known.length !== httpProtocols.length || !httpProtocols.every((protocol) => known.includes(protocol))) {
    throw place.at("filter_chain_match.application_protocols").invalid(`only ${httpProtocols.join(" with ")} is supported`);
  }
  return true;
}

function portFromWire(place: Place, { port, detected, others }: ChainsOfPort): ServedPort {
  for (const chain of [detected, others]) if (chain !== undefined) checkChain(placeOf(place, chain), chain);
  if (others === undefined) throw place.at(`filter_chains[port ${port}]`).invalid("nothing is said about bytes that are not HTTP");
  const at = placeOf(place, others);
  if (detected === undefined) {
    if (isHttp(others.filters)) return { port, protocol: "http", tcpBackends: [], ...httpFiltersFromWire(at, others.filters) };
    const { backends, policies } = tcpFiltersFromWire(at, others.filters);
    return { port, protocol: "tcp", routes: undefined, tcpBackends: backends, policies, tokens: [] };
  }
  const http = httpFiltersFromWire(placeOf(place, detected), detected.filters);
  const tcp = tcpFiltersFromWire(at, others.filters);
  if (!isSamePolicy(tcp, http.policies)) throw at.invalid("its policies are not those of the HTTP chain");
  return { port, protocol: "detect", tcpBackends: tcp.backends, ...http };
}

function checkChain(place: Place, { filterChainMatch: _match, filters: _filters, name: _name, ...rest }: FilterChain): void {
  place.refuseRest(FilterChain, rest, { metadata: "names the objects of the origin" });
}

/** The model says the policies of a port once; on the wire each of its two chains has them in its own terms. */
function isSamePolicy(tcp: TcpFilters, policies: ServedPort["policies"]): boolean {
  const [given, expected] = [tcp.policies, policies].map((each) =>
    tcpFiltersToWire("", { backends: [], policies: each }).map((filter) => Filter.encode(filter).finish()),
  );
  return Buffer.concat(given ?? []).equals(Buffer.concat(expected ?? []));
}
