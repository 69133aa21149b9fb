/** Arbitrary model values that the wire can carry, and wire bytes written by hand, for the tests of this package. */
import {
  type AuthorizationPolicy,
  type Cidr,
  type GatewayAddress,
  type IpAddress,
  ipFromBytes,
  type NetworkAddress,
  networkId,
  type PolicyMatch,
  type PortMapping,
  policyKey,
  type Service,
  type ServiceKey,
  type StringMatch,
  serviceKey,
  spiffeId,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import fc from "fast-check";

const text: fc.Arbitrary<string> = fc.string({ unit: "grapheme", maxLength: 12 });
const label: fc.Arbitrary<string> = fc.stringMatching(/^[a-z][a-z0-9-]{0,11}$/);
const port: fc.Arbitrary<number> = fc.nat(65_535);
const ip: fc.Arbitrary<IpAddress> = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })).map(ipFromBytes);
const cidr: fc.Arbitrary<Cidr> = fc.tuple(ip, fc.nat(128)).map(([address, bits]) => ({ ip: address, length: address.includes(":") ? bits : bits % 33 }));
const networkAddress: fc.Arbitrary<NetworkAddress> = fc.record({ network: text.map(networkId), ip });
const portMapping: fc.Arbitrary<PortMapping> = fc.record({
  servicePort: port,
  targetPort: port,
  appProtocol: fc.constantFrom("unknown", "http11", "http2", "grpc", "tcp", "tls"),
});
const gateway: fc.Arbitrary<GatewayAddress> = fc.record({
  destination: fc.oneof(
    fc.record({ kind: fc.constant("hostname" as const), namespace: text, hostname: text }),
    networkAddress.map((address) => ({ kind: "address" as const, ...address })),
  ),
  hbonePort: port,
});

function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined });
}

export const anyWorkload: fc.Arbitrary<Workload> = fc.record<Workload>({
  uid: fc.string({ minLength: 1, maxLength: 40 }).map((uid) => uid as WorkloadUid),
  name: text,
  namespace: text,
  addresses: fc.array(ip, { maxLength: 3 }),
  hostname: text,
  network: text.map(networkId),
  networkMode: fc.constantFrom("standard", "host-network"),
  networkGateway: maybe(gateway),
  tunnelProtocol: fc.constantFrom("none", "hbone"),
  nativeTunnel: fc.boolean(),
  applicationTunnel: maybe(fc.record({ protocol: fc.constantFrom("none", "proxy"), port: maybe(fc.integer({ min: 1, max: 65_535 })) })),
  trustDomain: fc.constantFrom("cluster.local", "other.example"),
  serviceAccount: label,
  waypoint: maybe(gateway),
  node: text,
  workloadName: text,
  workloadType: fc.constantFrom("deployment", "cronjob", "pod", "job"),
  canonicalName: text,
  canonicalRevision: text,
  clusterId: label,
  locality: maybe(fc.record({ region: text, zone: text, subzone: text })),
  status: fc.constantFrom("healthy", "unhealthy"),
  services: fc
    .uniqueArray(fc.tuple(fc.tuple(label, label), fc.array(portMapping, { maxLength: 3 })), { maxLength: 3, selector: ([key]) => key.join("/") })
    .map(
      (entries) =>
        new Map(
          entries
            .map(([[namespace, hostname], ports]): [ServiceKey, PortMapping[]] => [serviceKey(namespace, hostname), ports])
            .sort(([a], [b]) => (a < b ? -1 : 1)),
        ),
    ),
  authorizationPolicies: fc.array(
    fc.tuple(label, label).map(([namespace, name]) => policyKey(namespace, name)),
    { maxLength: 3 },
  ),
  capacity: fc.nat(0xffffffff),
});

export const anyService: fc.Arbitrary<Service> = fc.record<Service>({
  name: text,
  namespace: text,
  hostname: label,
  vips: fc.array(networkAddress, { maxLength: 3 }),
  cidrVips: fc.array(fc.record({ network: text.map(networkId), range: cidr.filter(({ ip, length }) => length < (ip.includes(":") ? 128 : 32)) }), {
    maxLength: 2,
  }),
  ports: fc.array(portMapping, { maxLength: 3 }),
  subjectAltNames: fc.array(fc.record({ trustDomain: label, namespace: label, serviceAccount: label }).map(spiffeId), { maxLength: 2 }),
  waypoint: maybe(gateway),
  weightedWaypoints: fc.array(fc.record({ destination: gateway, weight: fc.nat(0xffffffff) }), { maxLength: 2 }),
  loadBalancing: fc.record({
    routingPreference: fc.array(fc.constantFrom("region", "zone", "subzone", "node", "cluster", "network"), { maxLength: 6 }),
    mode: fc.constantFrom("unspecified", "strict", "failover", "passthrough"),
    healthPolicy: fc.constantFrom("only-healthy", "allow-all"),
  }),
  ipFamilies: fc.constantFrom("automatic", "ipv4", "ipv6", "dual"),
  canonical: fc.boolean(),
  ingressUseWaypoint: fc.boolean(),
  visibility: fc.constantFrom("public", "namespace"),
});

const stringMatches: fc.Arbitrary<StringMatch[]> = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constantFrom("exact" as const, "prefix" as const, "suffix" as const), value: text }),
    fc.constant({ kind: "presence" as const }),
  ),
  { maxLength: 2 },
);
const cidrs = fc.array(cidr, { maxLength: 2 });
const ports = fc.array(port, { maxLength: 2 });
const serviceAccounts = fc.array(fc.record({ namespace: text, serviceAccount: text }), { maxLength: 2 });
const anyMatch: fc.Arbitrary<PolicyMatch> = fc.record({
  namespaces: stringMatches,
  notNamespaces: stringMatches,
  principals: stringMatches,
  notPrincipals: stringMatches,
  sourceIps: cidrs,
  notSourceIps: cidrs,
  destinationIps: cidrs,
  notDestinationIps: cidrs,
  destinationPorts: ports,
  notDestinationPorts: ports,
  serviceAccounts,
  notServiceAccounts: serviceAccounts,
});

export const anyPolicy: fc.Arbitrary<AuthorizationPolicy> = fc.record<AuthorizationPolicy>({
  name: label,
  namespace: text,
  scope: fc.constantFrom("global", "namespace", "workload-selector"),
  action: fc.constantFrom("allow", "deny"),
  rules: fc.array(fc.record({ clauses: fc.array(fc.record({ matches: fc.array(anyMatch, { maxLength: 2 }) }), { maxLength: 2 }) }), { maxLength: 2 }),
  dryRun: fc.boolean(),
});

/** A varint field. */
export function int(field: number, value: number): number[] {
  return [...varint(field << 3), ...varint(value)];
}

/** A length-delimited field: text, bytes, or a nested message. */
export function len(field: number, content: string | readonly number[]): number[] {
  const bytes = typeof content === "string" ? [...new TextEncoder().encode(content)] : content;
  return [...varint((field << 3) | 2), ...varint(bytes.length), ...bytes];
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return [...bytes, rest];
}

/** The top-level field numbers of a message, in order, each once. */
export function fieldNumbers(bytes: Uint8Array): number[] {
  return [...new Set(fieldsOf(bytes).map(({ field }) => field))].sort((a, b) => a - b);
}

/** The content of the first length-delimited field of that number. */
export function fieldContent(bytes: Uint8Array, field: number): Uint8Array {
  return fieldsOf(bytes).find((each) => each.field === field)?.content ?? new Uint8Array();
}

function fieldsOf(bytes: Uint8Array): { field: number; content: Uint8Array }[] {
  const fields: { field: number; content: Uint8Array }[] = [];
  let position = 0;
  const readVarint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[position++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (position < bytes.length) {
    const tag = readVarint();
    if ((tag & 7) === 0) {
      readVarint();
      fields.push({ field: tag >>> 3, content: new Uint8Array() });
    } else if ((tag & 7) === 2) {
      const length = readVarint();
      fields.push({ field: tag >>> 3, content: bytes.subarray(position, position + length) });
      position += length;
    } else throw new Error(`wire type ${tag & 7} is not used here`);
  }
  return fields;
}
