/** istio.workload.Workload to and from the model, with the defaults and refusals of ztunnel contract 3.4 and 4.1. */
import {
  type ApplicationTunnel,
  defaultTrustDomain,
  ipToBytes,
  type Locality,
  networkId,
  type PolicyKey,
  type PortMapping,
  type ServiceKey,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { decodeGatewayAddress, decodeIp, decodePort, encodeGatewayAddress, encodePort } from "./gateway-codec.ts";
import type * as wire from "./gen/istio/workload/workload.ts";
import { Pool } from "./pool.ts";
import { ProtocolDecodeError } from "./protocol-error.ts";
import { readEnum, readPort, requireField } from "./wire.ts";

const tunnelProtocols = ["none", "hbone"] as const;
const workloadTypes = ["deployment", "cronjob", "pod", "job"] as const;
const statuses = ["healthy", "unhealthy"] as const;
const networkModes = ["standard", "host-network"] as const;
const applicationProtocols = ["none", "proxy"] as const;

const defaultServiceAccount = "default";
const defaultClusterId = "Kubernetes";
const defaultCapacity = 1;

/** Distinct names, port mappings and the like that are shared between workloads; a mesh of 5,000 services fits. */
const poolLimit = 16_384;
const names = new Pool<string>(poolLimit);
const localities = new Pool<Locality>(poolLimit);
const serviceMaps = new Pool<Workload["services"]>(poolLimit);
const policyLists = new Pool<Workload["authorizationPolicies"]>(poolLimit);
const itself = (name: string): string => name;

/** `name`: what it was sent under. Throws ProtocolDecodeError; the message starts with the field. LEGACY_ISTIO_MTLS is refused like any unknown tunnel protocol. */
export function workloadFromWire(message: wire.Workload, name?: string): Workload {
  const uid = requireField("uid", message.uid);
  return {
    uid: (uid === name ? name : uid) as WorkloadUid,
    name: message.name,
    namespace: names.share(message.namespace, itself),
    addresses: message.addresses.map((bytes) => decodeIp("addresses", bytes)),
    hostname: names.share(message.hostname, itself),
    network: networkId(names.share(message.network, itself)),
    networkMode: readEnum("network_mode", networkModes, message.networkMode),
    networkGateway: message.networkGateway && decodeGatewayAddress("network_gateway", message.networkGateway),
    tunnelProtocol: readEnum("tunnel_protocol", tunnelProtocols, message.tunnelProtocol),
    nativeTunnel: message.nativeTunnel,
    applicationTunnel: message.applicationTunnel && decodeApplicationTunnel(message.applicationTunnel),
    trustDomain: names.share(message.trustDomain || defaultTrustDomain, itself),
    serviceAccount: names.share(message.serviceAccount || defaultServiceAccount, itself),
    waypoint: message.waypoint && decodeGatewayAddress("waypoint", message.waypoint),
    node: names.share(message.node, itself),
    workloadName: names.share(message.workloadName, itself),
    workloadType: readEnum("workload_type", workloadTypes, message.workloadType),
    canonicalName: names.share(message.canonicalName, itself),
    canonicalRevision: names.share(message.canonicalRevision, itself),
    clusterId: names.share(message.clusterId || defaultClusterId, itself),
    locality: message.locality && decodeLocality(message.locality),
    status: readEnum("status", statuses, message.status),
    services: decodeServices(message.services),
    authorizationPolicies: policyLists.share(JSON.stringify(message.authorizationPolicies), () => message.authorizationPolicies.map((key) => key as PolicyKey)),
    capacity: message.capacity ?? defaultCapacity,
  };
}

/** The reverse. Defaults that every reader knows are left out, as the reference control plane does. */
export function workloadToWire(workload: Workload): wire.Workload {
  const { applicationTunnel, locality, networkGateway, waypoint } = workload;
  return {
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.addresses.map(ipToBytes),
    hostname: workload.hostname,
    network: workload.network,
    networkMode: networkModes.indexOf(workload.networkMode) as wire.NetworkMode,
    networkGateway: networkGateway && encodeGatewayAddress(networkGateway),
    tunnelProtocol: tunnelProtocols.indexOf(workload.tunnelProtocol) as wire.TunnelProtocol,
    nativeTunnel: workload.nativeTunnel,
    applicationTunnel: applicationTunnel && {
      protocol: applicationProtocols.indexOf(applicationTunnel.protocol) as wire.ApplicationTunnel_Protocol,
      port: applicationTunnel.port ?? 0,
    },
    trustDomain: workload.trustDomain === defaultTrustDomain ? "" : workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: waypoint && encodeGatewayAddress(waypoint),
    node: workload.node,
    workloadName: workload.workloadName,
    workloadType: workloadTypes.indexOf(workload.workloadType) as wire.WorkloadType,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    clusterId: workload.clusterId,
    locality: locality && { region: locality.region, zone: locality.zone, subzone: locality.subzone },
    status: statuses.indexOf(workload.status) as wire.WorkloadStatus,
    services: encodeServices(workload.services),
    authorizationPolicies: workload.authorizationPolicies,
    extensions: [],
    capacity: workload.capacity === defaultCapacity ? undefined : workload.capacity,
  };
}

function decodeApplicationTunnel({ protocol, port }: wire.ApplicationTunnel): ApplicationTunnel {
  return {
    protocol: readEnum("application_tunnel.protocol", applicationProtocols, protocol),
    port: port === 0 ? undefined : readPort("application_tunnel.port", port),
  };
}

function decodeLocality({ region, zone, subzone }: wire.Locality): Locality {
  return localities.share(JSON.stringify([region, zone, subzone]), () => ({ region, zone, subzone }));
}

/** Pods of one deployment have equal maps, and share one. */
function decodeServices(message: ReadonlyMap<string, wire.PortList>): Workload["services"] {
  const services = new Map<ServiceKey, readonly PortMapping[]>();
  for (const [key, { ports }] of message) {
    if (!/^[^/]+\/[^/]+$/.test(key)) {
      throw new ProtocolDecodeError("PROTOCOL_INVALID_FIELD", `services: ${JSON.stringify(key)} is not <namespace>/<hostname>`);
    }
    const mappings = ports.map((port) => decodePort("services", port));
    services.set(key as ServiceKey, mappings);
  }
  return serviceMaps.share(describeServices(services), () => services);
}

/** Different maps have different descriptions, whatever a control plane calls a service. Short, because the pool keeps them. */
function describeServices(services: Workload["services"]): string {
  const parts: (string | number)[] = [];
  for (const [key, ports] of services) {
    parts.push(key.length, key, ports.length);
    for (const { servicePort, targetPort, appProtocol } of ports) parts.push(servicePort, targetPort, appProtocol);
  }
  return parts.join(" ");
}

/** Sorted, so that equal workloads have equal bytes: the version of a resource is a hash of them (controller contract 2.2). */
function encodeServices(services: Workload["services"]): Map<string, wire.PortList> {
  const sorted = [...services].sort(([a], [b]) => (a < b ? -1 : 1));
  return new Map(sorted.map(([key, ports]) => [key, { ports: ports.map(encodePort) }]));
}
