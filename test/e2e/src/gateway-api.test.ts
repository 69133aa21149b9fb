/** The mesh behaviours of the Gateway API's conformance suite that a waypoint covers, one test each, named as there (controller contract 5.6). */
import { readFile } from "node:fs/promises";
import { type KubeObject, parseManifests, type ResourceType, resources } from "@fairway/kube";
import { checkoutFile } from "@fairway/local-cluster";
import test, { type ExecutionContext } from "ava";
import { appOf, echoed, fetchFrom, grpcFrom, grpcPort, raiseEcho, raiseWaypoint, removeAll, route, untilStatus } from "./echo-apps.ts";
import type { Fetched } from "./echo-client.ts";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh } from "./mesh.ts";

const namespace = "mesh";
const client = { namespace, name: "client" };
const routeTypes: readonly ResourceType<Route>[] = (["HTTPRoute", "GRPCRoute"] as const).map((kind) => ({
  group: "gateway.networking.k8s.io",
  version: "v1",
  plural: `${kind.toLowerCase()}s`,
  kind,
  namespaced: true,
}));
let mesh: Mesh;

interface Route extends KubeObject {
  status?: { parents?: { controllerName: string; conditions: { type: string; status: string; reason: string }[] }[] };
}

const v1 = (port = 80): object => ({ name: "echo-v1-http", port });
const v2 = (port = 80): object => ({ name: "echo-v2-http", port });

/** Applies a route and waits until it is accepted and its references are resolved. */
async function applied(object: object): Promise<void> {
  await mesh.apply([object]);
  const { kind, metadata } = object as { kind: string; metadata: { name: string } };
  const type = routeTypes.find((candidate) => candidate.kind === kind);
  if (type === undefined) throw new Error(`no route type ${kind}`);
  await eventually(`${kind} ${metadata.name} accepted`, async () => {
    const conditions = (await mesh.cluster.client.get(type, metadata.name, namespace)).status?.parents?.[0]?.conditions ?? [];
    const holds = (wanted: string): boolean => conditions.some(({ type: name, status }) => name === wanted && status === "True");
    return holds("Accepted") && holds("ResolvedRefs") ? true : undefined;
  });
}

const http = (name: string, rules: readonly object[], parent: Parameters<typeof route>[3] = "echo"): Promise<void> =>
  applied(route("HTTPRoute", namespace, name, parent, rules));

/** Fetches until the answer passes `check`; the last answer is part of the failure. */
async function until(t: ExecutionContext, url: string, check: (answer: Fetched) => boolean, options: Parameters<typeof fetchFrom>[3] = {}): Promise<Fetched> {
  let last: Fetched | undefined;
  try {
    return await eventually(url, async () => {
      last = await fetchFrom(mesh, client, url, options);
      return check(last) ? last : undefined;
    });
  } catch (thrown) {
    t.log(last);
    throw thrown;
  }
}

const from =
  (app: string) =>
  (answer: Fetched): boolean =>
    answer.status === 200 && appOf(echoed(answer)) === app;

/** Fetches until two dozen answers are all the app's: one may be so by chance, and each thread of the waypoint hears of a route by itself. */
async function untilOnly(url: string, app: string): Promise<void> {
  await eventually(`answers of ${app} alone from ${url}`, async () => {
    const { statuses, apps } = await mesh.act<{ statuses: Record<string, number>; apps: Record<string, number> }>(client, "fetch-many", url, 24);
    return statuses[200] === 24 && apps[app] === 24 ? true : undefined;
  });
}

test.before(async () => {
  mesh = await Mesh.raise("ga");
  await mesh.namespace(namespace, { enrolled: true });
  await Promise.all([mesh.app({ ...client, node: 1 }), raiseEcho(mesh, namespace, "echo")]);
  await raiseWaypoint(mesh, namespace, "--enroll-namespace");
  await untilStatus(mesh, client, "http://echo/", 200);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));
test.afterEach.always(() => removeAll(mesh, routeTypes, namespace));

test.serial("MeshBasic: without routes a client reaches the service", async (t) => {
  t.is((await fetchFrom(mesh, client, "http://echo/")).status, 200);
});

test.serial("MeshTrafficSplit and MeshHTTPRouteSimpleSameNamespace: paths go to the backends of their rules", async (t) => {
  await http("split", [
    { matches: [{ path: { type: "PathPrefix", value: "/v1" } }], backendRefs: [v1()] },
    { matches: [{ path: { type: "PathPrefix", value: "/v2" } }], backendRefs: [v2()] },
  ]);
  await untilOnly("http://echo/v1", "echo-v1");
  await untilOnly("http://echo/v2/deeper", "echo-v2");
  t.is((await fetchFrom(mesh, client, "http://echo/v3")).status, 404);
});

test.serial("MeshPorts: a route with a port concerns that port alone", async (t) => {
  const filters = [{ type: "ResponseHeaderModifier", responseHeaderModifier: { set: [{ name: "x-route", value: "8080" }] } }];
  await http("port", [{ filters, backendRefs: [v1(8080)] }], { name: "echo", port: 8080 });
  await until(t, "http://echo:8080/", ({ headers }) => headers["x-route"] === "8080");
  t.is((await fetchFrom(mesh, client, "http://echo/")).headers["x-route"], undefined);
});

test.serial("MeshFrontend: a route holds for the service, not for a pod that is addressed directly", async (t) => {
  const filters = [{ type: "ResponseHeaderModifier", responseHeaderModifier: { set: [{ name: "x-route", value: "service" }] } }];
  await http("frontend", [{ filters, backendRefs: [v2()] }]);
  await until(t, "http://echo/", ({ headers }) => headers["x-route"] === "service");
  const { v4 } = await mesh.addresses(namespace, "echo-v1");
  const direct = await fetchFrom(mesh, client, `http://${v4}:8081/`);
  t.is(direct.status, 200);
  t.is(direct.headers["x-route"], undefined);
});

test.serial("MeshFrontendHostname: the address decides, not the Host header", async (t) => {
  const filters = [{ type: "ResponseHeaderModifier", responseHeaderModifier: { set: [{ name: "x-route", value: "address" }] } }];
  await http("hostname", [{ filters, backendRefs: [v1()] }]);
  await until(t, "http://echo/", ({ headers, status }) => status === 200 && headers["x-route"] === "address", { headers: { host: "other.example" } });
  t.is((await fetchFrom(mesh, client, "http://echo-v2-http/", { headers: { host: "echo" } })).headers["x-route"], undefined);
});

test.serial("MeshHTTPRouteMatching: path, header and their precedence", async (t) => {
  await http("matching", [
    { matches: [{ path: { type: "PathPrefix", value: "/" } }], backendRefs: [v1()] },
    { matches: [{ headers: [{ name: "version", value: "two" }] }], backendRefs: [v2()] },
    { matches: [{ path: { type: "PathPrefix", value: "/v2" } }], backendRefs: [v2()] },
    { matches: [{ path: { type: "Exact", value: "/v2/exact" } }], backendRefs: [v1()] },
    { matches: [{ path: { type: "RegularExpression", value: "/regex/[0-9]+" }, method: "POST" }], backendRefs: [v2()] },
  ]);
  await untilOnly("http://echo/v2", "echo-v2");
  const app = async (path: string, options: Parameters<typeof fetchFrom>[3] = {}): Promise<string> =>
    appOf(echoed(await fetchFrom(mesh, client, `http://echo${path}`, options)));
  t.is(await app("/"), "echo-v1");
  t.is(await app("/", { headers: { version: "two" } }), "echo-v2");
  t.is(await app("/", { headers: { version: "twofold" } }), "echo-v1");
  t.is(await app("/v2example"), "echo-v1");
  t.is(await app("/v2/example"), "echo-v2");
  t.is(await app("/v2/exact"), "echo-v1");
});

test.serial("MeshHTTPRouteQueryParamMatching: exact and by pattern", async (t) => {
  await http("query", [
    { matches: [{ queryParams: [{ name: "animal", value: "whale" }] }], backendRefs: [v1()] },
    { matches: [{ queryParams: [{ name: "animal", value: "dol.*", type: "RegularExpression" }] }], backendRefs: [v2()] },
  ]);
  await untilOnly("http://echo/?animal=whale", "echo-v1");
  await untilOnly("http://echo/?other=1&animal=dolphin", "echo-v2");
  t.is((await fetchFrom(mesh, client, "http://echo/?animal=shark")).status, 404);
});

test.serial("MeshHTTPRouteNamedRule: rules may have names", async (t) => {
  await http("named", [{ name: "first", matches: [{ path: { type: "PathPrefix", value: "/named" } }], backendRefs: [v1()] }, { backendRefs: [v2()] }]);
  await untilOnly("http://echo/named", "echo-v1");
  await untilOnly("http://echo/", "echo-v2");
  t.pass();
});

test.serial("MeshHTTPRouteWeight: backends are taken by weight, and one of weight 0 never", async (t) => {
  await http("weight", [
    {
      matches: [{ path: { type: "PathPrefix", value: "/zero" } }],
      backendRefs: [
        { ...v1(), weight: 0 },
        { ...v2(), weight: 10 },
      ],
    },
    {
      backendRefs: [
        { ...v1(), weight: 70 },
        { ...v2(), weight: 30 },
      ],
    },
  ]);
  await untilOnly("http://echo/zero", "echo-v2");
  const { apps } = await mesh.act<{ apps: Record<string, number> }>(client, "fetch-many", "http://echo/", 1_000);
  // Five standard deviations of a binomial split.
  t.true(Math.abs((apps["echo-v1"] ?? 0) - 700) < 73, JSON.stringify(apps));
  t.is((apps["echo-v1"] ?? 0) + (apps["echo-v2"] ?? 0), 1_000);
  const zero = await mesh.act<{ apps: Record<string, number> }>(client, "fetch-many", "http://echo/zero", 200);
  t.deepEqual(zero.apps, { "echo-v2": 200 });
});

test.serial("MeshHTTPRouteRequestHeaderModifier: set, add and remove", async (t) => {
  const requestHeaderModifier = { set: [{ name: "X-Set", value: "set" }], add: [{ name: "X-Add", value: "added" }], remove: ["X-Remove"] };
  await http("request-headers", [{ filters: [{ type: "RequestHeaderModifier", requestHeaderModifier }], backendRefs: [v1()] }]);
  const headers = { "x-set": "before", "x-add": "first", "x-remove": "gone", "x-kept": "kept" };
  const answer = await until(t, "http://echo/", (one) => one.status === 200 && echoed(one).headers["x-set"] === "set", { headers });
  t.like(echoed(answer).headers, { "x-set": "set", "x-add": "first, added", "x-kept": "kept" });
  t.is(echoed(answer).headers["x-remove"], undefined);
});

test.serial("MeshHTTPRouteBackendRequestHeaderModifier: only for requests to that backend", async (t) => {
  const filters = [{ type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "x-backend", value: "one" }] } }];
  await http("backend-headers", [
    { matches: [{ path: { type: "PathPrefix", value: "/v1" } }], backendRefs: [{ ...v1(), filters }] },
    { matches: [{ path: { type: "PathPrefix", value: "/v2" } }], backendRefs: [v2()] },
  ]);
  await until(t, "http://echo/v1", (one) => one.status === 200 && echoed(one).headers["x-backend"] === "one");
  t.is(echoed(await until(t, "http://echo/v2", from("echo-v2"))).headers["x-backend"], undefined);
});

test.serial("MeshHTTPRouteRewritePath: full path, prefix and host", async (t) => {
  const rewrite = (urlRewrite: object): object[] => [{ type: "URLRewrite", urlRewrite }];
  await http("rewrite", [
    {
      matches: [{ path: { type: "PathPrefix", value: "/full" } }],
      filters: rewrite({ path: { type: "ReplaceFullPath", replaceFullPath: "/one" } }),
      backendRefs: [v1()],
    },
    {
      matches: [{ path: { type: "PathPrefix", value: "/prefix/one" } }],
      filters: rewrite({ path: { type: "ReplacePrefixMatch", replacePrefixMatch: "/two" } }),
      backendRefs: [v1()],
    },
    { matches: [{ path: { type: "PathPrefix", value: "/host" } }], filters: rewrite({ hostname: "rewritten.example" }), backendRefs: [v1()] },
  ]);
  await untilOnly("http://echo/full", "echo-v1");
  const seen = async (path: string): Promise<{ path: string; host: string }> => echoed(await until(t, `http://echo${path}`, from("echo-v1")));
  t.is((await seen("/full/deep?q=1")).path, "/one?q=1");
  t.is((await seen("/prefix/one/deep")).path, "/two/deep");
  t.is((await seen("/prefix/one")).path, "/two");
  t.is((await seen("/host/x")).host, "rewritten.example");
});

/** The Location of a redirect with these fields. */
async function location(t: ExecutionContext, name: string, requestRedirect: object, path: string): Promise<{ status: number; location: string }> {
  await http(name, [{ matches: [{ path: { type: "PathPrefix", value: `/${name}` } }], filters: [{ type: "RequestRedirect", requestRedirect }] }]);
  const { status, headers } = await until(t, `http://echo${path}`, (answer) => answer.status >= 300 && answer.status < 400);
  return { status, location: String(headers["location"]) };
}

test.serial("MeshHTTPRouteRedirectHostAndStatus", async (t) => {
  t.deepEqual(await location(t, "hosted", { hostname: "example.org", statusCode: 301 }, "/hosted"), { status: 301, location: "http://example.org/hosted" });
  t.deepEqual(await location(t, "plain", { hostname: "example.org" }, "/plain/x"), { status: 302, location: "http://example.org/plain/x" });
});

test.serial("MeshHTTPRouteRedirectPath", async (t) => {
  const full = { path: { type: "ReplaceFullPath", replaceFullPath: "/all" } };
  const prefix = { path: { type: "ReplacePrefixMatch", replacePrefixMatch: "/new" } };
  t.is((await location(t, "full", full, "/full/x")).location, "http://echo/all");
  t.is((await location(t, "old", prefix, "/old/deep?q=1")).location, "http://echo/new/deep?q=1");
});

test.serial("MeshHTTPRouteRedirectPort and MeshHTTPRouteSchemeRedirect", async (t) => {
  t.is((await location(t, "ported", { port: 8083 }, "/ported")).location, "http://echo:8083/ported");
  t.is((await location(t, "schemed", { scheme: "https" }, "/schemed")).location, "https://echo/schemed");
  t.is((await location(t, "both", { scheme: "https", port: 8443 }, "/both")).location, "https://echo:8443/both");
});

test.serial("MeshHTTPRoute303Redirect, MeshHTTPRoute307Redirect and MeshHTTPRoute308Redirect", async (t) => {
  for (const statusCode of [303, 307, 308])
    t.is((await location(t, `code-${statusCode}`, { hostname: "example.org", statusCode }, `/code-${statusCode}`)).status, statusCode);
});

test.serial("MeshGRPCRouteWeight: calls are split by weight", async (t) => {
  await applied(
    route("GRPCRoute", namespace, "grpc-weight", { name: "echo", port: grpcPort }, [
      {
        backendRefs: [
          { ...v1(grpcPort), weight: 80 },
          { ...v2(grpcPort), weight: 20 },
        ],
      },
    ]),
  );
  await eventually("more calls to one", async () => {
    const { code, apps } = await grpcFrom(mesh, client, `echo:${grpcPort}`, "unary", 100);
    return code === 0 && (apps["echo-v1"] ?? 0) > 65 ? true : undefined;
  });
  const split = await grpcFrom(mesh, client, `echo:${grpcPort}`, "unary", 400);
  t.is(split.messages, 400);
  t.true(Math.abs((split.apps["echo-v1"] ?? 0) - 320) < 41, JSON.stringify(split.apps));
});

test.serial("MeshGRPCRouteRequestHeaderModifier: metadata is set, added and removed", async (t) => {
  const requestHeaderModifier = { set: [{ name: "x-set", value: "set" }], add: [{ name: "x-add", value: "added" }], remove: ["x-remove"] };
  const matches = [{ method: { service: "e2e.Echo", method: "Unary" } }];
  await applied(
    route("GRPCRoute", namespace, "grpc-headers", { name: "echo", port: grpcPort }, [
      { matches, filters: [{ type: "RequestHeaderModifier", requestHeaderModifier }], backendRefs: [v1(grpcPort)] },
    ]),
  );
  const metadata = await eventually("changed metadata", async () => {
    const result = await grpcFrom(mesh, client, `echo:${grpcPort}`, "unary", 1, { "x-set": "before", "x-remove": "gone" });
    const received = result.metadata as Record<string, string> | undefined;
    return received?.["x-set"] === "set" ? received : undefined;
  });
  t.is(metadata["x-add"], "added");
  t.is(metadata["x-remove"], undefined);
});

test.serial("a backend in another namespace needs a ReferenceGrant, and without it its share of requests fails", async (t) => {
  await mesh.namespace("other", { enrolled: true });
  await mesh.app({ namespace: "other", name: "far", node: 2 });
  await mesh.apply([
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "far-http", namespace: "other" },
      spec: { selector: { app: "far" }, ports: [{ name: "http", port: 80, targetPort: 8081 }] },
    },
    route("HTTPRoute", namespace, "far", "echo", [{ backendRefs: [{ name: "far-http", namespace: "other", port: 80 }] }]),
  ]);
  await untilStatus(mesh, client, "http://echo/", 500);
  const routes = routeTypes[0];
  const refused = await eventually("the reason in the route's status", async () => {
    const found =
      routes && (await mesh.cluster.client.get(routes, "far", namespace)).status?.parents?.[0]?.conditions.find(({ type }) => type === "ResolvedRefs");
    return found?.status === "False" ? found : undefined;
  });
  t.is(refused.reason, "RefNotPermitted");
  const grant = {
    apiVersion: "gateway.networking.k8s.io/v1beta1",
    kind: "ReferenceGrant",
    metadata: { name: "from-mesh", namespace: "other" },
    spec: { from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace }], to: [{ group: "", kind: "Service" }] },
  };
  await mesh.apply([grant]);
  t.is(appOf(echoed(await untilStatus(mesh, client, "http://echo/", 200))), "far");
});

test.serial("a route with a mistake says so in its status and breaks no other", async (t) => {
  await http("good", [{ matches: [{ path: { type: "PathPrefix", value: "/good" } }], backendRefs: [v1()] }]);
  await mesh.apply([
    route("HTTPRoute", namespace, "bad-regex", "echo", [{ matches: [{ path: { type: "RegularExpression", value: "/(" } }], backendRefs: [v1()] }]),
    route("HTTPRoute", namespace, "bad-backend", "echo", [
      { matches: [{ path: { type: "PathPrefix", value: "/missing" } }], backendRefs: [{ name: "nobody", port: 80 }] },
    ]),
  ]);
  const [type] = routeTypes;
  const reasonOf = (name: string): Promise<string[]> =>
    eventually(`a complaint about ${name}`, async () => {
      const conditions = type && (await mesh.cluster.client.get(type, name, namespace)).status?.parents?.[0]?.conditions;
      const failed = conditions?.filter(({ status, type: condition }) => status === "False" && (condition === "Accepted" || condition === "ResolvedRefs"));
      return failed !== undefined && failed.length > 0 ? failed.map(({ reason }) => reason) : undefined;
    });
  t.deepEqual(await reasonOf("bad-backend"), ["BackendNotFound"]);
  t.is((await reasonOf("bad-regex")).length, 1);
  await untilOnly("http://echo/good", "echo-v1");
  t.is((await untilStatus(mesh, client, "http://echo/missing", 500)).status, 500);
  t.is((await mesh.cluster.client.list(resources.gateways, { namespace })).length, 1);
});

/** What the status of each kind must say for a manifest to have been taken as it is written. */
const verdicts: Readonly<Record<string, { readonly plural: string; readonly version: string; readonly conditions: readonly string[] }>> = {
  Gateway: { plural: "gateways", version: "v1", conditions: ["Accepted", "Programmed"] },
  HTTPRoute: { plural: "httproutes", version: "v1", conditions: ["Accepted", "ResolvedRefs"] },
  GRPCRoute: { plural: "grpcroutes", version: "v1", conditions: ["Accepted", "ResolvedRefs"] },
  AuthorizationPolicy: { plural: "authorizationpolicies", version: "v1", conditions: ["WaypointAccepted", "ZtunnelAccepted"] },
};

interface Judged extends KubeObject {
  spec?: object;
  status?: { conditions?: Judgement[]; parents?: { conditions: Judgement[] }[] };
}
interface Judgement {
  readonly type: string;
  readonly status: string;
  readonly message: string;
}

test.serial("every manifest of the documentation is taken as it is written", async (t) => {
  const pages = await Promise.all(["docs/routing.md", "docs/policy.md"].map((path) => readFile(checkoutFile(path), "utf8")));
  const blocks = pages.flatMap((page) => [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, yaml = ""]) => yaml));
  t.true(blocks.length > 8);
  const objects = blocks.flatMap((block) => parseManifests(block)) as Judged[];
  await mesh.apply(objects);
  for (const { apiVersion = "", kind = "", metadata } of objects) {
    const verdict = verdicts[kind];
    if (verdict === undefined) continue;
    const type: ResourceType<Judged> = { group: apiVersion.split("/")[0] ?? "", version: verdict.version, plural: verdict.plural, kind, namespaced: true };
    let last: Judgement[] = [];
    await eventually(`${kind} ${metadata.name} taken`, async () => {
      const { status } = await mesh.cluster.client.get(type, metadata.name, metadata.namespace);
      last = [...(status?.conditions ?? []), ...(status?.parents ?? []).flatMap(({ conditions }) => conditions)].filter((one) =>
        verdict.conditions.includes(one.type),
      );
      return last.length > 0 && last.every((one) => one.status === "True") ? true : undefined;
    }).catch((thrown: unknown) => t.fail(`${kind} ${metadata.name}: ${JSON.stringify(last)} ${String(thrown)}`));
  }
});
