import type { Pod } from "@fairway/kube";
import type { Workload } from "@fairway/model";
import test from "ava";
import { gateway, namespace, node, peerAuthentication, pod, policy, service, slice, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh, type Mesh } from "./mesh.ts";

function mesh(): { mesh: Mesh; inputs: ReturnType<typeof testInputs> } {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop"), namespace("fairway-system"));
  return { mesh: deriveMesh(inputs, testSettings), inputs };
}

function workloadOf(made: Mesh, name: string): Workload | undefined {
  return [...made.workloads.list()].find((workload) => workload.name === name);
}

const ports = (made: Mesh, pod: string, hostname: string): unknown =>
  workloadOf(made, pod)
    ?.services.get(`shop/${hostname}.shop.svc.cluster.local` as never)
    ?.map(({ servicePort, targetPort }) => [servicePort, targetPort]);

const lifecycles: readonly [string, Pod, "healthy" | "unhealthy" | undefined][] = [
  ["a pending pod with an address is known", pod("web", { status: { phase: "Pending", podIP: "10.0.0.1", conditions: [] } }), "unhealthy"],
  ["a pending pod without an address is not", pod("web", { status: { phase: "Pending", podIP: "", podIPs: [] } }), undefined],
  ["a terminating pod that is still ready is unhealthy", pod("web", { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } }), "unhealthy"],
  ["a completed job has left", pod("web", { status: { phase: "Succeeded" } }), undefined],
  ["a failed pod has left", pod("web", { status: { phase: "Failed" } }), undefined],
  ["a pod with an address that cannot be read is left out", pod("web", { status: { podIPs: [{ ip: "10.0.0.1" }, { ip: "nonsense" }] } }), undefined],
];
for (const [title, object, status] of lifecycles) {
  test(title, (t) => {
    const { mesh: made, inputs } = mesh();
    inputs.pods.set(object);
    t.is(workloadOf(made, "web")?.status, status);
  });
}

test("a captured pod speaks HBONE, with everything that the wire asks for", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.nodes.set(node("n1", { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z", "topology.istio.io/subzone": "s" }));
  inputs.pods.set(
    pod("web-5d4f-x", {
      metadata: {
        annotations: { "ambient.istio.io/redirection": "enabled" },
        labels: { app: "web", "pod-template-hash": "5d4f" },
        generateName: "web-5d4f-",
        ownerReferences: [{ apiVersion: "apps/v1", kind: "ReplicaSet", name: "web-5d4f", uid: "u", controller: true }],
      },
      status: { podIP: "10.0.0.1", podIPs: [{ ip: "10.0.0.1" }, { ip: "FD00:0::1" }] },
    }),
  );
  t.like(workloadOf(made, "web-5d4f-x"), {
    uid: "Kubernetes//Pod/shop/web-5d4f-x",
    addresses: ["10.0.0.1", "fd00::1"],
    tunnelProtocol: "hbone",
    nativeTunnel: false,
    networkMode: "standard",
    trustDomain: "cluster.local",
    serviceAccount: "default",
    node: "n1",
    workloadName: "web",
    workloadType: "pod",
    canonicalName: "web",
    canonicalRevision: "latest",
    locality: { region: "r", zone: "z", subzone: "s" },
  } as never);
});

const owners: readonly [string, string, string, Record<string, string>, string][] = [
  ["ReplicaSet", "web-abc", "web-abc-", { "pod-template-hash": "abc" }, "web"],
  ["ReplicaSet", "web-abc", "web-abc-", { "pod-template-hash": "other" }, "web-abc"],
  ["ReplicaSet", "web-r1", "web-r1-", { "rollouts-pod-template-hash": "r1" }, "web"],
  ["Job", "backup-28839920", "backup-28839920-", {}, "backup"],
  ["Job", "backup-1", "backup-1-", {}, "backup-1"],
  ["ReplicationController", "dc-1", "dc-1-", { deploymentconfig: "dc" }, "dc"],
  ["StatefulSet", "db", "db-", {}, "db"],
  ["StatefulSet", "db", "db-", { "service.istio.io/workload-name": "named" }, "named"],
];
for (const [kind, name, generateName, labels, expected] of owners) {
  test(`a pod of ${kind} ${name} with labels ${JSON.stringify(labels)} belongs to ${expected}`, (t) => {
    const { mesh: made, inputs } = mesh();
    inputs.pods.set(pod("p", { metadata: { labels, generateName, ownerReferences: [{ apiVersion: "v1", kind, name, uid: "u", controller: true }] } }));
    t.is(workloadOf(made, "p")?.workloadName, expected);
  });
}

test("a host-network pod is known as such", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("agent", { spec: { hostNetwork: true } }));
  t.is(workloadOf(made, "agent")?.networkMode, "host-network");
});

test("two pods with one address are both known, and each leaves alone", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("a"), pod("b"));
  t.is([...made.workloads.list()].length, 2);
  inputs.pods.delete("shop/a");
  t.deepEqual(
    [...made.workloads.list()].map(({ name }) => name),
    ["b"],
  );
});

test("a service maps its ports per pod: numbers, names, native sidecars, and a name that one pod lacks", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(
    service("web", {
      spec: {
        selector: { app: "web" },
        ports: [
          { name: "a", port: 80, targetPort: 8080 },
          { name: "b", port: 81, targetPort: "http" },
          { name: "c", port: 82, targetPort: "sidecar" },
          { name: "d", port: 83 },
        ],
      },
    }),
  );
  const sidecar = { name: "s", restartPolicy: "Always", ports: [{ name: "sidecar", containerPort: 9000 }] };
  inputs.pods.set(
    pod("full", {
      metadata: { labels: { app: "web" } },
      spec: { containers: [{ name: "c", ports: [{ name: "http", containerPort: 8000 }] }], initContainers: [sidecar] },
    }),
    pod("plain", { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "c" }], initContainers: [{ ...sidecar, restartPolicy: "Never" }] } }),
  );
  t.deepEqual(ports(made, "full", "web"), [
    [80, 8080],
    [81, 8000],
    [82, 9000],
    [83, 83],
  ]);
  t.deepEqual(ports(made, "plain", "web"), [
    [80, 8080],
    [83, 83],
  ]);
});

test("a headless service has no virtual address, and its pods still list it", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { clusterIP: "None", clusterIPs: ["None"] } }));
  inputs.pods.set(pod("web"));
  t.deepEqual(made.services.get("shop/web")?.vips, []);
  t.deepEqual(ports(made, "web", "web"), [[80, 8080]]);
});

test("an ExternalName is not published, and selects nothing", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { type: "ExternalName", externalName: "example.com" } }));
  inputs.pods.set(pod("web"));
  t.is(made.services.get("shop/web"), undefined);
  t.is(workloadOf(made, "web")?.services.size, 0);
});

test("dual stack keeps the order of the addresses", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { clusterIPs: ["fd00:1::1", "10.1.0.1"], ipFamilies: ["IPv6", "IPv4"] } }));
  const made1 = made.services.get("shop/web");
  t.deepEqual(
    made1?.vips.map(({ ip }) => ip),
    ["fd00:1::1" as never, "10.1.0.1" as never],
  );
  t.is(made1?.ipFamilies, "dual");
});

test("a service without selector reaches the pod that a slice names, by uid", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { selector: {} } }));
  inputs.pods.set(pod("a"));
  const endpoint = (uid: string) => slice("s", { endpoints: [{ addresses: ["10.0.0.1"], targetRef: { kind: "Pod", namespace: "shop", name: "a", uid } }] });
  inputs.endpointSlices.set(endpoint("uid-of-an-earlier-pod"));
  t.is(workloadOf(made, "a")?.services.size, 0);
  inputs.endpointSlices.set(endpoint("uid-a"));
  t.deepEqual(ports(made, "a", "web"), [[80, 8080]]);
});

test("endpoints that are not pods are workloads of their slice; the same address in two slices is two workloads", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { selector: {} } }));
  const external = { endpoints: [{ addresses: ["192.0.2.1"] }], ports: [{ name: "http", port: 9090 }] };
  inputs.endpointSlices.set(slice("one", external), slice("two", { ...external, endpoints: [{ addresses: ["192.0.2.1"], conditions: { ready: false } }] }));
  const [one, two] = [...made.workloads.list()];
  t.like(one, { uid: "Kubernetes/discovery.k8s.io/EndpointSlice/shop/one/192.0.2.1", networkMode: "host-network", status: "healthy" } as never);
  t.is(two?.status, "unhealthy");
  t.deepEqual(ports(made, "one", "web"), [[80, 9090]]);
  inputs.services.delete("shop/web");
  t.deepEqual([...made.workloads.list()], []);
});

const distributions: readonly [string, Parameters<typeof service>[1], string[], string][] = [
  ["nothing is asked for", {}, [], "unspecified"],
  ["internalTrafficPolicy Local", { spec: { internalTrafficPolicy: "Local", trafficDistribution: "PreferClose" } }, ["node"], "strict"],
  ["PreferClose", { spec: { trafficDistribution: "PreferClose" } }, ["network", "region", "zone"], "failover"],
  ["PreferSameNode", { spec: { trafficDistribution: "PreferSameNode" } }, ["network", "region", "zone", "subzone", "node"], "failover"],
  [
    "the annotation, without case",
    { metadata: { annotations: { "networking.istio.io/traffic-distribution": "prefersamezone" } } },
    ["network", "region", "zone"],
    "failover",
  ],
  ["an unknown annotation stops the search", { metadata: { annotations: { "networking.istio.io/traffic-distribution": "Nearby" } } }, [], "unspecified"],
];
for (const [title, changes, preference, mode] of distributions) {
  test(`load balancing: ${title}`, (t) => {
    const { mesh: made, inputs } = mesh();
    inputs.services.set(service("web", changes));
    t.like(made.services.get("shop/web")?.loadBalancing, { mode, healthPolicy: "only-healthy" });
    t.deepEqual(made.services.get("shop/web")?.loadBalancing.routingPreference, preference as never);
  });
}

test("the namespace's traffic distribution counts when the service says nothing", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("web", { spec: { publishNotReadyAddresses: true } }));
  inputs.namespaces.set(namespace("shop", {}, { "networking.istio.io/traffic-distribution": "PreferSameZone" }));
  t.like(made.services.get("shop/web")?.loadBalancing, { mode: "failover", healthPolicy: "allow-all" });
});

const protocols: readonly [Partial<{ name: string; appProtocol: string; protocol: string; port: number }>, string][] = [
  [{ name: "http" }, "http11"],
  [{ name: "HTTP-web" }, "http11"],
  [{ name: "http2-x" }, "http2"],
  [{ name: "grpc" }, "grpc"],
  [{ name: "grpc-web-x" }, "unknown"],
  [{ name: "tls" }, "tls"],
  [{ name: "mongo" }, "unknown"],
  [{ name: "web" }, "unknown"],
  [{ name: "web", port: 3306 }, "tcp"],
  [{ name: "http", appProtocol: "kubernetes.io/h2c" }, "http2"],
  [{ name: "http", appProtocol: "kubernetes.io/wss" }, "tls"],
  [{ name: "http", protocol: "UDP" }, "unknown"],
  [{ name: "constructor" }, "unknown"],
];
for (const [port, expected] of protocols) {
  test(`the port ${JSON.stringify(port)} speaks ${expected}`, (t) => {
    const { mesh: made, inputs } = mesh();
    inputs.services.set(service("web", { spec: { ports: [{ port: 80, ...port }] } }));
    t.is(made.services.get("shop/web")?.ports[0]?.appProtocol, expected as never);
  });
}

test("a node's heartbeat and a namespace's phase recompute nothing that anybody hears of", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.nodes.set(node("n1", { "topology.kubernetes.io/zone": "z" }));
  inputs.pods.set(pod("web"));
  inputs.services.set(service("web"));
  const heard: string[] = [];
  made.workloads.subscribe((events) => heard.push(...events.map(({ key }) => key)));
  made.services.subscribe((events) => heard.push(...events.map(({ key }) => key)));
  inputs.nodes.set({ ...node("n1", { "topology.kubernetes.io/zone": "z" }), status: { conditions: [{ type: "Ready", status: "True" }] } });
  inputs.namespaces.set({ ...namespace("shop"), status: { phase: "Active" } });
  inputs.pods.set(pod("web", { metadata: { resourceVersion: "2" } }));
  t.deepEqual(heard, []);
  inputs.nodes.set(node("n1", { "topology.kubernetes.io/zone": "other" }));
  t.deepEqual(heard, ["shop/web"]);
});

test("the network is the root namespace's label", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("web"));
  inputs.services.set(service("web"));
  inputs.namespaces.set(namespace("fairway-system", { "topology.istio.io/network": "net1" }));
  t.is(workloadOf(made, "web")?.network, "net1" as never);
  t.is(made.services.get("shop/web")?.vips[0]?.network, "net1" as never);
});

test("a selector policy is named by the workloads it selects, in its namespace or, from the root namespace, everywhere", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("web"), pod("api"), pod("web", { metadata: { namespace: "other", labels: { app: "web" } } }));
  inputs.authorizationPolicies.set(
    policy("own", { selector: { matchLabels: { app: "web" } } }),
    policy("everywhere", { selector: { matchLabels: { app: "web" } } }, { namespace: "fairway-system" }),
    policy("whole-namespace", {}),
    policy("for-a-waypoint", { targetRefs: [{ kind: "Service", name: "web" }] }),
    policy("not-ours", { selector: { matchLabels: { app: "web" } } }, { labels: { "istio.io/rev": "canary" } }),
  );
  const keys = (uid: string): unknown => [...made.workloads.list()].find((workload) => workload.uid === uid)?.authorizationPolicies;
  t.deepEqual(keys("Kubernetes//Pod/shop/web"), ["fairway-system/everywhere", "shop/own"]);
  t.deepEqual(keys("Kubernetes//Pod/shop/api"), []);
  t.deepEqual(keys("Kubernetes//Pod/other/web"), ["fairway-system/everywhere"]);
  t.deepEqual([...made.policies.list()].map(({ namespace: of, name, scope }) => `${of}/${name} ${scope}`).sort(), [
    "fairway-system/everywhere workload-selector",
    "shop/own workload-selector",
    "shop/whole-namespace namespace",
  ]);
  inputs.authorizationPolicies.delete("shop/own");
  t.deepEqual(keys("Kubernetes//Pod/shop/web"), ["fairway-system/everywhere"]);
});

test("the static strict policy is there while any PeerAuthentication is", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("web"));
  inputs.peerAuthentications.set(peerAuthentication("default", { mtls: { mode: "STRICT" } }));
  t.deepEqual(workloadOf(made, "web")?.authorizationPolicies, ["fairway-system/istio_converted_static_strict" as never]);
  t.truthy(made.policies.get("fairway-system/istio_converted_static_strict"));
  inputs.peerAuthentications.delete("shop/default");
  t.deepEqual(workloadOf(made, "web")?.authorizationPolicies, []);
  t.is(made.policies.get("fairway-system/istio_converted_static_strict"), undefined);
});

test("pods of a waypoint have no waypoint, and its inbound binding", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }));
  inputs.gateways.set(
    gateway("wp", { metadata: { labels: { "istio.io/waypoint-for": "all" }, annotations: { "ambient.istio.io/waypoint-inbound-binding": "PROXY/15088" } } }),
  );
  inputs.pods.set(pod("wp-1", { metadata: { labels: { "gateway.networking.k8s.io/gateway-name": "wp" } } }), pod("web"));
  t.is(workloadOf(made, "wp-1")?.waypoint, undefined);
  t.deepEqual(workloadOf(made, "wp-1")?.applicationTunnel, { protocol: "proxy", port: 15088 });
  t.truthy(workloadOf(made, "web")?.waypoint);
});

test("the waypoint of a service account takes its pods, and its services when all their pods run as it", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.pods.set(pod("a", { metadata: { labels: { app: "web" } }, spec: { serviceAccountName: "sa" } }), pod("b", { spec: { serviceAccountName: "other" } }));
  inputs.services.set(service("web"));
  inputs.gateways.set(gateway("wp", { metadata: { annotations: { "istio.io/for-service-account": "sa" } } }));
  t.truthy(workloadOf(made, "a")?.waypoint);
  t.is(workloadOf(made, "b")?.waypoint, undefined);
  t.truthy(made.services.get("shop/web")?.waypoint);
  inputs.pods.set(pod("c", { metadata: { labels: { app: "web" } }, spec: { serviceAccountName: "other" } }));
  t.is(made.services.get("shop/web")?.waypoint, undefined);
});
