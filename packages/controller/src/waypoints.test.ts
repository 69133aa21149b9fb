import { defaultNetwork } from "@fairway/model";
import test from "ava";
import { gateway } from "./fixtures.ts";
import { type BindingQuestion, readWaypoint, resolveBinding, type Waypoint } from "./waypoints.ts";

const context = { network: defaultNetwork, clusterDomain: "cluster.local" };
const hostname = (name: string, namespace = "shop") => ({
  destination: { kind: "hostname", namespace, hostname: `${name}.${namespace}.svc.cluster.local` },
  hbonePort: 15008,
});

function ask(question: Partial<BindingQuestion>, ...waypoints: Waypoint[]) {
  return resolveBinding({
    kind: "service",
    namespace: "shop",
    labels: {},
    namespaceLabels: {},
    serviceAccount: undefined,
    clusterDomain: "cluster.local",
    find: ({ namespace, name }) => waypoints.find((waypoint) => waypoint.namespace === namespace && waypoint.name === name),
    findForServiceAccount: (namespace, account) => waypoints.find((waypoint) => waypoint.namespace === namespace && waypoint.forServiceAccount === account),
    ...question,
  });
}

const wp = readWaypoint(gateway("wp"), undefined, context);
const wpFor = (type: string): Waypoint => readWaypoint(gateway("wp", { metadata: { labels: { "istio.io/waypoint-for": type } } }), undefined, context);
const pending = readWaypoint(gateway("wp", { status: { addresses: [] } }), undefined, context);
const uses = (name: string, namespace?: string) => ({
  "istio.io/use-waypoint": name,
  ...(namespace === undefined ? {} : { "istio.io/use-waypoint-namespace": namespace }),
});

test("no label, no waypoint", (t) => {
  t.deepEqual(ask({}, wp), { kind: "none" });
});

test("the object's label goes before the namespace's, and none stops the search", (t) => {
  t.like(ask({ labels: uses("wp"), namespaceLabels: uses("other") }, wp), { kind: "bound", ready: true, address: hostname("wp") } as never);
  t.deepEqual(ask({ labels: uses("none"), namespaceLabels: uses("wp") }, wp), { kind: "none" });
  t.like(ask({ namespaceLabels: uses("wp") }, wp), { kind: "bound" });
  t.deepEqual(ask({ namespaceLabels: uses("none") }, wp), { kind: "none" });
});

test("a missing waypoint on the object does not fall back, and is required all the same", (t) => {
  t.like(ask({ labels: uses("missing"), namespaceLabels: uses("wp") }, wp), { kind: "bound", ready: false, address: hostname("missing") } as never);
});

test("a waypoint that is not ready is required all the same: nothing is let past it", (t) => {
  t.like(ask({ labels: uses("wp") }, pending), { kind: "bound", ready: false, address: hostname("wp") } as never);
});

test("a waypoint in another namespace must admit ours", (t) => {
  const infra = (namespaces?: { from?: string; selector?: object }): Waypoint => {
    const allowedRoutes = namespaces === undefined ? {} : { allowedRoutes: { namespaces } };
    const object = gateway("wp", {
      metadata: { namespace: "infra" },
      spec: { gatewayClassName: "istio-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", ...allowedRoutes }] },
    });
    return readWaypoint(object, undefined, context);
  };
  const labels = uses("wp", "infra");
  t.like(ask({ labels }, infra()), { kind: "rejected", reason: "AttachmentDenied" });
  t.like(ask({ labels }, infra({ from: "Same" })), { kind: "rejected", reason: "AttachmentDenied" });
  t.like(ask({ labels }, infra({ from: "All" })), { kind: "bound" });
  const selector = { matchExpressions: [{ key: "team", operator: "In", values: ["a"] }] };
  t.like(ask({ labels, namespaceLabels: { team: "a" } }, infra({ from: "Selector", selector })), { kind: "bound" });
  t.like(ask({ labels, namespaceLabels: { team: "b" } }, infra({ from: "Selector", selector })), { kind: "rejected", reason: "AttachmentDenied" });
});

for (const [type, service, workload] of [
  ["service", "bound", "rejected"],
  ["workload", "rejected", "bound"],
  ["all", "bound", "bound"],
  ["none", "rejected", "rejected"],
  ["nonsense", "rejected", "rejected"],
] as const) {
  test(`a waypoint for ${type}: a service is ${service}, a workload that asks for it is ${workload}, one that inherits it never complains`, (t) => {
    t.is(ask({ labels: uses("wp") }, wpFor(type)).kind, service);
    t.is(ask({ kind: "workload", labels: uses("wp") }, wpFor(type)).kind, workload);
    t.is(ask({ kind: "workload", namespaceLabels: uses("wp") }, wpFor(type)).kind, workload === "bound" ? "bound" : "none");
  });
}

test("the waypoint of a service account goes before the namespace's and after the object's label", (t) => {
  const own = readWaypoint(gateway("sa-wp", { metadata: { annotations: { "istio.io/for-service-account": "sa" } } }), undefined, context);
  const question = { kind: "workload", serviceAccount: "sa", namespaceLabels: uses("wp") } as const;
  t.like(ask(question, wpFor("all"), own), { waypoint: { name: "sa-wp" } });
  t.like(ask({ ...question, labels: uses("wp") }, wpFor("all"), own), { waypoint: { name: "wp" } });
  t.like(ask({ ...question, serviceAccount: "other" }, wpFor("all"), own), { waypoint: { name: "wp" } });
  t.deepEqual(ask({ ...question, labels: uses("none") }, wpFor("all"), own), { kind: "none" });
});

test("addresses: a hostname first, else an IP address; the class's label counts when the Gateway has none", (t) => {
  t.deepEqual(readWaypoint(gateway("wp", { status: { addresses: [{ type: "IPAddress", value: "10.1.9.9" }] } }), undefined, context).address, {
    destination: { kind: "address", network: defaultNetwork, ip: "10.1.9.9" },
    hbonePort: 15008,
  } as never);
  const gatewayClass = {
    metadata: { name: "istio-waypoint", labels: { "istio.io/waypoint-for": "all" }, annotations: { "ambient.istio.io/waypoint-inbound-binding": "PROXY" } },
  };
  const read = readWaypoint(gateway("wp"), gatewayClass, context);
  t.is(read.trafficType, "all");
  t.deepEqual(read.applicationTunnel, { protocol: "proxy", port: undefined });
  t.is(
    readWaypoint(gateway("wp", { metadata: { annotations: { "ambient.istio.io/waypoint-inbound-binding": "QUIC" } } }), undefined, context).applicationTunnel,
    undefined,
  );
});
