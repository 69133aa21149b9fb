/** Resources of the mesh in every form they come in, and what the kernel, the kubelet and the node agent say. */

import fc from "fast-check";
import { parseFrame } from "../../packages/linux/dist/index.js";
import { decodeSocketAddress } from "../../packages/linux/dist/socket-address.js";
import { decodeBody } from "../../packages/local-cluster/dist/api-server/request-body.js";
import { parseFieldSelector, parseLabelSelector } from "../../packages/local-cluster/dist/api-server/selectors.js";
import * as model from "../../packages/model/dist/index.js";
import { addressesIn, parseArguments } from "../../packages/node-agent/dist/plugin/cni-plugin.js";
import { parseAddRequest, parseAddResponse } from "../../packages/node-agent/dist/plugin-protocol.js";
import * as protocol from "../../packages/protocol/dist/index.js";
import { anyCluster, anyEndpoints, anyRouteTable, anyTarget } from "../../packages/protocol/dist/sample-waypoint.js";
import { parseMesh } from "../../packages/xds/dist/index.js";
import { DnsFrames } from "../../packages/ztunnel/dist/dns-frames.js";
import { meshDefaults } from "../../packages/ztunnel/dist/mesh-defaults.js";
import { parseResolvConf } from "../../packages/ztunnel/dist/resolv-conf.js";
import { type FuzzEntry, text } from "./entry.ts";

const yaml = `workloads:
  - {uid: u, name: a, namespace: default, serviceAccount: a, workloadIps: ["10.0.0.1"], protocol: HBONE, services: {"default/web": {80: 8080}}}
policies:
  - {name: deny, namespace: default, scope: Namespace, action: Deny, rules: [[[{notDestinationPorts: [9999], principals: [{Exact: "cluster.local/ns/a/sa/b"}]}]]]}
services:
  - {name: web, namespace: default, hostname: web, vips: ["/10.1.0.1"], ports: {80: 8080}, cidrVips: [{network: "", cidr: 10.9.0.0/16}]}
`;
const { workloads = [], services = [], policies = [] } = parseMesh(yaml);
const query = Buffer.from("123401000001000000000001" + "03777777076578616d706c6503636f6d0000010001" + "0000291000000080000000", "hex");
const response = Buffer.from(query);
response[2] = 0x81;
const addRequest = JSON.stringify({ netns: "/proc/1/ns/net", podName: "a", podNamespace: "b", podUid: "u", ips: ["10.0.0.1"], pid: 1 });
/** Some of every shape that the codec's own tests know; always the same ones. */
const some = (arbitrary: fc.Arbitrary<Uint8Array>): Uint8Array[] => fc.sample(arbitrary, { numRuns: 40, seed: 1 });
const wire = {
  workload: workloads.map((workload) => protocol.encodeWorkload(workload)),
  service: services.map((service) => protocol.encodeService(service)),
  policy: policies.map((policy) => protocol.encodeAuthorization(policy)),
  hello: [protocol.encodeZdsHello({ version: "v1" } as never)],
  add: [
    protocol.encodeZdsRequest({ kind: "add", uid: "u", workload: { namespace: "default", name: "a", serviceAccount: "a" } }),
    protocol.encodeZdsRequest({ kind: "del", uid: "u" }),
  ],
  answer: [protocol.encodeZdsResponse({ error: "no" } as never)],
};

/** Everything that reads a DNS message. */
function dns(bytes: Buffer): void {
  const request = protocol.readDnsRequest(bytes);
  const right = protocol.readDnsRequest(query);
  if (right.kind === "query") {
    protocol.isDnsResponseTo(right.query, 0x1234, bytes);
    if (bytes.length >= 12) protocol.relayedDnsResponse(bytes, right.query);
  }
  if (request.kind !== "query") return;
  const answer = { code: protocol.dnsCodes.success, authoritative: true, canonicalName: undefined, addresses: [Uint8Array.of(10, 0, 0, 1)], ttlSeconds: 30 };
  protocol.encodeDnsAnswer(request.query, answer as never, protocol.dnsUdpLimit(request.query));
}

export const meshEntries: readonly FuzzEntry[] = [
  { name: "zds-hello", samples: wire.hello, run: protocol.decodeZdsHello },
  { name: "zds-request", samples: wire.add, run: protocol.decodeZdsRequest },
  { name: "zds-response", samples: wire.answer, run: protocol.decodeZdsResponse },
  { name: "wds-address", samples: [...wire.workload, ...wire.service], run: protocol.decodeAddress },
  { name: "authorization", samples: wire.policy, run: protocol.decodeAuthorization },
  { name: "authorization-salvage", samples: wire.policy, run: (bytes) => protocol.salvageAuthorization(bytes, "default/deny" as never) },
  { name: "envoy-listener", samples: some(anyTarget.map(protocol.encodeTarget)), run: protocol.decodeTarget },
  { name: "envoy-route", samples: some(anyRouteTable.map(protocol.encodeRouteTable)), run: protocol.decodeRouteTable },
  { name: "envoy-cluster", samples: some(anyCluster.map(protocol.encodeCluster)), run: protocol.decodeCluster },
  { name: "envoy-endpoints", samples: some(anyEndpoints.map(protocol.encodeEndpoints)), run: protocol.decodeEndpoints },
  { name: "dns", samples: [query, response], run: dns },
  {
    name: "dns-tcp",
    samples: [Buffer.concat([Buffer.from([0, query.length]), query])],
    run: (bytes) => {
      const frames = new DnsFrames();
      frames.feed(bytes);
      for (let found = frames.next(); found !== undefined; found = frames.next()) dns(Buffer.from(found));
    },
  },
  { name: "resolv-conf", samples: ["nameserver 10.96.0.10\nsearch a.b c\noptions ndots:5\n"], run: text(parseResolvConf) },
  { name: "mesh-yaml", samples: [yaml], run: text((given) => parseMesh(given)) },
  { name: "proxy-config", samples: ["discoveryAddress: istiod:15012\nproxyMetadata: {A: b}\n"], run: text((given) => meshDefaults(given, given)) },
  { name: "cni-add", samples: [addRequest], run: text(parseAddRequest) },
  { name: "cni-answer", samples: ['{"result":"enrolled"}', '{"error":"no","code":"X"}'], run: text(parseAddResponse) },
  { name: "cni-arguments", samples: ["K8S_POD_NAME=a;K8S_POD_NAMESPACE=b"], run: text(parseArguments) },
  { name: "cni-result", samples: ['{"ips":[{"address":"10.0.0.1/24"}]}'], run: text((given) => addressesIn(jsonObject(given))) },
  { name: "ip", samples: ["10.0.0.1", "fe80::1", "::ffff:1.2.3.4"], run: text(model.parseIp) },
  { name: "cidr", samples: ["10.0.0.0/8", "fd00::/7"], run: text(model.parseCidr) },
  { name: "spiffe-id", samples: ["spiffe://cluster.local/ns/default/sa/a"], run: text(model.parseSpiffeId) },
  { name: "packet", samples: [Buffer.from("4500002800010000400600000a0000010a000002" + "1f901f9000000000000000005002ffff00000000", "hex")], run: parseFrame },
  { name: "socket-address", samples: [Buffer.from(`02001f900a000001${"0".repeat(16)}`, "hex")], run: decodeSocketAddress },
  {
    name: "kube-protobuf",
    samples: [Buffer.concat([Buffer.from("k8s\0"), Buffer.from("0a0f0a02763112094e616d6573706163651205" + "0a030a0161", "hex")])],
    run: (bytes) => decodeBody(bytes, "application/vnd.kubernetes.protobuf"),
  },
  { name: "kube-json", samples: ['{"kind":"Pod","metadata":{"name":"a"}}'], run: (bytes) => decodeBody(bytes, "application/json") },
  { name: "kube-yaml", samples: ["kind: Pod\nmetadata: {name: a}\n"], run: (bytes) => decodeBody(bytes, "application/yaml") },
  { name: "label-selector", samples: ["a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1"], run: text(parseLabelSelector) },
  { name: "field-selector", samples: ["metadata.name=a,spec.nodeName!=b"], run: text((given) => parseFieldSelector(given, { group: "", plural: "pods" }, [])) },
];

function jsonObject(given: string): object {
  try {
    const value: unknown = JSON.parse(given);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}
