import { type HttpRouteObject, MutableCollection, type RouteParentReference, resources } from "@fairway/kube";
import { clusterTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { ManualClock, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { FakeKube } from "./fake-kube.ts";
import { gateway, grpcRoute, httpRoute, namespace, policy, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";
import { type Rejection, rejectionKey } from "./rejections.ts";
import { writeStatus } from "./status.ts";
import { controllerName } from "./waypoint-classes.ts";

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10));
const parent: RouteParentReference = { group: "", kind: "Service", name: "web" };
type Spec = NonNullable<HttpRouteObject["spec"]>;
type Rule = NonNullable<Spec["rules"]>[number];
const backend = { name: "web", port: 80 };

async function mesh(t: ExecutionContext) {
  const kube = new FakeKube();
  const inputs = {
    ...testInputs(),
    httpRoutes: kube.store(resources.httpRoutes),
    grpcRoutes: kube.store(resources.grpcRoutes),
    authorizationPolicies: kube.store(resources.authorizationPolicies),
  };
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }), namespace("other"));
  inputs.gateways.set(gateway("wp"));
  inputs.gatewayClasses.set({ metadata: { name: "istio-waypoint" }, spec: { controllerName } });
  inputs.services.set(service("web"));
  const rejections = new MutableCollection<Rejection>(rejectionKey);
  const leading = new AbortController();
  const running = writeStatus(
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
  t.teardown(async () => {
    leading.abort();
    await running;
  });
  const parents = (key: string) => kube.store(resources.httpRoutes).get(key)?.status?.parents ?? [];
  const said = (key = "shop/r", index = 0): unknown => parents(key)[index]?.conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`);
  const told = async (spec: Spec, metadata: Parameters<typeof httpRoute>[2] = {}): Promise<unknown> => {
    kube.set(resources.httpRoutes, httpRoute("r", spec, { generation: 1, ...metadata }));
    await settle();
    return said(`${metadata.namespace ?? "shop"}/r`);
  };
  return { kube, inputs, rejections, parents, said, told };
}

const fine = ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", "ResolvedWaypoints=True ResolvedWaypoints"];

test("a route that counts says so, per parent, with our name, and once", async (t) => {
  const { kube, told, parents } = await mesh(t);
  t.deepEqual(await told({ parentRefs: [parent], rules: [{ backendRefs: [backend] }] }), fine);
  t.like(parents("shop/r")[0], { controllerName, parentRef: parent });
  t.is(parents("shop/r")[0]?.conditions[0]?.observedGeneration, 1);
  const writes = kube.writes.filter(({ type }) => type === "httproutes");
  t.is(writes.length, 1);
  t.like(writes[0], { verb: "patch", subresource: "status" });
});

test("entries of other controllers stay as they are, and ours go with their parent", async (t) => {
  const { kube, parents } = await mesh(t);
  const theirs = { parentRef: { name: "gw" }, controllerName: "example.com/other", conditions: [] };
  const route = httpRoute("r", { parentRefs: [{ name: "gw" }, parent], rules: [{ backendRefs: [backend] }] });
  const stored = kube.set(resources.httpRoutes, { ...route, status: { parents: [theirs] } });
  await settle();
  t.deepEqual(
    parents("shop/r").map(({ controllerName: name }) => name),
    ["example.com/other", controllerName],
  );
  kube.set(resources.httpRoutes, { ...stored, spec: { parentRefs: [{ name: "gw" }] }, status: { parents: [...parents("shop/r")] } });
  await settle();
  t.deepEqual(parents("shop/r"), [theirs]);
});

test("two parents are told apart by their port", async (t) => {
  const { told, said } = await mesh(t);
  await told({
    parentRefs: [
      { ...parent, port: 80 },
      { ...parent, port: 81 },
    ],
    rules: [{ backendRefs: [backend] }],
  });
  t.deepEqual(said("shop/r", 0), fine);
  t.deepEqual(said("shop/r", 1), ["Accepted=False NoMatchingParent", "ResolvedRefs=True ResolvedRefs"]);
});

const rule = (changes: Partial<Rule>): Spec => ({ parentRefs: [parent], rules: [{ backendRefs: [backend], ...changes }] });
const broken = "PartiallyInvalid=True UnsupportedValue";
const refused: readonly [string, Spec, string][] = [
  ["a Service that is not there", { parentRefs: [{ ...parent, name: "gone" }], rules: [{ backendRefs: [backend] }] }, "Accepted=False NoMatchingParent"],
  ["a pattern that cannot be compiled", rule({ matches: [{ path: { type: "RegularExpression", value: "/(" } }] }), "Accepted=False UnsupportedValue"],
  [
    "a pattern that backtracks",
    rule({ matches: [{ headers: [{ type: "RegularExpression", name: "x", value: "(a)\\1" }] }] }),
    "Accepted=False UnsupportedValue",
  ],
  ["a path that is none", rule({ matches: [{ path: { type: "Exact", value: "/a/../b" } }] }), "Accepted=False UnsupportedValue"],
  ["a method that is none", rule({ matches: [{ method: "BREW" }] }), "Accepted=False UnsupportedValue"],
  ["a weight below nothing", rule({ backendRefs: [{ ...backend, weight: -1 }] }), "Accepted=False UnsupportedValue"],
  ["a weight that is no whole number", rule({ backendRefs: [{ ...backend, weight: 0.5 }] }), "Accepted=False UnsupportedValue"],
  ["a timeout that is no duration", rule({ timeouts: { request: "soon" } }), "Accepted=False UnsupportedValue"],
  ["a backoff that is no duration", rule({ retry: { backoff: "-1s" } }), "Accepted=False UnsupportedValue"],
  ["a retry on success", rule({ retry: { codes: [200] } }), "Accepted=False UnsupportedValue"],
  [
    "a header value with a line break",
    rule({ filters: [{ type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "x", value: "a\r\nb" }] } }] }),
    "Accepted=False UnsupportedValue",
  ],
  [
    "a redirect that is also a rewrite",
    rule({
      filters: [
        { type: "RequestRedirect", requestRedirect: {} },
        { type: "URLRewrite", urlRewrite: {} },
      ],
    }),
    "Accepted=False IncompatibleFilters",
  ],
  [
    "a prefix to replace where none was matched",
    rule({
      matches: [{ path: { type: "Exact", value: "/a" } }],
      filters: [{ type: "URLRewrite", urlRewrite: { path: { type: "ReplacePrefixMatch", replacePrefixMatch: "/b" } } }],
    }),
    "Accepted=False UnsupportedValue",
  ],
  ["a backend that is not there", rule({ backendRefs: [{ name: "gone", port: 80 }] }), "ResolvedRefs=False BackendNotFound"],
  ["a port that the backend does not have", rule({ backendRefs: [{ name: "web", port: 81 }] }), "ResolvedRefs=False BackendNotFound"],
  ["a backend without a port", rule({ backendRefs: [{ name: "web" }] }), "ResolvedRefs=False InvalidDestination"],
  ["a backend that is a hostname", rule({ backendRefs: [{ name: "web.shop", port: 80 }] }), "ResolvedRefs=False InvalidDestination"],
  ["a backend of another kind", rule({ backendRefs: [{ kind: "Bucket", name: "web", port: 80 }] }), "ResolvedRefs=False InvalidKind"],
  ["a backend of another namespace without a grant", rule({ backendRefs: [{ ...backend, namespace: "other" }] }), "ResolvedRefs=False RefNotPermitted"],
  [
    "a mirror that is not there",
    rule({ filters: [{ type: "RequestMirror", requestMirror: { backendRef: { name: "gone", port: 1 } } }] }),
    "ResolvedRefs=False BackendNotFound",
  ],
  ["a filter that is not supported", rule({ filters: [{ type: "ExtensionRef" }] }), "ResolvedRefs=False InvalidFilter"],
  ["a rewrite at a backend", rule({ backendRefs: [{ ...backend, filters: [{ type: "URLRewrite" }] }] }), "ResolvedRefs=False InvalidFilter"],
  ["rules that are none", { parentRefs: [parent], rules: "all" } as never, "Accepted=False UnsupportedValue"],
];
for (const [title, spec, reason] of refused) {
  test(`a route with ${title} reads why: ${reason}`, async (t) => {
    const { told } = await mesh(t);
    const conditions = (await told(spec)) as readonly string[];
    t.true(conditions.includes(reason), String(conditions));
  });
}

test("a rule that cannot be read leaves the others alone, and the author reads which", async (t) => {
  const { told, parents } = await mesh(t);
  const spec: Spec = { parentRefs: [parent], rules: [{ backendRefs: [backend] }, { matches: [{ path: { type: "RegularExpression", value: "(" } }] }] };
  t.deepEqual(await told(spec), ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", broken, "ResolvedWaypoints=True ResolvedWaypoints"]);
  t.regex(parents("shop/r")[0]?.conditions[2]?.message ?? "", /spec\.rules\[1\]\.matches\[0\]/);
});

test("a route of a client's namespace is told where routes of the Service belong", async (t) => {
  const { told } = await mesh(t);
  const spec: Spec = { parentRefs: [{ ...parent, namespace: "shop" }], rules: [{}] };
  t.deepEqual(await told(spec, { namespace: "other" }), ["Accepted=False NotAllowedByListeners", "ResolvedRefs=True ResolvedRefs"]);
});

test("a parent without a waypoint is accepted, with a warning; a waypoint of others is theirs to speak about", async (t) => {
  const { inputs, told, said } = await mesh(t);
  inputs.namespaces.set(namespace("shop"));
  const spec: Spec = { parentRefs: [parent], rules: [{ backendRefs: [backend] }] };
  t.deepEqual(await told(spec), ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", "ResolvedWaypoints=False ResolvedWaypoints"]);
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }));
  inputs.gatewayClasses.set({ metadata: { name: "istio-waypoint" }, spec: { controllerName: "example.com/other" } });
  await settle();
  t.is(said(), undefined);
});

test("what a waypoint rejects is said on the routes of that table, and goes when it is accepted", async (t) => {
  const { rejections, told, said } = await mesh(t);
  await told({ parentRefs: [parent], rules: [{ backendRefs: [backend] }] });
  const name = "inbound-vip|80|http|web.shop.svc.cluster.local";
  rejections.set({ typeUrl: clusterTypeUrl, waypoint: "shop/wp", name, message: "m", proxies: 1 });
  await settle();
  t.deepEqual(said(), fine);
  rejections.set({ typeUrl: routeTypeUrl, waypoint: "shop/wp", name, message: "m", proxies: 1 });
  await settle();
  t.deepEqual(said(), ["Accepted=False Rejected", "ResolvedRefs=True ResolvedRefs"]);
  rejections.delete(`shop/wp|routes|${name}`);
  await settle();
  t.deepEqual(said(), fine);
});

test("what a waypoint rejects is said on the policies that it carries, and on no others", async (t) => {
  const { kube, inputs, rejections } = await mesh(t);
  const target = (name: string) => ({ targetRefs: [{ kind: "Service", name }], rules: [{}] });
  inputs.services.set(service("api"));
  kube.set(resources.authorizationPolicies, policy("p", target("web")));
  kube.set(resources.authorizationPolicies, policy("q", target("api")));
  const name = "service/shop/web.shop.svc.cluster.local";
  rejections.set({ typeUrl: listenerTypeUrl, waypoint: "shop/wp", name, message: "no such field", proxies: 2 });
  await settle();
  const condition = (key: string) => kube.store(resources.authorizationPolicies).get(key)?.status?.conditions?.[0];
  t.like(condition("shop/p"), { type: "WaypointAccepted", status: "False", reason: "Rejected" });
  t.regex(condition("shop/p")?.message ?? "", /shop\/wp \(2 of its pods\).*no such field/);
  t.like(condition("shop/q"), { status: "True", reason: "Accepted" });
});

test("a GRPCRoute is told in its own status", async (t) => {
  const { kube } = await mesh(t);
  const route = grpcRoute("g", { parentRefs: [parent], rules: [{ matches: [{ method: { type: "Exact", service: "not a name" } }], backendRefs: [backend] }] });
  kube.set(resources.grpcRoutes, route);
  await settle();
  t.like(kube.store(resources.grpcRoutes).get("shop/g")?.status?.parents?.[0]?.conditions[0], {
    type: "Accepted",
    status: "False",
    reason: "UnsupportedValue",
  });
});
