import { parseIp } from "@fairway/model";
import { errorCode, MeshError, systemClock } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { readMeshFile, staticMeshView } from "./file-source.ts";
import { parseMesh } from "./mesh-file.ts";

const text = `
workloads:
  - name: local
    namespace: default
    serviceAccount: local
    workloadIps: ["127.0.0.1"]
    protocol: HBONE
    node: n1
    network: ""
    services:
      "default/local.example.com":
        80: 8080
    waypoint: { destination: "default/waypoint.example.com", hboneMtlsPort: 15008 }
    applicationTunnel: { protocol: PROXY, port: 15088 }
    authorizationPolicies: [default/deny]
  - workloadIps: ["::ffff:10.0.0.9"]
    namespace: other
    services: {}
services:
  - name: local
    namespace: default
    hostname: local.example.com
    vips: ["/127.10.0.1", "remote/fd00::1"]
    ports: { 80: 8080, 443: 0 }
    subjectAltNames: ["spiffe://cluster.local/ns/default/sa/local"]
    loadBalancer: { routingPreferences: [Network, Zone], mode: Failover, healthPolicy: AllowAll }
    waypoint: { destination: "/10.1.1.1" }
    cidrVips: [{ network: "", cidr: 10.9.0.0/16 }]
    ipFamilies: Dual
    visibility: Namespace
policies:
  - name: deny
    namespace: default
    scope: WorkloadSelector
    action: Deny
    rules:
      - - - notDestinationPorts: [9999]
            principals: [{ Exact: "cluster.local/ns/default/sa/a" }, { Prefix: x }, { Suffix: y }, Presence]
          - sourceIps: [10.0.0.0/8]
`;

test("workloads, services and policies are read with the defaults of the wire", (t) => {
  const { workloads = [], services = [], policies = [] } = parseMesh(text);
  const [local, other] = workloads;
  t.is(local?.tunnelProtocol, "hbone");
  t.deepEqual(local?.services.get([...(local?.services.keys() ?? [])][0] ?? ("" as never)), [{ servicePort: 80, targetPort: 8080, appProtocol: "unknown" }]);
  t.deepEqual(local?.waypoint, { destination: { kind: "hostname", namespace: "default", hostname: "waypoint.example.com" }, hbonePort: 15008 });
  t.deepEqual(local?.applicationTunnel, { protocol: "proxy", port: 15088 });
  t.is(other?.trustDomain, "cluster.local");
  t.is(other?.serviceAccount, "default");
  t.is(other?.clusterId, "Kubernetes");
  t.is(other?.capacity, 1);
  t.is(other?.tunnelProtocol, "none");
  t.deepEqual(other?.addresses, [parseIp("10.0.0.9")]);
  const [service] = services;
  t.deepEqual(
    service?.vips.map(({ network, ip }) => `${network}|${ip}`),
    ["|127.10.0.1", "remote|fd00::1"],
  );
  t.deepEqual(service?.loadBalancing, { routingPreference: ["network", "zone"], mode: "failover", healthPolicy: "allow-all" });
  t.is(service?.waypoint?.destination.kind, "address");
  t.is(service?.visibility, "namespace");
  t.is(service?.ipFamilies, "dual");
  t.deepEqual(service?.cidrVips[0]?.range, { ip: parseIp("10.9.0.0"), length: 16 });
  const [policy] = policies;
  t.is(policy?.action, "deny");
  const [first, second] = policy?.rules[0]?.clauses[0]?.matches ?? [];
  t.deepEqual(first?.principals, [
    { kind: "exact", value: "cluster.local/ns/default/sa/a" },
    { kind: "prefix", value: "x" },
    { kind: "suffix", value: "y" },
    { kind: "presence" },
  ]);
  t.deepEqual(first?.notDestinationPorts, [9999]);
  t.deepEqual(second?.sourceIps, [{ ip: parseIp("10.0.0.0"), length: 8 }]);
});

test("a static view is synced from the start and finds its pod", async (t) => {
  const view = staticMeshView(parseMesh(text), { nodeName: "n1", clock: systemClock });
  t.true(view.synced.current);
  const pod = await view.waitForWorkload(
    { namespace: "default", name: "local", serviceAccount: "local" },
    { signal: AbortSignal.timeout(1_000), timeoutMs: 10 },
  );
  t.is(pod.name, "local");
  t.is([...view.snapshot.services()].length, 1);
  await view[Symbol.asyncDispose]();
});

test("a service may name its endpoints itself; what a workload says of its ports goes before it", (t) => {
  const { workloads = [] } = parseMesh(`
workloads:
  - {uid: u1, namespace: default, workloadIps: [10.0.0.1], services: {}}
  - {uid: u2, namespace: default, workloadIps: [10.0.0.2], services: {default/web.example: {80: 9090}}}
services:
  - name: web
    namespace: default
    hostname: web.example
    vips: []
    ports: {80: 8080}
    endpoints: {u1: {workloadUid: u1, port: {80: 8081}, status: Healthy}, u2: {workloadUid: u2}, gone: {workloadUid: u3}}
`);
  t.deepEqual(
    workloads.map(({ services }) => [...services].map(([key, ports]) => [key, ports[0]?.targetPort])),
    [[["default/web.example", 8081]], [["default/web.example", 9090]]],
  );
});

test("an empty text is an empty mesh", (t) => {
  t.deepEqual(parseMesh(""), { workloads: [], services: [], policies: [] });
});

const mistakes: readonly (readonly [string, string, RegExp])[] = [
  ["an unknown key at the top", "workload: []", /workload/],
  ["an unknown key of a workload", "workloads: [{namespace: a, services: {}, workloadIPs: []}]", /workloads\.0.*workloadIPs/],
  ["an unknown key of a match", "policies: [{name: a, namespace: b, scope: Global, action: Deny, rules: [[[{sourceIp: [1.2.3.4]}]]]}]", /sourceIp/],
  ["a missing namespace", "workloads: [{services: {}}]", /workloads\.0\.namespace/],
  ["a wrong enum", "policies: [{name: a, namespace: b, scope: Everywhere, action: Deny}]", /policies\.0\.scope/],
  ["a bad address", "workloads: [{namespace: a, services: {}, workloadIps: [nonsense]}]", /nonsense/],
  ["a bad service key", "workloads: [{namespace: a, services: {nohost: {80: 80}}}]", /namespace\/hostname/],
  ["a port out of range", "workloads: [{namespace: a, services: {a/b: {80: 70000}}}]", /services/],
  ["a bad matcher", "policies: [{name: a, namespace: b, scope: Global, action: Deny, rules: [[[{principals: [{Regex: x}]}]]]}]", /principals/],
  ["no YAML", "workloads: [", /YAML/],
  ["a list instead of keys", "- a", /top level/],
];

for (const [name, yaml, message] of mistakes) {
  test(`refused, naming the place: ${name}`, (t) => {
    const error = t.throws(() => parseMesh(yaml, "mesh.yaml"));
    t.is(errorCode(error), "XDS_FILE_INVALID");
    t.regex(String(error?.message), message);
    t.regex(String(error?.message), /mesh\.yaml/);
  });
}

test("no text throws anything but XDS_FILE_INVALID", (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (yaml) => {
      try {
        parseMesh(yaml);
        return true;
      } catch (thrown) {
        return thrown instanceof MeshError && thrown.code === "XDS_FILE_INVALID";
      }
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test("a file that is not there says so", async (t) => {
  t.is(errorCode(await t.throwsAsync(readMeshFile("/nonexistent/mesh.yaml"))), "XDS_FILE_UNREADABLE");
});
