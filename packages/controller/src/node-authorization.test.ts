import type { GatewayObject, Namespace, Pod } from "@fairway/kube";
import test from "ava";
import type { Caller } from "./callers.ts";
import { gateway, namespace, pod } from "./fixtures.ts";
import { authorizeIdentity, type NodeFacts, waypointOf } from "./node-authorization.ts";

const caller: Caller = { namespace: "fairway-system", serviceAccount: "ztunnel", podName: "ztunnel-1", podUid: "uid-ztunnel-1" };
const ztunnel = pod("ztunnel-1", { metadata: { namespace: "fairway-system" }, spec: { nodeName: "n1", serviceAccountName: "ztunnel" } });
const enrolled = { "ambient.istio.io/redirection": "enabled" };
const web = "spiffe://cluster.local/ns/shop/sa/web";

function facts(pods: readonly Pod[], namespaces: readonly Namespace[] = [], gateways: readonly GatewayObject[] = []): NodeFacts {
  const all = [ztunnel, ...pods];
  return {
    pod: (of, name) => all.find(({ metadata }) => metadata.namespace === of && metadata.name === name),
    podsOf: (node, of, account) =>
      all.filter(({ metadata, spec }) => metadata.namespace === of && spec?.nodeName === node && spec.serviceAccountName === account),
    namespace: (name) => namespaces.find(({ metadata }) => metadata.name === name),
    gateway: (of, name) => gateways.find(({ metadata }) => metadata.namespace === of && metadata.name === name),
    trustDomain: "cluster.local",
    trustedNodeAccounts: new Set(["fairway-system/ztunnel"]),
  };
}
const webPod = (changes: Parameters<typeof pod>[1] = {}): Pod =>
  pod("web", { ...changes, metadata: { annotations: enrolled, ...changes.metadata }, spec: { nodeName: "n1", serviceAccountName: "web", ...changes.spec } });
const reason = (outcome: ReturnType<typeof authorizeIdentity>): string => (outcome.allowed ? "allowed" : outcome.reason);

test("a node's ztunnel speaks for an enrolled pod of its node", (t) => {
  t.deepEqual(authorizeIdentity(caller, web, facts([webPod()])), { allowed: true, identity: web as never, node: "n1" });
});

test("a ztunnel has its own identity", (t) => {
  t.like(authorizeIdentity(caller, undefined, facts([])), { allowed: true, identity: "spiffe://cluster.local/ns/fairway-system/sa/ztunnel" });
  t.like(authorizeIdentity(caller, "spiffe://cluster.local/ns/fairway-system/sa/ztunnel", facts([])), { allowed: true });
});

const refusals: readonly [string, Caller, string | undefined, NodeFacts, RegExp][] = [
  ["another node's pod", caller, web, facts([webPod({ spec: { nodeName: "n2" } })]), /no pod of shop\/web runs on node n1/],
  ["another service account", caller, web, facts([webPod({ spec: { serviceAccountName: "other" } })]), /no pod of/],
  ["a foreign trust domain", caller, "spiffe://evil/ns/shop/sa/web", facts([webPod()]), /trust domain evil/],
  ["what is no identity", caller, "spiffe://cluster.local/web", facts([webPod()]), /not a SPIFFE identity/],
  [
    "a caller that is no ztunnel",
    { ...caller, serviceAccount: "web", namespace: "shop", podName: "web", podUid: "uid-web" },
    "spiffe://cluster.local/ns/x/sa/y",
    facts([webPod()]),
    /may not speak for/,
  ],
  ["a token of an earlier pod of the same name", { ...caller, podUid: "older" }, web, facts([webPod()]), /another one than the token/],
  ["a token without a pod", { ...caller, podName: undefined, podUid: undefined }, web, facts([webPod()]), /not bound to a pod/],
  ["a pod that is not known", { ...caller, podName: "gone" }, web, facts([webPod()]), /is not known/],
  ["a pod of another service account", { ...caller, serviceAccount: "other" }, web, facts([webPod()]), /does not run as other/],
  ["a host-network pod", caller, web, facts([webPod({ spec: { hostNetwork: true } })]), /uses the host's network/],
  ["a pod that succeeded", caller, web, facts([webPod({ status: { phase: "Succeeded" } })]), /has ended/],
  ["a pod that failed", caller, web, facts([webPod({ status: { phase: "Failed" } })]), /has ended/],
  ["a pod outside the mesh", caller, web, facts([webPod({ metadata: { annotations: {} } })]), /is not enrolled|no pod .* is enrolled/],
  [
    "a pod that opted out of an enrolled namespace",
    caller,
    web,
    facts(
      [webPod({ metadata: { annotations: {}, labels: { "istio.io/dataplane-mode": "none" } } })],
      [namespace("shop", { "istio.io/dataplane-mode": "ambient" })],
    ),
    /is enrolled/,
  ],
];
for (const [title, who, requested, known, expected] of refusals) {
  test(`refused: ${title}`, (t) => {
    t.regex(reason(authorizeIdentity(who, requested, known)), expected);
  });
}

test("a pod that is about to be captured gets its certificate: pending, labelled, or in a labelled namespace", (t) => {
  const ambient = { "istio.io/dataplane-mode": "ambient" };
  t.is(reason(authorizeIdentity(caller, web, facts([webPod({ metadata: { annotations: { "ambient.istio.io/redirection": "pending" } } })]))), "allowed");
  t.is(reason(authorizeIdentity(caller, web, facts([webPod({ metadata: { annotations: {}, labels: ambient } })]))), "allowed");
  t.is(reason(authorizeIdentity(caller, web, facts([webPod({ metadata: { annotations: {} } })], [namespace("shop", ambient)]))), "allowed");
  const sidecar = webPod({ metadata: { annotations: { "sidecar.istio.io/status": "{}" } } });
  t.not(reason(authorizeIdentity(caller, web, facts([sidecar], [namespace("shop", ambient)]))), "allowed");
});

test("who asks for itself must take part in the mesh: a waypoint, a native tunnel, an enrolled pod", (t) => {
  const self: Caller = { namespace: "shop", serviceAccount: "web", podName: "web", podUid: "uid-web" };
  const ask = (changes: Parameters<typeof pod>[1]): string => reason(authorizeIdentity(self, undefined, facts([webPod(changes)])));
  t.is(ask({}), "allowed");
  t.is(ask({ metadata: { annotations: {}, labels: { "gateway.networking.k8s.io/gateway-name": "wp" } } }), "allowed");
  t.is(ask({ metadata: { annotations: {}, labels: { "networking.istio.io/tunnel": "http" } } }), "allowed");
  t.regex(ask({ metadata: { annotations: {} } }), /not part of the mesh/);
  t.regex(ask({ metadata: { annotations: {}, labels: { "networking.istio.io/tunnel": "http" } }, spec: { hostNetwork: true } }), /not part of the mesh/);
});

const waypointLabels = { "gateway.networking.k8s.io/gateway-name": "wp", "gateway.istio.io/managed": "istio.io-mesh-controller" };
const waypointPod = (changes: Parameters<typeof pod>[1] = {}): Pod =>
  pod("wp-1", { ...changes, metadata: { labels: waypointLabels, ...changes.metadata }, spec: { nodeName: "n1", serviceAccountName: "wp", ...changes.spec } });
const waypointCaller: Caller = { namespace: "shop", serviceAccount: "wp", podName: "wp-1", podUid: "uid-wp-1" };

test("a pod that was deployed for a Gateway and runs as its service account is that waypoint", (t) => {
  t.deepEqual(waypointOf(waypointCaller, facts([waypointPod()], [], [gateway("wp")])), { key: "shop/wp" });
  const renamed = gateway("wp", { metadata: { annotations: { "gateway.istio.io/service-account": "edge" } } });
  const edge = waypointPod({ spec: { serviceAccountName: "edge" } });
  t.deepEqual(waypointOf({ ...waypointCaller, serviceAccount: "edge" }, facts([edge], [], [renamed])), { key: "shop/wp" });
});

const noWaypoints: readonly [string, Caller, NodeFacts, RegExp][] = [
  ["a token without a pod", { ...waypointCaller, podName: undefined, podUid: undefined }, facts([waypointPod()], [], [gateway("wp")]), /not bound to a pod/],
  ["a pod without the Gateway's name", waypointCaller, facts([waypointPod({ metadata: { labels: {} } })], [], [gateway("wp")]), /no label .*gateway-name/],
  [
    "a pod that nobody deployed for the Gateway",
    waypointCaller,
    facts([waypointPod({ metadata: { labels: { "gateway.networking.k8s.io/gateway-name": "wp" } } })], [], [gateway("wp")]),
    /no label gateway.istio.io\/managed/,
  ],
  ["a Gateway that does not exist", waypointCaller, facts([waypointPod()]), /Gateway shop\/wp, which does not exist/],
  [
    "a Gateway of another namespace",
    waypointCaller,
    facts([waypointPod()], [], [gateway("wp", { metadata: { namespace: "other" } })]),
    /Gateway shop\/wp, which does not exist/,
  ],
  [
    "a pod with the labels and another service account",
    { ...waypointCaller, serviceAccount: "web" },
    facts([waypointPod({ spec: { serviceAccountName: "web" } })], [], [gateway("wp")]),
    /runs as web; Gateway shop\/wp runs as wp/,
  ],
];
for (const [title, who, known, expected] of noWaypoints) {
  test(`no waypoint: ${title}`, (t) => {
    const outcome = waypointOf(who, known);
    t.regex("refused" in outcome ? outcome.refused : "", expected);
  });
}

test("a waypoint has exactly its own identity", (t) => {
  const known = facts([waypointPod(), webPod()], [], [gateway("wp")]);
  const own = "spiffe://cluster.local/ns/shop/sa/wp";
  t.like(authorizeIdentity(waypointCaller, undefined, known), { allowed: true, identity: own });
  t.like(authorizeIdentity(waypointCaller, own, known), { allowed: true, identity: own });
  for (const other of [web, "spiffe://cluster.local/ns/fairway-system/sa/ztunnel", "spiffe://cluster.local/ns/shop/sa/other"]) {
    t.regex(reason(authorizeIdentity(waypointCaller, other, known)), /shop\/wp may not speak for other identities/);
  }
  const host = facts([waypointPod({ spec: { hostNetwork: true } })], [], [gateway("wp")]);
  t.regex(reason(authorizeIdentity(waypointCaller, undefined, host)), /not part of the mesh/);
});
