import { defaultNetwork, parseCidr, parseIp, type Service, type Workload } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { addressTypeUrl, decodeAddress, encodeService, encodeWorkload, serviceAliases, workloadAliases, workloadTypeUrl } from "./address-codec.ts";
import { ProtocolDecodeError, type ProtocolDecodeErrorCode } from "./protocol-error.ts";
import { anyService, anyWorkload, fieldContent, fieldNumbers, int, len } from "./sample-resources.ts";

const ip4 = [10, 0, 0, 1];
const ip6 = [0xfd, ...new Array<number>(14).fill(0), 1];
const mapped = [...new Array<number>(10).fill(0), 0xff, 0xff, 10, 0, 0, 1];

function workload(...fields: number[][]): Workload {
  const address = decodeAddress(Uint8Array.from(len(1, [len(20, "uid"), ...fields].flat())));
  if (address.kind !== "workload") throw new Error("not a workload");
  return address.workload;
}

function service(...fields: number[][]): Service {
  const address = decodeAddress(Uint8Array.from(len(2, [len(3, "web.default"), ...fields].flat())));
  if (address.kind !== "service") throw new Error("not a service");
  return address.service;
}

test("the type URLs are those of the protocol", (t) => {
  t.is(addressTypeUrl, "type.googleapis.com/istio.workload.Address");
  t.is(workloadTypeUrl, "type.googleapis.com/istio.workload.Workload");
});

test("workloads and services survive the wire", (t) => {
  fc.assert(fc.property(anyWorkload, (value) => void t.deepEqual(decodeAddress(encodeWorkload(value)), { kind: "workload", workload: value })));
  fc.assert(fc.property(anyService, (value) => void t.deepEqual(decodeAddress(encodeService(value)), { kind: "service", service: value })));
});

test("equal workloads have equal bytes, whatever the order of their services", (t) => {
  const one = workload(len(22, [...len(1, "a/b"), ...len(2, [])]), len(22, [...len(1, "a/c"), ...len(2, [])]));
  const other = { ...one, services: new Map([...one.services].reverse()) };
  t.deepEqual(encodeWorkload(other), encodeWorkload(one));
});

test("a workload written by hand from the field table is read field by field", (t) => {
  const read = workload(
    len(1, "pod-1"),
    len(2, "shop"),
    len(3, ip4),
    len(3, ip6),
    len(4, "net"),
    int(5, 1),
    len(6, "td"),
    len(7, "sa"),
    len(8, [...len(1, [...len(1, "infra"), ...len(2, "wp.infra")]), ...int(3, 15_008)]),
    len(9, "node-1"),
    len(10, "pod"),
    len(11, "v2"),
    int(12, 2),
    len(13, "pod-owner"),
    int(14, 1),
    len(16, "shop/p1"),
    len(16, "shop/p2"),
    int(17, 1),
    len(18, "east"),
    len(19, [...len(2, [...len(1, "far"), ...len(2, ip4)]), ...int(3, 15_009)]),
    len(21, "pod.example.com"),
    len(22, [...len(1, "shop/web.shop"), ...len(2, len(1, [...int(1, 80), ...int(2, 8080), ...int(3, 2)]))]),
    len(23, [...int(1, 1), ...int(2, 15_088)]),
    len(24, [...len(1, "r"), ...len(2, "z"), ...len(3, "s")]),
    int(25, 1),
    len(26, len(1, "ignored")),
    len(27, int(1, 7)),
  );
  t.deepEqual(read, {
    uid: "uid" as Workload["uid"],
    name: "pod-1",
    namespace: "shop",
    addresses: [parseIp("10.0.0.1"), parseIp("fd00::1")],
    hostname: "pod.example.com",
    network: "net" as Workload["network"],
    networkMode: "host-network",
    networkGateway: { destination: { kind: "address", network: "far" as Workload["network"], ip: parseIp("10.0.0.1") }, hbonePort: 15_009 },
    tunnelProtocol: "hbone",
    nativeTunnel: true,
    applicationTunnel: { protocol: "proxy", port: 15_088 },
    trustDomain: "td",
    serviceAccount: "sa",
    waypoint: { destination: { kind: "hostname", namespace: "infra", hostname: "wp.infra" }, hbonePort: 15_008 },
    node: "node-1",
    workloadName: "pod-owner",
    workloadType: "pod",
    canonicalName: "pod",
    canonicalRevision: "v2",
    clusterId: "east",
    locality: { region: "r", zone: "z", subzone: "s" },
    status: "unhealthy",
    services: new Map([["shop/web.shop" as never, [{ servicePort: 80, targetPort: 8080, appProtocol: "http2" }]]]),
    authorizationPolicies: ["shop/p1", "shop/p2"] as never,
    capacity: 7,
  });
});

test("a service written by hand from the field table is read field by field", (t) => {
  const read = service(
    len(1, "web"),
    len(2, "shop"),
    len(4, len(2, ip4)),
    len(4, [...len(1, "net"), ...len(2, ip6), ...int(3, 128)]),
    len(4, [...len(2, ip4), ...int(3, 8)]),
    len(5, [...int(1, 80), ...int(2, 0)]),
    len(6, "spiffe://td/ns/shop/sa/web"),
    len(6, "not an identity"),
    len(7, len(2, len(2, ip4))),
    len(8, [...len(1, [1, 6]), ...int(2, 2), ...int(3, 1)]),
    int(9, 3),
    len(10, len(1, "ignored")),
    int(11, 1),
    int(12, 1),
    len(13, [...len(1, len(1, len(2, "wp"))), ...int(2, 90)]),
    int(14, 1),
  );
  t.deepEqual(read, {
    name: "web",
    namespace: "shop",
    hostname: "web.default",
    vips: [
      { network: defaultNetwork, ip: parseIp("10.0.0.1") },
      { network: "net" as never, ip: parseIp("fd00::1") },
    ],
    cidrVips: [{ network: defaultNetwork, range: { ip: parseIp("10.0.0.1"), length: 8 } }],
    ports: [{ servicePort: 80, targetPort: 0, appProtocol: "unknown" }],
    subjectAltNames: ["spiffe://td/ns/shop/sa/web"] as never,
    waypoint: { destination: { kind: "address", network: defaultNetwork, ip: parseIp("10.0.0.1") }, hbonePort: 0 },
    weightedWaypoints: [{ destination: { destination: { kind: "hostname", namespace: "", hostname: "wp" }, hbonePort: 0 }, weight: 90 }],
    loadBalancing: { routingPreference: ["region", "network"], mode: "failover", healthPolicy: "allow-all" },
    ipFamilies: "dual",
    canonical: true,
    ingressUseWaypoint: true,
    visibility: "namespace",
  });
});

test("what is not written has the default of the contract", (t) => {
  const bare = workload();
  t.deepEqual([bare.trustDomain, bare.serviceAccount, bare.clusterId, bare.capacity], ["cluster.local", "default", "Kubernetes", 1]);
  t.deepEqual([bare.tunnelProtocol, bare.networkMode, bare.status, bare.workloadType], ["none", "standard", "healthy", "deployment"]);
  t.is(workload(len(27, [])).capacity, 0);
  t.is(workload(len(23, int(1, 1))).applicationTunnel?.port, undefined);
  t.deepEqual(service().loadBalancing, { routingPreference: [], mode: "unspecified", healthPolicy: "only-healthy" });
  t.is(service(int(14, 9)).visibility, "public");
  t.is(workload(len(22, [...len(1, "a/b"), ...len(2, len(1, int(3, 99)))])).services.get("a/b" as never)?.[0]?.appProtocol, "unknown");
});

test("an IPv4 address in IPv6 clothes is IPv4, and its range is 96 bits shorter", (t) => {
  t.deepEqual(workload(len(3, mapped)).addresses, [parseIp("10.0.0.1")]);
  t.deepEqual(service(len(4, [...len(2, mapped), ...int(3, 104)])).cidrVips[0]?.range, parseCidr("10.0.0.1/8"));
  t.is(service(len(4, [...len(2, mapped), ...int(3, 128)])).vips[0]?.ip, parseIp("10.0.0.1"));
});

const refused: readonly [string, ProtocolDecodeErrorCode, () => unknown][] = [
  ["an address of five bytes", "PROTOCOL_INVALID_FIELD", () => workload(len(3, [1, 2, 3, 4, 5]))],
  ["an address of no bytes", "PROTOCOL_INVALID_FIELD", () => workload(len(3, []))],
  ["legacy mTLS", "PROTOCOL_UNKNOWN_ENUM", () => workload(int(5, 2))],
  ["an unknown workload type", "PROTOCOL_UNKNOWN_ENUM", () => workload(int(12, 4))],
  ["an unknown status", "PROTOCOL_UNKNOWN_ENUM", () => workload(int(17, 2))],
  ["an unknown network mode", "PROTOCOL_UNKNOWN_ENUM", () => workload(int(25, 2))],
  ["an unknown application tunnel", "PROTOCOL_UNKNOWN_ENUM", () => workload(len(23, int(1, 2)))],
  ["a waypoint without destination", "PROTOCOL_MISSING_FIELD", () => workload(len(8, int(3, 15_008)))],
  ["a gateway with half an address", "PROTOCOL_INVALID_FIELD", () => workload(len(19, len(2, len(2, [1, 2]))))],
  ["a gateway port beyond the last", "PROTOCOL_INVALID_FIELD", () => workload(len(8, [...len(1, []), ...int(3, 65_536)]))],
  ["an application tunnel port beyond the last", "PROTOCOL_INVALID_FIELD", () => workload(len(23, int(2, 70_000)))],
  ["a service key without namespace", "PROTOCOL_INVALID_FIELD", () => workload(len(22, [...len(1, "web"), ...len(2, [])]))],
  ["a target port beyond the last", "PROTOCOL_INVALID_FIELD", () => workload(len(22, [...len(1, "a/b"), ...len(2, len(1, int(2, 65_536)))]))],
  ["a workload without uid", "PROTOCOL_MISSING_FIELD", () => decodeAddress(Uint8Array.from(len(1, len(1, "name"))))],
  ["a service without hostname", "PROTOCOL_MISSING_FIELD", () => decodeAddress(Uint8Array.from(len(2, len(1, "name"))))],
  ["neither workload nor service", "PROTOCOL_MISSING_FIELD", () => decodeAddress(new Uint8Array())],
  ["a kind of address that is not known", "PROTOCOL_MISSING_FIELD", () => decodeAddress(Uint8Array.from(len(3, "x")))],
  ["a range longer than its family", "PROTOCOL_INVALID_FIELD", () => service(len(4, [...len(2, ip4), ...int(3, 33)]))],
  ["a range shorter than the mapping", "PROTOCOL_INVALID_FIELD", () => service(len(4, [...len(2, mapped), ...int(3, 95)]))],
  ["an unspecified scope", "PROTOCOL_UNKNOWN_ENUM", () => service(len(8, len(1, [0])))],
  ["an unknown scope", "PROTOCOL_UNKNOWN_ENUM", () => service(len(8, len(1, [7])))],
  ["an unknown mode", "PROTOCOL_UNKNOWN_ENUM", () => service(len(8, int(2, 4)))],
  ["an unknown health policy", "PROTOCOL_UNKNOWN_ENUM", () => service(len(8, int(3, 2)))],
  ["unknown families", "PROTOCOL_UNKNOWN_ENUM", () => service(int(9, 4))],
  ["a weighted waypoint without destination", "PROTOCOL_MISSING_FIELD", () => service(len(13, int(2, 1)))],
  ["text that is not UTF-8", "PROTOCOL_MALFORMED", () => workload(len(1, [0xff, 0xfe]))],
  ["bytes after a zero tag", "PROTOCOL_MALFORMED", () => decodeAddress(Uint8Array.from([...len(1, len(20, "u")), 0, 1]))],
  ["a nested length that runs over", "PROTOCOL_MALFORMED", () => decodeAddress(Uint8Array.from([0x0a, 0x09, 0xa2, 0x01, 0x01, 0x75]))],
];
for (const [name, code, decode] of refused) {
  test(`refused: ${name}`, (t) => {
    const error = t.throws(decode, { instanceOf: ProtocolDecodeError });
    t.is(error.code, code);
  });
}

test("truncated resources and garbage throw the decode error or decode, and nothing else", (t) => {
  const check = (bytes: Uint8Array) => {
    try {
      decodeAddress(bytes);
    } catch (error) {
      if (!(error instanceof ProtocolDecodeError)) throw error;
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), { numRuns: 2000 });
  const encoded = fc.oneof(anyWorkload.map(encodeWorkload), anyService.map(encodeService));
  const damaged = fc.tuple(encoded, fc.nat(), fc.nat(255), fc.nat());
  fc.assert(
    fc.property(damaged, ([bytes, at, byte, cut]) => {
      const copy = bytes.slice(0, (cut % bytes.length) + 1);
      copy[at % copy.length] = byte;
      check(copy);
      check(bytes.subarray(0, cut % bytes.length));
    }),
    { numRuns: 1000 },
  );
  t.pass();
});

test("every field of a full workload and service is written under its own number", (t) => {
  const full = workload(
    ...[1, 2, 4, 6, 7, 9, 10, 11, 13, 16, 18, 21].map((field) => len(field, "x")),
    ...[5, 12, 14, 17, 25].map((field) => int(field, 1)),
    len(3, ip4),
    len(8, len(1, [])),
    len(19, len(1, [])),
    len(22, [...len(1, "a/b"), ...len(2, [])]),
    len(23, int(1, 1)),
    len(24, []),
    len(27, int(1, 2)),
  );
  const numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27];
  t.deepEqual(fieldNumbers(fieldContent(encodeWorkload(full), 1)), numbers);
  const whole: Service = {
    ...service(len(1, "x"), len(2, "x"), len(4, len(2, ip4)), len(5, []), len(6, "spiffe://a/ns/b/sa/c"), len(7, len(1, [])), len(8, int(2, 1))),
    ipFamilies: "dual",
    canonical: true,
    ingressUseWaypoint: true,
    weightedWaypoints: [{ destination: { destination: { kind: "hostname", namespace: "", hostname: "" }, hbonePort: 1 }, weight: 1 }],
    visibility: "namespace",
  };
  t.deepEqual(fieldNumbers(fieldContent(encodeService(whole), 2)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]);
});

test("resources may be asked for by network and address", (t) => {
  t.deepEqual(workloadAliases(workload(len(3, ip4), len(3, ip6))), ["/10.0.0.1", "/fd00::1"]);
  t.deepEqual(workloadAliases(workload(len(3, ip4), len(4, "net"))), ["net/10.0.0.1"]);
  t.deepEqual(serviceAliases(service(len(4, [...len(1, "net"), ...len(2, ip4)]), len(4, [...len(2, ip4), ...int(3, 8)]))), ["net/10.0.0.1", "/10.0.0.1/8"]);
});
