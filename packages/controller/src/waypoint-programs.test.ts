import type { HttpRouteObject, RouteParentReference } from "@fairway/kube";
import type { ForwardAction, HttpRoute } from "@fairway/model";
import test from "ava";
import { gateway, grpcRoute, httpRoute, namespace, node, pod, policy, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh, type Mesh } from "./mesh.ts";
import { type WaypointResource, waypointResourceKey } from "./waypoint-resource.ts";

type Kind = WaypointResource["kind"];
const hostname = (name: string, space = "shop"): string => `${name}.${space}.svc.cluster.local`;

function mesh(): { mesh: Mesh; inputs: ReturnType<typeof testInputs> } {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }), namespace("other"), namespace("fairway-system"));
  inputs.gateways.set(gateway("wp"));
  inputs.services.set(service("web"));
  inputs.pods.set(pod("web", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled" } } }));
  return { mesh: deriveMesh(inputs, testSettings), inputs };
}

type Value<K extends Kind> = Extract<WaypointResource, { kind: K }>["value"];

function resource<K extends Kind>(made: Mesh, kind: K, name: string, waypoint = "shop/wp"): Value<K> | undefined {
  return made.programs.resources.get(`${waypoint}|${kind}|${name}`)?.value as Value<K> | undefined;
}

const names = (made: Mesh): readonly string[] => [...made.programs.resources.list()].map(waypointResourceKey).sort();
const tableOf = (made: Mesh, port = 80, name = "web"): readonly HttpRoute[] =>
  resource(made, "routes", `inbound-vip|${port}|http|${hostname(name)}`)?.virtualHosts[0]?.routes ?? [];
const parent: RouteParentReference = { group: "", kind: "Service", name: "web" };
type Rule = NonNullable<NonNullable<HttpRouteObject["spec"]>["rules"]>[number];
const routeTo = (...rules: readonly Rule[]): NonNullable<HttpRouteObject["spec"]> => ({ parentRefs: [parent], rules: [...rules] });
const to = (name: string, extra: object = {}) => ({ name, port: 80, ...extra });
const forward = (route: HttpRoute | undefined): ForwardAction | undefined => (route?.action.kind === "forward" ? route.action : undefined);
const shares = (route: HttpRoute | undefined): unknown =>
  forward(route)?.backends.map(({ cluster, weight }) => [cluster, weight]) ?? (route?.action.kind === "respond" ? route.action.status : route?.action.kind);

test("a bound service is served with its address, its ports, a default route, its cluster and its endpoints", (t) => {
  const { mesh: made } = mesh();
  t.deepEqual(names(made), [
    `shop/wp|cluster|inbound-vip|80|http|${hostname("web")}`,
    `shop/wp|endpoints|inbound-vip|80|http|${hostname("web")}`,
    `shop/wp|routes|inbound-vip|80|http|${hostname("web")}`,
    `shop/wp|target|service/shop/${hostname("web")}`,
  ]);
  t.like(resource(made, "target", `service/shop/${hostname("web")}`), { kind: "service", addresses: ["10.1.0.1"] } as never);
  t.deepEqual(shares(tableOf(made)[0]), [[`inbound-vip|80|http|${hostname("web")}`, 1]]);
  t.deepEqual(resource(made, "endpoints", `inbound-vip|80|http|${hostname("web")}`)?.localities, [
    {
      locality: { region: "", zone: "", subzone: "" },
      priority: 0,
      weight: 1,
      endpoints: [{ address: { ip: "10.0.0.1", port: 8080 }, tunnel: "hbone", workload: "Kubernetes//Pod/shop/web", health: "healthy", weight: 1 }],
    },
  ] as never);
});

test("a port's name or appProtocol says how its bytes are taken", (t) => {
  const { mesh: made, inputs } = mesh();
  const ports = [
    { name: "http", port: 1 },
    { name: "x", port: 2, appProtocol: "kubernetes.io/h2c" },
    { name: "grpc-api", port: 3 },
    { name: "tcp-db", port: 4 },
    { name: "mysql", port: 5 },
    { name: "unnamed", port: 6 },
    { name: "dns", port: 7, protocol: "UDP" },
    { name: "https", port: 8 },
    { name: "y", port: 3306 },
  ];
  inputs.services.set(service("web", { spec: { ports } }));
  const target = resource(made, "target", `service/shop/${hostname("web")}`);
  t.deepEqual(
    target?.ports.map(({ port, protocol }) => [port, protocol]),
    [
      [1, "http"],
      [2, "http"],
      [3, "http"],
      [4, "tcp"],
      [5, "tcp"],
      [6, "detect"],
      [8, "tcp"],
      [3306, "tcp"],
    ],
  );
  const spoken = (port: number, kind: string): unknown => resource(made, "cluster", `inbound-vip|${port}|${kind}|${hostname("web")}`)?.protocol;
  t.deepEqual([spoken(1, "http"), spoken(2, "http"), spoken(3, "http"), spoken(6, "http"), spoken(6, "tcp")], ["http1", "http2", "http2", "same", "same"]);
});

test("an endpoint is healthy or not, leaves when it terminates, and is plain TCP outside the mesh", (t) => {
  const { mesh: made, inputs } = mesh();
  const endpoints = () =>
    resource(made, "endpoints", `inbound-vip|80|http|${hostname("web")}`)?.localities.flatMap((locality) =>
      locality.endpoints.map(({ workload, health, tunnel }) => [workload.split("/").at(-1), health, tunnel]),
    );
  inputs.pods.set(pod("b", { metadata: { labels: { app: "web" } }, status: { podIP: "10.0.0.2", podIPs: [{ ip: "10.0.0.2" }], conditions: [] } }));
  t.deepEqual(endpoints(), [
    ["b", "unhealthy", "none"],
    ["web", "healthy", "hbone"],
  ]);
  inputs.pods.set(pod("web", { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } }));
  t.deepEqual(endpoints(), [["b", "unhealthy", "none"]]);
});

test("endpoints near the waypoint come first where the service prefers near ones, and nowhere else", (t) => {
  const { mesh: made, inputs } = mesh();
  const place = (zone: string, region = "r") => ({ "topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone });
  inputs.nodes.set(node("n1", place("a")), node("n2", place("b")), node("n3", place("a", "far")));
  const at = (name: string, nodeName: string, ip: string, labels: Record<string, string> = { app: "web" }) =>
    pod(name, { metadata: { labels }, spec: { nodeName }, status: { podIP: ip, podIPs: [{ ip }] } });
  inputs.pods.set(at("b", "n2", "10.0.0.2"), at("c", "n3", "10.0.0.3"), at("wp-1", "n2", "10.0.0.9", { "gateway.networking.k8s.io/gateway-name": "wp" }));
  const priorities = () =>
    resource(made, "endpoints", `inbound-vip|80|http|${hostname("web")}`)?.localities.map(({ locality, priority }) => [
      locality.region,
      locality.zone,
      priority,
    ]);
  const alike = [
    ["far", "a", 0],
    ["r", "a", 0],
    ["r", "b", 0],
  ];
  t.deepEqual(priorities(), alike);
  inputs.services.set(service("web", { spec: { trafficDistribution: "PreferClose" } }));
  t.deepEqual(priorities(), [
    ["far", "a", 2],
    ["r", "a", 1],
    ["r", "b", 0],
  ]);
  inputs.pods.set(at("wp-2", "n1", "10.0.0.8", { "gateway.networking.k8s.io/gateway-name": "wp" }));
  t.deepEqual(
    priorities(),
    [
      ["far", "a", 1],
      ["r", "a", 0],
      ["r", "b", 0],
    ],
    "what is near to some of its pods only is not near",
  );
});

test("a pod that changes touches the endpoints of its services only", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("api", { spec: { clusterIPs: ["10.1.0.2"] } }));
  const seen: string[] = [];
  made.programs.resources.subscribe((events) => seen.push(...events.map(({ key }) => key)));
  inputs.pods.set(pod("web", { status: { conditions: [] } }));
  t.deepEqual(seen, [`shop/wp|endpoints|inbound-vip|80|http|${hostname("web")}`]);
});

test("a weighted route splits between services of the waypoint and others, and brings the others' clusters", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("v1"), service("v2", { metadata: { labels: { "istio.io/use-waypoint": "none" } } }));
  inputs.httpRoutes.set(httpRoute("r", routeTo({ backendRefs: [to("v1", { weight: 90 }), to("v2", { weight: 10 }), to("web", { weight: 0 })] })));
  t.deepEqual(shares(tableOf(made)[0]), [
    [`inbound-vip|80|http|${hostname("v1")}`, 90],
    [`outbound|80||${hostname("v2")}`, 10],
  ]);
  t.truthy(resource(made, "cluster", `outbound|80||${hostname("v2")}`));
  t.truthy(resource(made, "endpoints", `outbound|80||${hostname("v2")}`));
  t.falsy(resource(made, "target", `service/shop/${hostname("v2")}`), "what is not bound is not served");
  inputs.httpRoutes.delete("shop/r");
  t.falsy(resource(made, "cluster", `outbound|80||${hostname("v2")}`), "nobody needs it any more");
});

test("a backend that cannot be used answers 500 by its share, or for all when none can", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.httpRoutes.set(httpRoute("r", routeTo({ backendRefs: [to("web", { weight: 1 }), to("gone", { weight: 3 })] })));
  t.deepEqual(shares(tableOf(made)[0]), [
    [`inbound-vip|80|http|${hostname("web")}`, 1],
    ["UnknownService", 3],
  ]);
  for (const backendRefs of [[to("gone")], [], [to("web", { weight: 0 })], [to("web", { port: 81 })], [to("web", { kind: "Bucket" })]]) {
    inputs.httpRoutes.set(httpRoute("r", routeTo({ backendRefs })));
    t.is(shares(tableOf(made)[0]), 500);
  }
});

test("another namespace's backend needs a grant there", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("far", { metadata: { namespace: "other" } }));
  inputs.httpRoutes.set(httpRoute("r", routeTo({ backendRefs: [to("far", { namespace: "other" })] })));
  t.is(shares(tableOf(made)[0]), 500);
  const grant = (from: object, to: object) => ({
    metadata: { name: "g", namespace: "other" },
    spec: {
      from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: "shop", ...from }],
      to: [{ group: "", kind: "Service", ...to }],
    },
  });
  for (const [from, target] of [
    [{ kind: "GRPCRoute" }, {}],
    [{ namespace: "elsewhere" }, {}],
    [{}, { name: "another" }],
  ] as const) {
    inputs.referenceGrants.set(grant(from, target));
    t.is(shares(tableOf(made)[0]), 500);
  }
  inputs.referenceGrants.set(grant({}, { name: "far" }));
  t.deepEqual(shares(tableOf(made)[0]), [[`outbound|80||${hostname("far", "other")}`, 1]]);
  inputs.referenceGrants.delete("other/g");
  t.is(shares(tableOf(made)[0]), 500);
});

test("a route for one port leaves the others at their default", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(
    service("web", {
      spec: {
        ports: [
          { name: "http", port: 80 },
          { name: "http-2", port: 81 },
        ],
      },
    }),
  );
  inputs.httpRoutes.set(httpRoute("r", { parentRefs: [{ ...parent, port: 81 }], rules: [{ name: "mine", backendRefs: [to("web")] }] }));
  t.deepEqual([tableOf(made, 80)[0]?.name, tableOf(made, 81)[0]?.name], ["default", "mine"]);
});

test("routes are merged by specificity, then age, then name", (t) => {
  const { mesh: made, inputs } = mesh();
  const rule = (name: string, value: string, type = "PathPrefix"): Rule => ({ name, matches: [{ path: { type, value } }], backendRefs: [to("web")] });
  inputs.httpRoutes.set(
    httpRoute("b", routeTo(rule("b-old", "/a")), { creationTimestamp: "2025-01-01T00:00:00Z" }),
    httpRoute("a", routeTo(rule("a-new", "/a"), rule("long", "/a/b"), rule("regex", "/.*", "RegularExpression"), rule("exact", "/a", "Exact"))),
  );
  inputs.grpcRoutes.set(
    grpcRoute("g", { parentRefs: [parent], rules: [{ name: "grpc", matches: [{ method: { service: "s", method: "m" } }], backendRefs: [to("web")] }] }),
  );
  t.deepEqual(
    tableOf(made).map(({ name }) => name),
    ["grpc", "exact", "long", "b-old", "a-new", "regex"],
  );
});

test("routes count from the service's namespace and from its waypoint's, not from their clients'", (t) => {
  const { mesh: made, inputs } = mesh();
  const far = { ...parent, namespace: "shop" };
  inputs.httpRoutes.set(httpRoute("consumer", { parentRefs: [far], rules: [{ name: "consumer" }] }, { namespace: "other" }));
  t.is(tableOf(made)[0]?.name, "default");
  inputs.gateways.set(
    gateway("wp", {
      metadata: { namespace: "other" },
      spec: {
        gatewayClassName: "istio-waypoint",
        listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", allowedRoutes: { namespaces: { from: "All" } } }],
      },
    }),
  );
  inputs.services.set(service("web", { metadata: { labels: { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "other" } } }));
  t.is(resource(made, "routes", `inbound-vip|80|http|${hostname("web")}`, "other/wp")?.virtualHosts[0]?.routes[0]?.name, "consumer");
});

test("a waypoint of a service account serves services whose pods all run as it, and pods that are addressed directly", (t) => {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop"));
  inputs.gateways.set(gateway("sa", { metadata: { annotations: { "istio.io/for-service-account": "api" } } }));
  inputs.services.set(service("api", { spec: { selector: { tier: "api" } } }));
  const apiPod = (name: string, account: string, ip: string) =>
    pod(name, { metadata: { labels: { tier: "api" } }, spec: { serviceAccountName: account }, status: { podIP: ip, podIPs: [{ ip }] } });
  inputs.pods.set(apiPod("a", "api", "10.0.0.1"));
  const made = deriveMesh(inputs, testSettings);
  t.truthy(resource(made, "target", `service/shop/${hostname("api")}`, "shop/sa"));
  t.like(resource(made, "target", "workload/Kubernetes//Pod/shop/a", "shop/sa"), {
    kind: "workload",
    addresses: ["10.0.0.1"],
    anyPort: { port: 0, protocol: "detect", routes: "direct-http", tcpBackends: [{ cluster: "encap", weight: 1 }] },
  } as never);
  inputs.pods.set(apiPod("b", "other", "10.0.0.2"));
  t.falsy(resource(made, "target", `service/shop/${hostname("api")}`, "shop/sa"), "another account's pod must not be reached through it");
  t.truthy(resource(made, "target", "workload/Kubernetes//Pod/shop/a", "shop/sa"));
});

test("policies reach the service they name, all services of the gateway they name, and all gateways of a class from the root namespace", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.services.set(service("api", { spec: { clusterIPs: ["10.1.0.2"] } }));
  const group = "gateway.networking.k8s.io";
  inputs.authorizationPolicies.set(
    policy("of-service", { targetRefs: [{ kind: "Service", name: "web" }], rules: [{}] }),
    policy("of-gateway", { targetRefs: [{ kind: "Gateway", group, name: "wp" }], rules: [{}] }),
    policy("of-class", { targetRefs: [{ kind: "GatewayClass", group, name: "istio-waypoint" }], rules: [{}] }, { namespace: "fairway-system" }),
    policy("not-of-class", { targetRefs: [{ kind: "GatewayClass", group, name: "istio-waypoint" }], rules: [{}] }),
    policy("elsewhere", { targetRefs: [{ kind: "Service", name: "web" }], rules: [{}] }, { namespace: "other" }),
    policy("selects", { selector: { matchLabels: { app: "web" } }, rules: [{}] }),
  );
  const of = (name: string): unknown => resource(made, "target", `service/shop/${hostname(name)}`)?.ports[0]?.policies.map((held) => held.name);
  t.deepEqual(of("web"), ["of-class", "of-gateway", "of-service"]);
  t.deepEqual(of("api"), ["of-class", "of-gateway"]);
});

test("a route that cannot be read at all harms no other", (t) => {
  const { mesh: made, inputs } = mesh();
  inputs.referenceGrants.set({ metadata: { name: "odd", namespace: "other" }, spec: { from: [null], to: 3 } } as never);
  inputs.httpRoutes.set(
    httpRoute("odder", { parentRefs: [null, 3, parent], rules: {} } as never),
    httpRoute("oddest", { parentRefs: "web" } as never),
    httpRoute("odd", { parentRefs: [parent], rules: [null, { matches: "x", filters: 3 }] } as never),
    httpRoute("fine", routeTo({ name: "fine", backendRefs: [to("web")] })),
  );
  t.deepEqual(
    tableOf(made).map(({ name }) => name),
    ["fine"],
  );
});
