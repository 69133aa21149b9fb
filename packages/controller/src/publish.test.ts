import { decodeAddress, decodeAuthorization } from "@fairway/protocol";
import { createRegistry, silentLogger, systemClock } from "@fairway/runtime";
import test from "ava";
import { peerAuthentication, pod, policy, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";
import { createControllerMetrics } from "./metrics.ts";
import { publish } from "./publish.ts";

const noWaypoints = { open: () => ({ sources: [], [Symbol.dispose]: () => undefined }) };

function setUp() {
  const inputs = testInputs();
  inputs.pods.set(pod("web"), pod("api", { status: { podIP: "10.0.0.2", podIPs: [{ ip: "10.0.0.2" }] } }));
  inputs.services.set(service("web"));
  inputs.authorizationPolicies.set(policy("p", { selector: { matchLabels: { app: "web" } }, rules: [{}] }));
  const mesh = deriveMesh(inputs, testSettings);
  const publication = publish({ mesh, waypoints: noWaypoints, log: silentLogger, metrics: createControllerMetrics(createRegistry(), systemClock) });
  const { sources } = publication.openScope({ kind: "node" });
  const [authorizations, addresses] = sources;
  if (authorizations === undefined || addresses === undefined) throw new Error("two sources are expected");
  const changed: string[] = [];
  authorizations.subscribe((names) => changed.push(...names));
  addresses.subscribe((names) => changed.push(...names));
  return { inputs, authorizations, addresses, changed, sources };
}

test("everything is there from the start, under its name and its other names", (t) => {
  const { authorizations, addresses } = setUp();
  t.deepEqual([...addresses.all()].map(({ name }) => name).sort(), ["Kubernetes//Pod/shop/api", "Kubernetes//Pod/shop/web", "shop/web.shop.svc.cluster.local"]);
  t.is(addresses.get("/10.0.0.2")?.name, "Kubernetes//Pod/shop/api");
  t.is(addresses.get("/10.1.0.1")?.name, "shop/web.shop.svc.cluster.local");
  const web = addresses.get("Kubernetes//Pod/shop/web");
  const decoded = decodeAddress(web?.body ?? new Uint8Array());
  t.deepEqual(decoded.kind === "workload" ? decoded.workload.authorizationPolicies : undefined, ["shop/p" as never]);
  t.is(decodeAuthorization(authorizations.get("shop/p")?.body ?? new Uint8Array()).action, "allow");
});

test("one object's change touches only its own resources, and what says the same touches none", (t) => {
  const { inputs, changed } = setUp();
  inputs.pods.set(pod("web", { metadata: { resourceVersion: "2" } }));
  t.deepEqual(changed, []);
  inputs.pods.set(pod("web", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled" } } }));
  t.deepEqual(changed, ["Kubernetes//Pod/shop/web"]);
  changed.length = 0;
  inputs.pods.delete("shop/api");
  t.deepEqual(changed, ["Kubernetes//Pod/shop/api"]);
});

test("a service that becomes an ExternalName leaves, and with it the membership of its pods", (t) => {
  const { inputs, addresses, changed } = setUp();
  inputs.services.set(service("web", { spec: { type: "ExternalName", externalName: "example.com" } }));
  t.is(addresses.get("shop/web.shop.svc.cluster.local"), undefined);
  t.deepEqual([...new Set(changed)].sort(), ["Kubernetes//Pod/shop/web", "shop/web.shop.svc.cluster.local"]);
});

test("a policy and the workloads that refer to it change in the same moment, policies being the first source", (t) => {
  const { inputs, authorizations, addresses, sources } = setUp();
  t.is(sources[0]?.typeUrl, "type.googleapis.com/istio.security.Authorization");
  inputs.peerAuthentications.set(peerAuthentication("default", { mtls: { mode: "STRICT" } }));
  t.truthy(authorizations.get("fairway-system/istio_converted_static_strict"));
  const decoded = decodeAddress(addresses.get("Kubernetes//Pod/shop/api")?.body ?? new Uint8Array());
  t.deepEqual(decoded.kind === "workload" ? decoded.workload.authorizationPolicies : undefined, ["fairway-system/istio_converted_static_strict" as never]);
});

test("a trust domain of one's own is on the wire", (t) => {
  const inputs = testInputs();
  inputs.pods.set(pod("web"));
  const mesh = deriveMesh(inputs, { ...testSettings, trustDomain: "example.org" });
  const publication = publish({ mesh, waypoints: noWaypoints, log: silentLogger, metrics: createControllerMetrics(createRegistry(), systemClock) });
  const { sources } = publication.openScope({ kind: "node" });
  const decoded = decodeAddress(sources[1]?.get("Kubernetes//Pod/shop/web")?.body ?? new Uint8Array());
  t.is(decoded.kind === "workload" ? decoded.workload.trustDomain : undefined, "example.org");
});
