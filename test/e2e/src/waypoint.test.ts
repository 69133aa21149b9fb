/** A waypoint from the user's commands to the request that it governs, seen from inside the pods and in what it logs and counts. */
import { readFile } from "node:fs/promises";
import { type KubeObject, type ResourceType, resources, waitForRollout } from "@fairway/kube";
import { checkoutFile, visitorCommand } from "@fairway/local-cluster";
import test from "ava";
import { appOf, echoed, fairway, fetchFrom, grpcFrom, grpcPort, raiseEcho, raiseWaypoint, removeAll, route, untilStatus, waypointLines } from "./echo-apps.ts";
import { explainFailure } from "./explain.ts";
import { eventually, isReady, Mesh, namespaces, type Pod, pods, services } from "./mesh.ts";

const namespace = "shop";
const client = { namespace, name: "client" };
const stranger = { namespace, name: "stranger" };
const outsider = { namespace: "elsewhere", name: "outsider" };
let mesh: Mesh;

interface WithConditions extends KubeObject {
  status?: { conditions?: { type: string; status: string; reason: string; message: string }[] };
}
const security = (plural: string, kind: string): ResourceType<WithConditions> => ({
  group: "security.istio.io",
  version: "v1",
  plural,
  kind,
  namespaced: true,
});
const routes = (plural: string, kind: string): ResourceType<WithConditions> => ({
  group: "gateway.networking.k8s.io",
  version: "v1",
  plural,
  kind,
  namespaced: true,
});
const governing: readonly ResourceType<WithConditions>[] = [
  security("authorizationpolicies", "AuthorizationPolicy"),
  security("requestauthentications", "RequestAuthentication"),
  routes("httproutes", "HTTPRoute"),
  routes("grpcroutes", "GRPCRoute"),
];

function policy(name: string, spec: object, of = namespace): object {
  return { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: of }, spec };
}
const atService = (name: string): object => ({ targetRefs: [{ group: "", kind: "Service", name }] });
const atGateway = (name: string): object => ({ targetRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name }] });
const denyPath = (path: string): object => ({ action: "DENY", rules: [{ to: [{ operation: { paths: [path] } }] }] });

test.before(async () => {
  mesh = await Mesh.raise("wp");
  await mesh.namespace(namespace, { enrolled: true });
  await mesh.namespace(outsider.namespace, { enrolled: true });
  await Promise.all([
    mesh.app({ ...client, node: 1 }),
    mesh.app({ ...stranger, node: 1 }),
    mesh.app({ ...outsider, node: 1 }),
    raiseEcho(mesh, namespace, "echo"),
    mesh.app({ namespace, name: "stock", node: 2 }),
  ]);
  await raiseWaypoint(mesh, namespace, "--enroll-namespace");
  await untilStatus(mesh, client, "http://echo/", 200);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));
test.afterEach.always(() => removeAll(mesh, governing, namespace));

test.serial("requests of an enrolled namespace go through its waypoint, which knows who asked, and the status says so", async (t) => {
  const answer = echoed(
    await eventually("a request through the waypoint", async () => {
      const one = await fetchFrom(mesh, client, "http://echo/who");
      return one.status === 200 && echoed(one).headers["x-request-id"] !== undefined ? one : undefined;
    }),
  );
  const { v4, v6 } = await mesh.addresses(namespace, "client");
  t.true([v4, v6].includes(answer.headers["x-forwarded-for"] ?? ""), answer.headers["x-forwarded-for"]);
  const line = await eventually("the waypoint's log line", async () => (await waypointLines(mesh, namespace, "waypoint", "/who", "echo")).at(0));
  t.regex(line, /200/);
  const { conditions = [] } = (await mesh.cluster.client.get(resources.gateways, "waypoint", namespace)).status ?? {};
  for (const type of ["Accepted", "Programmed"]) t.is(conditions.find((condition) => condition.type === type)?.status, "True", type);
  const service = (await mesh.cluster.client.get(resources.services, "echo", namespace)) as WithConditions;
  t.is(service.status?.conditions?.find(({ type }) => type === "istio.io/WaypointBound")?.status, "True");
  t.regex((await fairway(mesh, "waypoint", "status", "-n", namespace)).out, /waypoint +service +True/);
});

test.serial("a split of 90 to 10 is followed over 2,000 requests", async (t) => {
  const backend = (version: string, weight: number): object => ({ name: `echo-${version}-http`, port: 80, weight });
  await mesh.apply([route("HTTPRoute", namespace, "canary", "echo", [{ backendRefs: [backend("v1", 90), backend("v2", 10)] }])]);
  await eventually("mostly v1", async () => {
    const { apps } = await mesh.act<{ apps: Record<string, number> }>(client, "fetch-many", "http://echo/", 100);
    return (apps["echo-v1"] ?? 0) > 75 ? true : undefined;
  });
  const { statuses, apps } = await mesh.act<{ statuses: Record<string, number>; apps: Record<string, number> }>(client, "fetch-many", "http://echo/", 2_000);
  t.deepEqual(statuses, { 200: 2_000 });
  // 200 expected; five standard deviations of the binomial distribution are 67.
  t.true(Math.abs((apps["echo-v2"] ?? 0) - 200) < 67, JSON.stringify(apps));
});

test.serial("retries hide an upstream that fails, and without them the failure is seen", async (t) => {
  t.is((await fetchFrom(mesh, client, "http://echo/flaky/1/without")).status, 503);
  const retry = { attempts: 3, codes: [503], backoff: "10ms" };
  await mesh.apply([route("HTTPRoute", namespace, "retry", "echo", [{ retry, backendRefs: [{ name: "echo-v1-http", port: 80 }] }])]);
  let key = 0;
  const answer = await eventually("a retried request", async () => {
    const one = await fetchFrom(mesh, client, `http://echo/flaky/2/with-${key++}`, { method: "POST", body: "sent again" });
    return one.status === 200 ? one : undefined;
  });
  t.is(echoed(answer).body, "sent again");
  t.is(echoed(answer).headers["x-envoy-attempt-count"], "3");
});

test.serial("a denial is a 403 that the log and the metrics explain, whatever way the path is written", async (t) => {
  await mesh.apply([policy("no-admin", { ...atService("echo"), ...denyPath("/admin*") })]);
  const denied = await untilStatus(mesh, client, "http://echo/admin", 403);
  t.is(denied.body, "RBAC: access denied");
  for (const path of ["/./admin", "/%61dmin", "//admin", "/x/../admin", "/admin%2f", "/admin;x=1", "/\\admin"]) {
    const { answer } = await mesh.act<{ answer: string }>(
      client,
      "raw-http",
      "echo",
      80,
      `GET ${path} HTTP/1.1\\r\\nhost: echo\\r\\nconnection: close\\r\\n\\r\\n`,
    );
    t.regex(answer, /^HTTP\/1\.1 403 /, path);
  }
  t.is((await fetchFrom(mesh, client, "http://echo/public")).status, 200);
  await eventually("the policy in the log", async () => (await waypointLines(mesh, namespace, "waypoint", "403", "policy[no-admin]", "ns[shop]")).at(0));
  const metrics = await waypointMetrics("waypoint");
  t.regex(metrics, /istio_requests_total\{[^}]*response_code="403"[^}]*\} [1-9]/);
});

test.serial("a policy on requests of one caller lets the other pass", async (t) => {
  const rules = [
    { from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }], to: [{ operation: { methods: ["GET"], hosts: ["echo", "echo:*"] } }] },
  ];
  await mesh.apply([policy("callers", { ...atService("echo"), action: "ALLOW", rules })]);
  await untilStatus(mesh, stranger, "http://echo/", 403);
  t.is((await fetchFrom(mesh, client, "http://echo/")).status, 200);
  t.is((await fetchFrom(mesh, client, "http://echo/", { method: "DELETE" })).status, 403);
});

test.serial("where a waypoint enforces a policy, nobody gets past it to the pod", async (t) => {
  const { v4, v6 } = await mesh.addresses(namespace, "echo-v1");
  t.is((await fetchFrom(mesh, client, `http://${v4}:8081/`)).status, 200);
  await mesh.apply([policy("no-admin", { ...atService("echo"), ...denyPath("/admin*") })]);
  await untilStatus(mesh, client, "http://echo/admin", 403);
  for (const host of [v4, `[${v6}]`]) await untilStatus(mesh, client, `http://${host}:8081/admin`, 0);
  await untilStatus(mesh, outsider, `http://${v4}:8081/admin`, 0);
  t.is((await fetchFrom(mesh, client, "http://echo/")).status, 200);
  const line = await eventually("the reason in the log of the pod's ztunnel", async () =>
    (await mesh.logLines(await mesh.ztunnelOf(namespace, "echo-v1"), "inbound", "sa/client", "waypoint")).find((one) => one.includes("error")),
  );
  t.regex(line, /sa\/client/);
});

test.serial("WebSocket and every kind of gRPC call pass, with trailers", async (t) => {
  t.like(await mesh.act(client, "websocket", "ws://echo/ws", 200), { returned: 200 });
  for (const [kind, count, messages] of [
    ["unary", 20, 20],
    ["down", 500, 500],
    ["up", 500, 1],
    ["both", 500, 500],
  ] as const) {
    const result = await grpcFrom(mesh, client, `echo:${grpcPort}`, kind, count);
    t.like(result, { code: 0, messages }, `${kind}: ${result.details}`);
    t.regex(result.trailer, /^echo-v[12]-/, kind);
  }
  const { headers } = echoed(
    await fetchFrom(mesh, client, "http://echo/", { headers: { connection: "x-private", "x-private": "1", "proxy-connection": "keep-alive" } }),
  );
  t.is(headers["x-private"], undefined);
});

test.serial("other bytes than HTTP pass as they are, on declared and on undeclared ports", async (t) => {
  t.like(await mesh.act(client, "echo", "echo", 7000, "plain bytes"), { reply: "plain bytes" });
  t.is((await fetchFrom(mesh, client, "http://echo:8888/detected")).status, 200);
});

test.serial("a request that is not one is refused, and the connection of another is not harmed", async (t) => {
  const raw = async (bytes: string): Promise<string> => (await mesh.act<{ answer: string }>(client, "raw-http", "echo", 80, bytes)).answer;
  const head = "POST / HTTP/1.1\\r\\nhost: echo\\r\\n";
  const cases: Readonly<Record<string, string>> = {
    "both lengths": `${head}content-length: 5\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n`,
    "two lengths": `${head}content-length: 5\\r\\ncontent-length: 6\\r\\n\\r\\nhello!`,
    "bare line feeds": "GET / HTTP/1.1\\nhost: echo\\n\\n",
    "folded field": "GET / HTTP/1.1\\r\\nhost: echo\\r\\nx-a: 1\\r\\n 2\\r\\n\\r\\n",
    "two hosts": "GET / HTTP/1.1\\r\\nhost: echo\\r\\nhost: other\\r\\n\\r\\n",
    "no host": "GET / HTTP/1.1\\r\\n\\r\\n",
    "unknown coding": `${head}transfer-encoding: xchunked\\r\\n\\r\\n`,
    "space before the colon": "GET / HTTP/1.1\\r\\nhost: echo\\r\\nx-a : 1\\r\\n\\r\\n",
    fragment: "GET /a#b HTTP/1.1\\r\\nhost: echo\\r\\n\\r\\n",
  };
  for (const [name, bytes] of Object.entries(cases)) t.regex(await raw(bytes), /^HTTP\/1\.1 400 /, name);
  t.regex(await raw(`GET / HTTP/1.1\\r\\nhost: echo\\r\\nx-big: ${"a".repeat(70_000)}\\r\\n\\r\\n`), /^HTTP\/1\.1 431 /);
  t.regex(await raw("CONNECT db:5432 HTTP/1.1\\r\\nhost: db:5432\\r\\n\\r\\n"), /^HTTP\/1\.1 (?:4|5)\d\d /);
  t.is((await fetchFrom(mesh, client, "http://echo/after")).status, 200);
});

test.serial("an upstream that breaks off, hangs or is gone gives a defined answer", async (t) => {
  const timeouts = { request: "300ms" };
  await mesh.apply([
    route("HTTPRoute", namespace, "limits", "echo", [
      { matches: [{ path: { type: "PathPrefix", value: "/slow" } }], timeouts, backendRefs: [{ name: "echo-v1-http", port: 80 }] },
      { backendRefs: [{ name: "echo-v1-http", port: 80 }] },
    ]),
  ]);
  t.is((await untilStatus(mesh, client, "http://echo/slow/5000", 504)).status, 504);
  const half = await fetchFrom(mesh, client, "http://echo/half/1000");
  t.true(half.error !== undefined || half.status === 0, JSON.stringify(half));
  await eventually("the flag of the timeout", async () => (await waypointLines(mesh, namespace, "waypoint", "/slow/5000", "UT")).at(0));
});

test.serial("a waypoint of a service account serves its pods, by service and by address", async (t) => {
  await raiseWaypoint(mesh, namespace, "--service-account", "stock");
  await mesh.apply([
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "stock-http", namespace, labels: {} },
      spec: { selector: { app: "stock" }, ports: [{ name: "http", port: 80, targetPort: 8081 }] },
    },
    policy("stock-read-only", { ...atGateway("stock-waypoint"), ...denyPath("/change*") }),
  ]);
  await untilStatus(mesh, client, "http://stock-http/change", 403);
  t.is((await untilStatus(mesh, client, "http://stock-http/read", 200)).status, 200);
  const { v4 } = await mesh.addresses(namespace, "stock");
  await untilStatus(mesh, client, `http://${v4}:8081/change`, 403);
  t.is((await untilStatus(mesh, client, `http://${v4}:8081/read`, 200)).status, 200);
  await eventually("the denials in that waypoint's log", async () =>
    (await waypointLines(mesh, namespace, "stock-waypoint", "403", "policy[stock-read-only]")).length >= 2 ? true : undefined,
  );
  t.is((await fetchFrom(mesh, client, "http://echo/change")).status, 200);
});

test.serial("a service that says none goes without the namespace's waypoint, and one that asks for a waypoint that is not there is refused", async (t) => {
  const label = (value: string | null): Promise<unknown> =>
    mesh.cluster.client.mergePatch(resources.services, "echo-v2-http", namespace, { metadata: { labels: { "istio.io/use-waypoint": value } } });
  await label("none");
  await eventually("a request without a waypoint", async () => {
    const answer = await fetchFrom(mesh, client, "http://echo-v2-http/");
    return answer.status === 200 && echoed(answer).headers["x-request-id"] === undefined ? true : undefined;
  });
  await label("missing");
  await untilStatus(mesh, client, "http://echo-v2-http/", 0);
  const bound = await eventually("the reason at the service", async () => {
    const service = (await mesh.cluster.client.get(resources.services, "echo-v2-http", namespace)) as WithConditions;
    const condition = service.status?.conditions?.find(({ type }) => type === "istio.io/WaypointBound");
    return condition?.status === "False" ? condition : undefined;
  });
  t.regex(bound.message, /missing/);
  await label(null);
  t.is((await untilStatus(mesh, client, "http://echo-v2-http/", 200)).status, 200);
});

test.serial("a waypoint in another namespace is used only where its listener admits the namespace", async (t) => {
  await mesh.apply([
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "far-http", namespace: outsider.namespace },
      spec: { selector: { app: "outsider" }, ports: [{ name: "http", port: 80, targetPort: 8081 }] },
    },
  ]);
  const far = `http://far-http.${outsider.namespace}/`;
  await untilStatus(mesh, client, far, 200);
  await mesh.cluster.client.mergePatch(resources.services, "far-http", outsider.namespace, {
    metadata: { labels: { "istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": namespace } },
  });
  const refused = await eventually("the reason at the service", async () => {
    const service = (await mesh.cluster.client.get(resources.services, "far-http", outsider.namespace)) as WithConditions;
    return service.status?.conditions?.find(({ type, status }) => type === "istio.io/WaypointBound" && status === "False");
  });
  t.is(refused.reason, "AttachmentDenied");
  await mesh.cluster.client.mergePatch(resources.gateways, "waypoint", namespace, {
    spec: { listeners: [{ name: "mesh", port: 15_008, protocol: "HBONE", allowedRoutes: { namespaces: { from: "All" } } }] },
  });
  await eventually("a request through the other namespace's waypoint", async () => {
    const answer = await fetchFrom(mesh, client, far);
    return answer.status === 200 && echoed(answer).headers["x-request-id"] !== undefined ? true : undefined;
  });
  await mesh.cluster.client.delete(resources.services, "far-http", outsider.namespace);
  t.pass();
});

/** So many calls from inside the visitor's pod, by the library's own resolver, and the addresses that the library connected to. */
async function visitorCalls(target: string, count: number): Promise<{ versions: Readonly<Record<string, number>>; peers: readonly string[] }> {
  const [visitor] = await mesh.cluster.client.list(pods, { namespace: "orders", labelSelector: "app=visitor" });
  const pod = { namespace: "orders", name: visitor?.metadata.name ?? "" };
  const { stdout, stderr, code } = await mesh.cluster.exec(pod, [...visitorCommand, "grpc", target, String(count)], { timeoutMs: 60_000 });
  if (code !== 0) throw new Error(`the visitor could not call ${target}: ${stderr}`);
  return JSON.parse(stdout) as { versions: Record<string, number>; peers: string[] };
}

const applyExample = async (file: string): Promise<void> => mesh.apply(await readFile(checkoutFile(`examples/shop/${file}`), "utf8"));
const orders = "xds:///orders.orders.svc.cluster.local:9090";

test.serial("without a waypoint a gRPC client without a proxy takes the pods in turns, and follows a split of 80 to 20 by itself", async (t) => {
  await applyExample("orders.yaml");
  await waitForRollout(mesh.cluster.client, "orders", { timeoutMs: 180_000 });
  const even = await visitorCalls("xds:///orders:9090", 100);
  t.is(even.peers.length, 2);
  t.deepEqual(Object.keys(even.versions).toSorted(), ["v1", "v2"]);
  await applyExample("canary.yaml");
  const { versions, peers } = await eventually("the split", async () => {
    const calls = await visitorCalls(orders, 400);
    return (calls.versions["v1"] ?? 0) > 270 ? calls : undefined;
  });
  t.true((versions["v2"] ?? 0) > 40, JSON.stringify(versions));
  t.is(peers.length, 2);
});

test.serial("with a waypoint such a client is told the virtual address alone, and the waypoint follows the split", async (t) => {
  await raiseWaypoint(mesh, "orders", "--enroll-namespace");
  const { spec } = await mesh.cluster.client.get(services, "orders", "orders");
  const virtual = [`${spec.clusterIP}:9090`];
  await eventually("the virtual address", async () => ((await visitorCalls(orders, 4)).peers.join() === virtual.join() ? true : undefined));
  const { versions, peers } = await visitorCalls(orders, 400);
  t.deepEqual(peers, virtual);
  t.true((versions["v1"] ?? 0) > 270 && (versions["v2"] ?? 0) > 40, JSON.stringify(versions));
});

test.serial("a waypoint that is killed refuses rather than lets past, and comes back", async (t) => {
  const [pod] = await waypointPods("waypoint");
  if (pod === undefined) throw new Error("no waypoint");
  mesh.cluster.signal({ namespace, name: pod.metadata.name }, "SIGKILL");
  const answers = await Promise.all(Array.from({ length: 5 }, () => fetchFrom(mesh, client, "http://echo/while-away")));
  for (const answer of answers) if (answer.status === 200) t.not(echoed(answer).headers["x-request-id"], undefined);
  t.is((await untilStatus(mesh, client, "http://echo/", 200)).status, 200);
});

test.serial("a service whose waypoint was deleted is refused until its namespace asks for none", async (t) => {
  t.is((await fairway(mesh, "waypoint", "delete", "-n", namespace, "waypoint")).code, 0);
  await untilStatus(mesh, client, "http://echo/", 0);
  await mesh.cluster.client.mergePatch(namespaces, namespace, undefined, { metadata: { labels: { "istio.io/use-waypoint": null } } });
  const answer = await untilStatus(mesh, client, "http://echo/", 200);
  t.is(echoed(answer).headers["x-request-id"], undefined);
  t.regex(appOf(echoed(answer)), /^echo-v[12]$/);
});

async function waypointPods(name: string): Promise<Pod[]> {
  const found = await mesh.cluster.client.list<Pod>(pods, { namespace, labelSelector: `gateway.networking.k8s.io/gateway-name=${name}` });
  return found.filter(isReady);
}

async function waypointMetrics(name: string): Promise<string> {
  const [pod] = await waypointPods(name);
  const script = `fetch("http://127.0.0.1:15020/stats/prometheus").then(async (answer) => process.stdout.write(await answer.text()))`;
  const { stdout } = await mesh.cluster.exec({ namespace, name: pod?.metadata.name ?? "" }, [process.execPath, "-e", script], { timeoutMs: 20_000 });
  return stdout;
}
