/** Requests through a waypoint while things change and fail around it: keys, routes, rollouts, endpoints; and what is told of them. */
import type { KubeObject, ResourceType } from "@fairway/kube";
import test, { type ExecutionContext } from "ava";
import { appOf, echoed, echoService, fetchFrom, raiseWaypoint, removeAll, route, untilStatus, waypointLines } from "./echo-apps.ts";
import { explainFailure } from "./explain.ts";
import type { Load } from "./load-client.ts";
import { eventually, Mesh, pods } from "./mesh.ts";

const namespace = "shop";
const client = { namespace, name: "client" };
/** Not in the mesh, as issuers and collectors are. */
const outside = "http://outside.tools:8083";
const issuer = "https://issuer.example";
const ofService = { group: "", kind: "Service" };
const governing: readonly ResourceType[] = [
  { group: "security.istio.io", version: "v1", plural: "authorizationpolicies", kind: "AuthorizationPolicy", namespaced: true },
  { group: "security.istio.io", version: "v1", plural: "requestauthentications", kind: "RequestAuthentication", namespaced: true },
  { group: "gateway.networking.k8s.io", version: "v1", plural: "httproutes", kind: "HTTPRoute", namespaced: true },
  { group: "networking.istio.io", version: "v1", plural: "destinationrules", kind: "DestinationRule", namespaced: true },
];
const deployments: ResourceType = { group: "apps", version: "v1", plural: "deployments", kind: "Deployment", namespaced: true };
let mesh: Mesh;

interface Controller extends KubeObject {
  spec: { template: { spec: { containers: { env?: { name: string; value?: string }[] }[] } } };
}

/** The chart with `waypoint.env` naming a collector. */
function withCollector(object: KubeObject): KubeObject {
  if (object.kind !== "Deployment") return object;
  const changed = structuredClone(object) as Controller;
  for (const variable of changed.spec.template.spec.containers.flatMap(({ env = [] }) => env)) {
    if (variable.name !== "WAYPOINT_POD") continue;
    const pod = JSON.parse(variable.value ?? "{}") as { env: Record<string, string> };
    variable.value = JSON.stringify({ ...pod, env: { ...pod.env, OTEL_EXPORTER_OTLP_ENDPOINT: "http://outside.tools.svc.cluster.local:8083" } });
  }
  return changed;
}

function policy(name: string, spec: object, annotations: Readonly<Record<string, string>> = {}): object {
  const targetRefs = [{ ...ofService, name: "echo" }];
  return { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace, annotations }, spec: { targetRefs, ...spec } };
}
const backend = (version: string): object => ({ name: `echo-${version}`, port: 80 });
const onPath = (path: string): object => ({ rules: [{ to: [{ operation: { paths: [path] } }] }] });

async function tokenFor(claims: object, alg = "ES256"): Promise<string> {
  const exp = Math.floor(Date.now() / 1_000) + 600;
  const body = JSON.stringify({ iss: issuer, aud: "shop", sub: "alice", exp, ...claims });
  return (await fetchFrom(mesh, client, `${outside}/token?alg=${alg}`, { method: "POST", body })).body;
}
const bearing = (token: string): { headers: Record<string, string> } => ({ headers: { authorization: `Bearer ${token}` } });

/** Requests that all succeed while `change` happens, and how many there were. */
async function underLoad(t: ExecutionContext, url: string, change: () => Promise<void>, durationMs: number): Promise<void> {
  const loading = mesh.act<Load>(client, "http-load", url, 60, durationMs);
  await change();
  const { sent, outcomes } = await loading;
  t.deepEqual(outcomes, { 200: sent });
  t.true(sent > 100, `${sent} requests`);
}

/** Restarts a Deployment as kubectl does, and waits until other pods stand in for the ones before. */
async function restart(name: string, labelSelector: string): Promise<void> {
  const before = new Set((await mesh.cluster.client.list(pods, { namespace, labelSelector })).map(({ metadata }) => metadata.name));
  const annotations = { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() };
  await mesh.cluster.client.mergePatch(deployments, name, namespace, { spec: { template: { metadata: { annotations } } } });
  await eventually(`the restart of ${name}`, async () => {
    const now = await mesh.cluster.client.list(pods, { namespace, labelSelector });
    return now.length > 0 && now.every(({ metadata }) => !before.has(metadata.name)) ? true : undefined;
  });
}

async function receivedBy(version: string): Promise<number> {
  const { received } = JSON.parse((await fetchFrom(mesh, client, `http://echo-${version}/`)).body) as { received: number };
  return received;
}

test.before(async () => {
  mesh = await Mesh.raise("rq", withCollector);
  await mesh.namespace(namespace, { enrolled: true });
  await mesh.namespace("tools", { enrolled: false });
  const labels = (version: string) => ({ echo: "echo", version });
  const env = { LEAVE_AFTER_MS: "1500" };
  await Promise.all([
    mesh.app({ ...client, node: 1 }),
    mesh.app({ namespace, name: "app-v1", node: 1, labels: labels("v1"), env }),
    mesh.app({ namespace, name: "app-v2", node: 2, labels: labels("v2"), env }),
    mesh.app({ namespace: "tools", name: "tools", node: 2 }),
  ]);
  await mesh.apply([
    echoService(namespace, "echo", { echo: "echo" }),
    ...["v1", "v2"].map((version) => echoService(namespace, `echo-${version}`, labels(version))),
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "outside", namespace: "tools" },
      spec: { selector: { app: "tools" }, ports: [{ name: "http", port: 8083 }] },
    },
  ]);
  await raiseWaypoint(mesh, namespace, "--enroll-namespace");
  await untilStatus(mesh, client, "http://echo/", 200);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));
test.afterEach.always(() => removeAll(mesh, governing, namespace));

test.serial("a token of the issuer is taken, what is wrong with another is said, and keys that change are fetched", async (t) => {
  const jwtRules = [
    { issuer, audiences: ["shop"], jwksUri: "http://outside.tools.svc.cluster.local:8083/keys", outputClaimToHeaders: [{ header: "x-who", claim: "sub" }] },
  ];
  await fetchFrom(mesh, client, `${outside}/keys/fail`);
  await mesh.apply([
    {
      apiVersion: "security.istio.io/v1",
      kind: "RequestAuthentication",
      metadata: { name: "members", namespace },
      spec: { targetRefs: [{ ...ofService, name: "echo" }], jwtRules },
    },
    policy("members-only", { action: "DENY", rules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }] }),
  ]);
  await untilStatus(mesh, client, "http://echo/", 403);
  const first = await tokenFor({});
  // While the issuer gives no keys; the policy may be known before the rules of tokens are.
  await untilStatus(mesh, client, "http://echo/", 401, bearing(first));
  await fetchFrom(mesh, client, `${outside}/keys/mend`);
  const taken = echoed(await untilStatus(mesh, client, "http://echo/", 200, bearing(first)));
  t.is(taken.headers["x-who"], "alice");
  t.is(taken.headers["authorization"], undefined);
  const refused: readonly (readonly [string, object, number, RegExp, string?])[] = [
    ["another issuer", { iss: "https://other.example" }, 401, /issuer is not configured/],
    ["another audience", { aud: "other" }, 403, /Audiences/],
    ["expired", { exp: 1_000 }, 401, /expired/],
    ["not yet", { nbf: 4_000_000_000 }, 401, /not yet valid/],
    ["unsigned", {}, 401, /alg/, "none"],
    ["signed with the public key", {}, 401, /alg/, "HS256"],
  ];
  for (const [name, claims, status, said, alg] of refused) {
    // A thread that has no keys yet says that first.
    const token = bearing(await tokenFor(claims, alg));
    await eventually(`${name} to be refused with ${status}`, async () => {
      const answer = await fetchFrom(mesh, client, "http://echo/", token);
      if (answer.status === 200) t.fail(`${name} was let through`);
      return answer.status === status && said.test(answer.body) ? true : undefined;
    });
  }
  // Each thread of the waypoint has its own keys; so many connections reach all of them.
  const many = async (): Promise<Record<string, number>> =>
    (await mesh.act<{ statuses: Record<string, number> }>(client, "fetch-many", "http://echo/", 32, JSON.stringify(bearing(first)))).statuses;
  for (let round = 0; round < 2; round++) await eventually("32 requests with the token", async () => ((await many())[200] === 32 ? true : undefined));
  await fetchFrom(mesh, client, `${outside}/keys/fail`);
  t.deepEqual(await many(), { 200: 32 }, "with the keys that are known, while the issuer is down");
  await fetchFrom(mesh, client, `${outside}/keys/change`);
  await fetchFrom(mesh, client, `${outside}/keys/mend`);
  const second = await tokenFor({ sub: "bob" });
  t.is(echoed(await untilStatus(mesh, client, "http://echo/", 200, bearing(second))).headers["x-who"], "bob");
});

test.serial("routes and policies change under load without a failed request", async (t) => {
  const url = "http://echo/loaded";
  await underLoad(
    t,
    url,
    async () => {
      for (const version of ["v1", "v2"]) {
        await mesh.apply([
          route("HTTPRoute", namespace, "moving", "echo", [{ backendRefs: [backend(version)] }]),
          policy("elsewhere", { action: "DENY", ...onPath(`/not-${version}`) }),
        ]);
        await untilStatus(mesh, client, `http://echo/not-${version}`, 403);
        await eventually(`only ${version}`, async () => (appOf(echoed(await fetchFrom(mesh, client, url))) === `app-${version}` ? true : undefined));
      }
    },
    4_000,
  );
});

test.serial("the application is replaced under load without a failed request", async (t) => {
  await underLoad(
    t,
    "http://echo/app",
    async () => {
      await Promise.all([restart("app-v1", "app=app-v1"), restart("app-v2", "app=app-v2")]);
    },
    5_000,
  );
});

test.serial("the waypoint is replaced under load without a failed request", async (t) => {
  await underLoad(t, "http://echo/waypoint", () => restart("waypoint", "gateway.networking.k8s.io/gateway-name=waypoint"), 6_000);
});

test.serial("the nearest endpoint serves until it fails; then it is left out, and the other one takes over", async (t) => {
  const outlierDetection = { consecutive5xxErrors: 2, baseEjectionTime: "60s", maxEjectionPercent: 50 };
  await mesh.apply([
    {
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { name: "echo", namespace },
      spec: { host: "echo", trafficPolicy: { outlierDetection } },
    },
  ]);
  const only = (other?: string): Promise<string> =>
    eventually(`one app${other === undefined ? "" : ` other than ${other}`}`, async () => {
      if (other !== undefined) await mesh.act(client, "fetch-many", "http://echo/status/500", 8);
      const { apps } = await mesh.act<{ apps: Record<string, number> }>(client, "fetch-many", "http://echo/", 24);
      const [name, ...more] = Object.keys(apps);
      return name !== undefined && name !== other && more.length === 0 ? name : undefined;
    });
  const near = await only();
  const far = await only(near);
  t.deepEqual([near, far].sort(), ["app-v1", "app-v2"]);
});

test.serial("a mirror gets a copy of every request, and no answer of it is seen", async (t) => {
  const filters = [{ type: "RequestMirror", requestMirror: { backendRef: backend("v2") } }];
  await mesh.apply([route("HTTPRoute", namespace, "copies", "echo", [{ filters, backendRefs: [backend("v1")] }])]);
  await eventually("answers of v1 alone, and copies to v2", async () => {
    const before = await receivedBy("v2");
    const { apps } = await mesh.act<{ apps: Record<string, number> }>(client, "fetch-many", "http://echo/", 10);
    // The one that asks is counted, too.
    return Object.keys(apps).join() === "app-v1" && (await receivedBy("v2")) - before === 11 ? true : undefined;
  });
  const settled = await receivedBy("v2");
  const { statuses, apps } = await mesh.act<{ statuses: Record<string, number>; apps: Record<string, number> }>(
    client,
    "fetch-many",
    "http://echo/",
    50,
    '{"method":"POST","body":"copied"}',
  );
  t.deepEqual([statuses, apps], [{ 200: 50 }, { "app-v1": 50 }]);
  let asked = 0;
  await eventually("50 copies", async () => ((await receivedBy("v2")) - settled - ++asked >= 50 ? true : undefined));
});

test.serial("tries that take too long are given up for others, within the time for the whole", async (t) => {
  const rule = { timeouts: { request: "10s", backendRequest: "1s" }, retry: { codes: [504], attempts: 2, backoff: "10ms" }, backendRefs: [backend("v1")] };
  await mesh.apply([route("HTTPRoute", namespace, "patience", "echo", [rule])]);
  await untilStatus(mesh, client, "http://echo/slow/9000", 504);
  const before = await receivedBy("v1");
  t.is((await fetchFrom(mesh, client, "http://echo/slow/9000")).status, 504);
  t.is((await receivedBy("v1")) - before, 4, "three tries, and the one that asks");
});

test.serial("a request that the application broke off is not sent again unless its route asks for it", async (t) => {
  const post = { method: "POST", body: "an order" };
  const before = await receivedBy("v1");
  t.is((await fetchFrom(mesh, client, "http://echo-v1/break", post)).status, 503);
  t.is((await receivedBy("v1")) - before, 2, "one try, and the one that asks");
  await mesh.apply([
    route("HTTPRoute", namespace, "again", "echo-v1", [{ retry: { codes: [503], attempts: 2, backoff: "10ms" }, backendRefs: [backend("v1")] }]),
  ]);
  await eventually("three tries", async () => {
    const from = await receivedBy("v1");
    await fetchFrom(mesh, client, "http://echo-v1/break", post);
    return (await receivedBy("v1")) - from === 4 ? true : undefined;
  });
});

test.serial("policies that only watch say in the log what they would have done", async (t) => {
  await mesh.apply([
    policy("watched", { action: "AUDIT", ...onPath("/watched*") }),
    policy("tried", { action: "DENY", ...onPath("/tried*") }, { "istio.io/dry-run": "true" }),
    policy("enforced", { action: "DENY", ...onPath("/enforced") }),
  ]);
  await untilStatus(mesh, client, "http://echo/enforced", 403);
  for (const [path, name, action] of [
    ["/watched/1", "watched", "audit"],
    ["/tried/1", "tried", "deny"],
  ] as const) {
    t.is((await fetchFrom(mesh, client, `http://echo${path}`)).status, 200);
    const said = await eventually(`${name} in the log`, async () =>
      (await waypointLines(mesh, namespace, "waypoint", "would have decided", `shop/${name}`, path)).at(0),
    );
    t.regex(said, new RegExp(`action="${action}".*sa/client`));
  }
});

test.serial("a trace goes on through the waypoint, whose span arrives at the collector", async (t) => {
  const [traceId, parent] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
  const { headers } = echoed(await fetchFrom(mesh, client, "http://echo/traced", { headers: { traceparent: `00-${traceId}-${parent}-01` } }));
  const [, seenTrace, seenSpan] = (headers["traceparent"] ?? "").split("-");
  t.is(seenTrace, traceId);
  t.not(seenSpan, parent);
  interface Span {
    traceId: string;
    spanId: string;
    parentSpanId?: string;
  }
  const span = await eventually("the span", async () => {
    const batches = JSON.parse((await fetchFrom(mesh, client, `${outside}/spans`)).body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] }[];
    const spans = batches.flatMap(({ resourceSpans }) => resourceSpans).flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans: some }) => some));
    return spans.find((one) => one.traceId === traceId);
  });
  t.like(span, { spanId: seenSpan, parentSpanId: parent });
});

test.serial("large bodies arrive as they were sent, in both directions", async (t) => {
  const { up, down, expected } = await mesh.act<{ up: string; down: string; expected: string }>(client, "http-bodies", "http://echo", 30_000_000);
  t.deepEqual([up, down], [expected, expected]);
});
