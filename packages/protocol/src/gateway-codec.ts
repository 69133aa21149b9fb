/** The parts that workloads and services have in common: network addresses, gateway addresses and port mappings. */
import {
  type AppProtocol,
  type Cidr,
  type GatewayAddress,
  type IpAddress,
  ipFromBytes,
  ipToBytes,
  type NetworkAddress,
  type NetworkId,
  networkId,
  type PortMapping,
} from "@fairway/model";
import type * as wire from "./gen/istio/workload/workload.ts";
import { ProtocolDecodeError } from "./protocol-error.ts";
import { readField, readPort, requireField } from "./wire.ts";

const appProtocols: readonly AppProtocol[] = ["unknown", "http11", "http2", "grpc", "tcp", "tls"];

/** A virtual address: one host, or a range. */
export type WireAddress =
  | { readonly kind: "host"; readonly address: NetworkAddress }
  | { readonly kind: "range"; readonly network: NetworkId; readonly range: Cidr };

/** Without a length, or with the full one, it is a host (ztunnel contract 4.1, NetworkAddress). */
export function decodeNetworkAddress(field: string, message: wire.NetworkAddress): WireAddress {
  const network = networkId(message.network);
  if (message.length === undefined) return { kind: "host", address: { network, ip: decodeIp(field, message.address) } };
  const range = decodeCidr(field, message.address, message.length);
  const longest = range.ip.includes(":") ? 128 : 32;
  return range.length === longest ? { kind: "host", address: { network, ip: range.ip } } : { kind: "range", network, range };
}

export function encodeNetworkAddress({ network, ip }: NetworkAddress): wire.NetworkAddress {
  return { network, address: ipToBytes(ip), length: undefined };
}

export function decodeIp(field: string, bytes: Uint8Array): IpAddress {
  return readField(field, () => ipFromBytes(bytes));
}

/** An IPv4 range may arrive in its IPv4-mapped form; the model knows only the plain one, whose prefix is 96 bits shorter. */
export function decodeCidr(field: string, bytes: Uint8Array, wireLength: number): Cidr {
  const ip = decodeIp(field, bytes);
  const isIpv4 = !ip.includes(":");
  const length = isIpv4 && bytes.length === 16 ? wireLength - 96 : wireLength;
  if (length < 0 || length > (isIpv4 ? 32 : 128)) {
    throw new ProtocolDecodeError("PROTOCOL_INVALID_FIELD", `${field}: /${wireLength} is not a prefix length of ${ip}`);
  }
  return { ip, length };
}

/** A port of 0 is kept: the resource stays known, and whoever must dial the gateway is refused (nothing is reachable at port 0). */
export function decodeGatewayAddress(field: string, message: wire.GatewayAddress): GatewayAddress {
  const destination = requireField(`${field}.destination`, message.destination);
  const hbonePort = readPort(`${field}.hbone_mtls_port`, message.hboneMtlsPort);
  if (destination.$case === "hostname") {
    return { destination: { kind: "hostname", namespace: destination.value.namespace, hostname: destination.value.hostname }, hbonePort };
  }
  const { network, address } = destination.value;
  return { destination: { kind: "address", network: networkId(network), ip: decodeIp(`${field}.address`, address) }, hbonePort };
}

export function encodeGatewayAddress({ destination, hbonePort }: GatewayAddress): wire.GatewayAddress {
  if (destination.kind === "hostname") {
    const { namespace, hostname } = destination;
    return { destination: { $case: "hostname", value: { namespace, hostname } }, hboneMtlsPort: hbonePort };
  }
  return { destination: { $case: "address", value: encodeNetworkAddress(destination) }, hboneMtlsPort: hbonePort };
}

/** The application protocol only hints; one that we do not know is "unknown", which is what zero means. */
export function decodePort(field: string, message: wire.Port): PortMapping {
  return {
    servicePort: readPort(`${field}.service_port`, message.servicePort),
    targetPort: readPort(`${field}.target_port`, message.targetPort),
    appProtocol: appProtocols[message.appProtocol] ?? "unknown",
  };
}

export function encodePort({ servicePort, targetPort, appProtocol }: PortMapping): wire.Port {
  return { servicePort, targetPort, appProtocol: appProtocols.indexOf(appProtocol) as wire.AppProtocol };
}
