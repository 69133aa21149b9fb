import { type AuthorizationPolicyObject, MutableCollection, resources } from "@fairway/kube";
import { authorizationTypeUrl } from "@fairway/protocol";
import { ManualClock, silentLogger } from "@fairway/runtime";
import test from "ava";
import { FakeKube } from "./fake-kube.ts";
import { gateway, peerAuthentication, policy, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";
import { type Rejection, rejectionKey } from "./rejections.ts";
import { writeStatus } from "./status.ts";

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

function setUp() {
  const kube = new FakeKube();
  const inputs = {
    ...testInputs(),
    authorizationPolicies: kube.store(resources.authorizationPolicies),
    services: kube.store(resources.services),
    peerAuthentications: kube.store(resources.peerAuthentications),
    requestAuthentications: kube.store(resources.requestAuthentications),
    httpRoutes: kube.store(resources.httpRoutes),
    grpcRoutes: kube.store(resources.grpcRoutes),
  };
  const rejections = new MutableCollection<Rejection>(rejectionKey);
  const leading = new AbortController();
  const run = () =>
    writeStatus(
      {
        client: kube,
        inputs,
        mesh: deriveMesh(inputs, testSettings),
        rejections,
        rootNamespace: "fairway-system",
        clock: new ManualClock(),
        log: silentLogger,
      },
      leading.signal,
    );
  const conditions = (object: { status?: AuthorizationPolicyObject["status"] } | undefined): unknown =>
    (object?.status?.conditions ?? []).map(({ type, status, reason, observedGeneration }) => [type, status, reason, observedGeneration]);
  return { kube, inputs, rejections, leading, run, conditions };
}

test("a policy's author reads what became of it, once per generation", async (t) => {
  const { kube, leading, run, conditions } = setUp();
  kube.set(resources.authorizationPolicies, policy("p", { rules: [{}] }, { generation: 1 }));
  const running = run();
  await settle();
  const written = (): unknown => conditions(kube.store(resources.authorizationPolicies).get("shop/p"));
  t.deepEqual(written(), [["ZtunnelAccepted", "True", "Accepted", 1]]);
  t.is(kube.writes.length, 1);
  t.like(kube.writes[0], { verb: "apply", subresource: "status" });
  kube.set(resources.authorizationPolicies, { ...policy("p", { action: "AUDIT" }, { generation: 2 }) });
  await settle();
  t.deepEqual(written(), [["ZtunnelAccepted", "False", "UnsupportedValue", 2]]);
  leading.abort();
  await running;
});

test("what a ztunnel rejects surfaces on the policy, and goes when it is accepted", async (t) => {
  const { kube, rejections, leading, run, conditions } = setUp();
  kube.set(resources.authorizationPolicies, policy("p", { rules: [{}] }, { generation: 1 }));
  const running = run();
  rejections.set({ typeUrl: authorizationTypeUrl, waypoint: undefined, name: "shop/p", message: "I do not understand", proxies: 2 });
  await settle();
  t.deepEqual(conditions(kube.store(resources.authorizationPolicies).get("shop/p")), [["ZtunnelAccepted", "False", "Rejected", 1]]);
  rejections.delete("shop/p");
  await settle();
  t.deepEqual(conditions(kube.store(resources.authorizationPolicies).get("shop/p")), [["ZtunnelAccepted", "True", "Accepted", 1]]);
  leading.abort();
  await running;
});

test("a PeerAuthentication that cannot be read says so, and nothing once it can", async (t) => {
  const { kube, leading, run, conditions } = setUp();
  kube.set(resources.peerAuthentications, peerAuthentication("p", { mlts: { mode: "STRICT" } } as never, { generation: 1 }));
  kube.set(resources.peerAuthentications, peerAuthentication("fine", { mtls: { mode: "STRICT" } }, { generation: 1 }));
  const running = run();
  await settle();
  const written = (): unknown => conditions(kube.store(resources.peerAuthentications).get("shop/p"));
  t.deepEqual(written(), [["ZtunnelAccepted", "False", "Invalid", 1]]);
  const { status } = kube.store(resources.peerAuthentications).get("shop/p") ?? {};
  kube.set(resources.peerAuthentications, { ...peerAuthentication("p", { mtls: { mode: "STRICT" } }, { generation: 2 }), ...(status && { status }) });
  await settle();
  t.deepEqual(written(), []);
  t.deepEqual([...new Set(kube.writes.map(({ key }) => key))], ["shop/p"], "a readable one is left alone, as the reference leaves it");
  leading.abort();
  await running;
});

test("a service says whether its waypoint is there; services without one are left alone", async (t) => {
  const { kube, inputs, leading, run, conditions } = setUp();
  kube.set(resources.services, service("web", { metadata: { labels: { "istio.io/use-waypoint": "wp" } } }));
  kube.set(resources.services, service("other"));
  const running = run();
  await settle();
  t.deepEqual(conditions(kube.store(resources.services).get("shop/web")), [["istio.io/WaypointBound", "False", "WaypointIsNotReady", undefined]]);
  inputs.gateways.set(gateway("wp"));
  await settle();
  t.deepEqual(conditions(kube.store(resources.services).get("shop/web")), [["istio.io/WaypointBound", "True", "WaypointAccepted", undefined]]);
  t.deepEqual([...new Set(kube.writes.map(({ key }) => key))], ["shop/web"]);
  kube.set(resources.services, { ...service("web"), status: { conditions: [{ type: "istio.io/WaypointBound", status: "True" }] } });
  await settle();
  t.deepEqual(conditions(kube.store(resources.services).get("shop/web")), [], "no label, no condition");
  leading.abort();
  await running;
});
