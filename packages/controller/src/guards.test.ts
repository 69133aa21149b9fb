import { applyChange, authorize, emptySnapshot, parseIp, type SpiffeId, type Verdict } from "@fairway/model";
import test from "ava";
import { gateway, namespace, pod, policy, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh, type Mesh } from "./mesh.ts";

const waypoint = "spiffe://cluster.local/ns/shop/sa/wp" as SpiffeId;
const client = "spiffe://cluster.local/ns/shop/sa/client" as SpiffeId;

function mesh(annotations: { pod?: object; service?: object; namespace?: Record<string, string> } = {}): { mesh: Mesh; inputs: ReturnType<typeof testInputs> } {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }, annotations.namespace));
  inputs.gateways.set(gateway("wp"));
  inputs.services.set(service("web", { metadata: { annotations: { ...annotations.service } } }));
  inputs.pods.set(pod("web", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled", ...annotations.pod } } }));
  return { mesh: deriveMesh(inputs, testSettings), inputs };
}

/** What the pod's ztunnel decides. */
function verdict(made: Mesh, identity: SpiffeId | undefined, port = 8080): Verdict {
  const snapshot = applyChange(emptySnapshot, { workloads: [...made.workloads.list()], policies: [...made.policies.list()] });
  const workload = [...made.workloads.list()].find(({ name }) => name === "web");
  if (workload === undefined) throw new Error("the pod is not known");
  return authorize(snapshot, workload, { source: { ip: parseIp("10.0.0.7"), port: 1 }, destination: { ip: parseIp("10.0.0.1"), port }, identity });
}

const forWeb = { targetRefs: [{ kind: "Service", name: "web" }], rules: [{ to: [{ operation: { methods: ["GET"] } }] }] };
const forGateway = { targetRefs: [{ kind: "Gateway", group: "gateway.networking.k8s.io", name: "wp" }], rules: [{}] };

test("without a request policy nobody is kept out", (t) => {
  t.true(verdict(mesh().mesh, client).allowed);
});

test("where a waypoint enforces a request policy, only it reaches the service's port, and the refusal says where to go", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.authorizationPolicies.set(policy("p", forWeb));
  t.true(verdict(made, waypoint).allowed);
  for (const identity of [client, undefined]) {
    const refused = verdict(made, identity);
    t.false(refused.allowed);
    t.regex(refused.allowed ? "" : refused.message, /explicitly denied by: shop\/must_go_through_waypoint_wp\.shop_[0-9a-f]{8}$/);
  }
  t.true(verdict(made, client, 9090).allowed, "other ports are not the waypoint's");
  inputs.authorizationPolicies.delete("shop/p");
  t.true(verdict(made, client).allowed);
});

test("a policy for the gateway guards what is behind it, a token rule guards as well", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.authorizationPolicies.set(policy("p", forGateway));
  t.false(verdict(made, client).allowed);
  inputs.authorizationPolicies.delete("shop/p");
  inputs.requestAuthentications.set({
    metadata: { name: "jwt", namespace: "shop" },
    spec: { targetRefs: [{ kind: "Service", name: "web" }], jwtRules: [{ issuer: "https://issuer" }] },
  });
  t.false(verdict(made, client).allowed);
});

test("a waypoint for workloads guards every port", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.gateways.set(gateway("wp", { metadata: { labels: { "istio.io/waypoint-for": "workload" } } }));
  inputs.authorizationPolicies.set(policy("p", forGateway));
  t.false(verdict(made, client, 9090).allowed);
  t.true(verdict(made, waypoint, 9090).allowed);
});

test("a waypoint that is required and not there guards as well: what needs it is refused", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.gateways.delete("shop/wp");
  inputs.authorizationPolicies.set(policy("p", forWeb));
  t.false(verdict(made, client).allowed);
});

test("two services on one port, each behind its waypoint: both are let in, nobody else", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.gateways.set(gateway("second"));
  inputs.services.set(service("web-2", { metadata: { labels: { "istio.io/use-waypoint": "second" } }, spec: { selector: { app: "web" } } }));
  inputs.authorizationPolicies.set(policy("p", forWeb), policy("q", { targetRefs: [{ kind: "Service", name: "web-2" }], rules: [{}] }));
  t.true(verdict(made, waypoint).allowed);
  t.true(verdict(made, "spiffe://cluster.local/ns/shop/sa/second" as SpiffeId).allowed);
  t.false(verdict(made, client).allowed);
});

test("what only reports, guards nothing", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.authorizationPolicies.set(policy("a", { ...forWeb, action: "AUDIT" }), policy("d", forWeb, { annotations: { "istio.io/dry-run": "true" } }));
  t.true(verdict(made, client).allowed);
});

const bypass = { "fairway.dev/allow-waypoint-bypass": "true" };
for (const [where, annotations] of [
  ["pod", { pod: bypass }],
  ["service", { service: bypass }],
  ["namespace", { namespace: bypass }],
] as const) {
  test(`an annotation on the ${where} opts out`, (t) => {
    const { mesh: made, inputs } = mesh(annotations);
    inputs.authorizationPolicies.set(policy("p", forWeb));
    t.true(verdict(made, client).allowed);
  });
}

test("pods that are guarded alike share one policy", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.authorizationPolicies.set(policy("p", forWeb));
  for (const name of ["b", "c"]) inputs.pods.set(pod(name, { metadata: { labels: { app: "web" } } }));
  t.is([...made.policies.list()].filter(({ name }) => name.startsWith("must_go_through")).length, 1);
  inputs.pods.delete("shop/web", "shop/b");
  t.is([...made.policies.list()].length, 1, "as long as one of them is there");
  inputs.pods.delete("shop/c");
  t.is([...made.policies.list()].length, 0);
});
