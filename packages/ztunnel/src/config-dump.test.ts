import { emptyMatch, networkId, parseCidr, parseIp, parseSpiffeId, type SnapshotChange } from "@fairway/model";
import test from "ava";
import { configDump } from "./config-dump.ts";
import { readConfig } from "./environment.ts";
import { MemoryMesh, service, workload } from "./test-mesh.ts";

const config = readConfig({ AUTH_TOKEN: "very-secret", "XDS_HEADER_x-key": "also-secret" }, { exists: () => false, read: () => "", cores: 2 });
const version = { version: "1", gitRevision: "unknown" };

function dump(mesh: MemoryMesh, local: SnapshotChange = {}): Record<string, never> {
  return JSON.parse(JSON.stringify(configDump({ config, snapshot: mesh.snapshot, local, certificates: new Map(), pods: [], version })));
}

test("workloads and services have the keys that tools parse, without the ones that say nothing", (t) => {
  const { service: web, workloads } = service("web", "10.1.0.1", 80, 8080, [workload("b", "10.0.0.2")]);
  const { workloads: dumped, services } = dump(
    new MemoryMesh({ workloads, services: [{ ...web, subjectAltNames: [parseSpiffeId("spiffe://td/ns/n/sa/s")] }] }),
  ) as never as {
    workloads: unknown[];
    services: unknown[];
  };
  t.deepEqual(dumped, [
    {
      workloadIps: ["10.0.0.2"],
      protocol: "HBONE",
      networkMode: "Standard",
      uid: "Kubernetes//Pod/default/b",
      name: "b",
      namespace: "default",
      trustDomain: "cluster.local",
      serviceAccount: "b",
      workloadName: "b",
      workloadType: "deployment",
      canonicalName: "b",
      canonicalRevision: "v1",
      node: "node",
      status: "Healthy",
      clusterId: "Kubernetes",
      services: ["default/web.default.svc.cluster.local"],
      capacity: 1,
    },
  ]);
  t.deepEqual(services, [
    {
      name: "web",
      namespace: "default",
      hostname: "web.default.svc.cluster.local",
      vips: ["/10.1.0.1"],
      ports: { "80": 8080 },
      endpoints: { "Kubernetes//Pod/default/b": { workloadUid: "Kubernetes//Pod/default/b", port: { "80": 8080 }, status: "Healthy" } },
      subjectAltNames: ["spiffe://td/ns/n/sa/s"],
      canonical: true,
      visibility: "Public",
    },
  ]);
});

test("what is special about a workload is shown: waypoint, gateway, tunnel, locality, health", (t) => {
  const special = workload("b", "10.0.0.2", {
    network: networkId("n1"),
    waypoint: { destination: { kind: "hostname", namespace: "default", hostname: "wp.default.svc" }, hbonePort: 15_008 },
    networkGateway: { destination: { kind: "address", network: networkId("n1"), ip: parseIp("10.9.9.9") }, hbonePort: 15_009 },
    applicationTunnel: { protocol: "proxy", port: 15_088 },
    locality: { region: "eu", zone: "", subzone: "" },
    status: "unhealthy",
    tunnelProtocol: "none",
  });
  const { workloads } = dump(new MemoryMesh({ workloads: [special] })) as never as { workloads: Record<string, unknown>[] };
  const [shown] = workloads;
  t.deepEqual(shown?.["waypoint"], { destination: "default/wp.default.svc", hboneMtlsPort: 15_008 });
  t.deepEqual(shown?.["networkGateway"], { destination: "n1/10.9.9.9", hboneMtlsPort: 15_009 });
  t.deepEqual(shown?.["applicationTunnel"], { protocol: "PROXY", port: 15_088 });
  t.deepEqual(shown?.["locality"], { region: "eu" });
  t.deepEqual([shown?.["status"], shown?.["protocol"], shown?.["network"]], ["Unhealthy", "TCP", "n1"]);
});

test("a policy is three lists deep, matchers by name", (t) => {
  const match = {
    ...emptyMatch,
    principals: [{ kind: "prefix" as const, value: "td/ns/x" }, { kind: "presence" as const }],
    sourceIps: [parseCidr("10.0.0.0/8")],
    destinationPorts: [80],
  };
  const policies = [
    { name: "p", namespace: "n", scope: "workload-selector" as const, action: "deny" as const, rules: [{ clauses: [{ matches: [match] }] }], dryRun: true },
  ];
  t.deepEqual((dump(new MemoryMesh({ policies })) as never as { policies: unknown }).policies, [
    {
      name: "p",
      namespace: "n",
      scope: "WorkloadSelector",
      action: "Deny",
      rules: [[[{ principals: [{ Prefix: "td/ns/x" }, { Presence: [] }], sourceIps: ["10.0.0.0/8"], destinationPorts: [80] }]]],
      dryRun: true,
    },
  ]);
});

test("endpoints without their service are staged, by service and uid", (t) => {
  const { service: web, workloads } = service("web", "10.1.0.1", 80, 8080, [workload("b", "10.0.0.2"), workload("c", "10.0.0.3", { status: "unhealthy" })]);
  const staged = (mesh: MemoryMesh): unknown => dump(mesh)["stagedServices"];
  const mesh = new MemoryMesh({ workloads });
  t.deepEqual(staged(mesh), {
    "default/web.default.svc.cluster.local": {
      "Kubernetes//Pod/default/b": { workloadUid: "Kubernetes//Pod/default/b", port: { "80": 8080 }, status: "Healthy" },
      "Kubernetes//Pod/default/c": { workloadUid: "Kubernetes//Pod/default/c", port: { "80": 8080 }, status: "Unhealthy" },
    },
  });
  mesh.apply({ services: [web] });
  t.deepEqual(staged(mesh), {});
});

test("the static configuration is the local mesh alone, its workloads with the ports of their services", (t) => {
  const { service: web, workloads } = service("web", "10.1.0.1", 80, 8080, [workload("b", "10.0.0.2")]);
  const policies = [{ name: "p", namespace: "n", scope: "global" as const, action: "allow" as const, rules: [], dryRun: false }];
  const shown = dump(new MemoryMesh({ workloads: [workload("of-the-control-plane", "10.0.0.9")] }), { workloads, services: [web], policies });
  const {
    workloads: own,
    services,
    policies: allows,
  } = shown["staticConfig"] as never as { workloads: Record<string, unknown>[]; services: unknown[]; policies: unknown[] };
  t.deepEqual(
    own.map(({ name, protocol, services: of }) => [name, protocol, of]),
    [["b", "HBONE", { "default/web.default.svc.cluster.local": { "80": 8080 } }]],
  );
  t.is(services.length, 1);
  t.deepEqual(allows, [{ name: "p", namespace: "n", scope: "Global", action: "Allow", rules: [] }]);
  t.deepEqual(dump(new MemoryMesh())["staticConfig"], { workloads: [], services: [], policies: [] } as never);
});

test("no token and no header value is in the dump", (t) => {
  const text = JSON.stringify(dump(new MemoryMesh()));
  t.notRegex(text, /very-secret|also-secret/);
  t.true(text.includes("x-key"));
});
