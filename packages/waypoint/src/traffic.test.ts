import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTcpServer, type Socket } from "node:net";
import { parseIp, type RequestPolicy, spiffeId, type WaypointConfig } from "@fairway/model";
import { createRegistry, silentLogger, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { AccessLog } from "./access-log.ts";
import { createProxyTelemetry } from "./proxy-telemetry.ts";
import { tunnelPort } from "./test-peers.ts";
import {
  apiConfig,
  application,
  endpoint,
  eventually,
  forwardTo,
  loopbackAddresses,
  routeTo,
  TestWaypoint,
  testProxyConfig,
  workload,
} from "./test-waypoint.ts";

const at = loopbackAddresses();

async function httpApplication(t: ExecutionContext, host: string, listener: RequestListener): Promise<{ port: number }> {
  const http = createServer(listener);
  t.teardown(() => http.closeAllConnections());
  return application(t, host, (socket) => void http.emit("connection", socket));
}

const echo = (t: ExecutionContext, host: string): Promise<{ port: number }> => application(t, host, (socket) => void socket.pipe(socket));

const denyB: RequestPolicy = {
  namespace: "default",
  name: "deny-a",
  action: "deny",
  dryRun: false,
  rules: [{ kind: "principal", match: { kind: "exact", value: "spiffe://cluster.local/ns/default/sa/a" } }],
};

test.serial("an endpoint that cannot be reached is passed over for another, and nobody notices", async (t) => {
  const app = await httpApplication(t, at(2), (_, response) => response.end("b"));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2)), workload("dead", at(3))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("dead", at(3), 80), endpoint("b", at(2), app.port)] }),
  });
  await waypoint.workload("b", at(2), app);
  for (let round = 0; round < 6; round++) t.like(await waypoint.request("a", `${at(200)}:80`, "/"), { status: 200, body: "b" });
});

test.serial("an endpoint that leaves while a connection to it is awaited is passed over for those that stay", async (t) => {
  const app = await httpApplication(t, at(2), (_, response) => response.end("b"));
  const silent: Socket[] = [];
  const leaving = createTcpServer((socket) => void silent.push(socket.on("error", () => undefined))).listen(tunnelPort, at(3));
  t.teardown(() => leaving.close());
  t.teardown(() => silent.forEach((socket) => void socket.destroy()));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2)), workload("leaving", at(3))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("leaving", at(3), app.port)], cluster: { connectTimeoutMs: 600_000 } }),
  });
  await waypoint.workload("b", at(2), app);
  const ask = () => waypoint.request("a", `${at(200)}:80`, "/");
  const first = ask();
  await eventually(t, () => silent.length > 0);
  waypoint.config.set(apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }));
  for (const answer of [ask(), first]) t.like(await answer, { status: 200, body: "b" });
});

test.serial("an endpoint that proves somebody else, or that the mesh does not know, gets nothing", async (t) => {
  let asked = 0;
  const app = await httpApplication(t, at(2), (_, response) => {
    asked++;
    response.end();
  });
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }),
  });
  await waypoint.workload("b", at(2), app, "impostor");
  t.like(await waypoint.request("a", `${at(200)}:80`, "/"), {
    status: 503,
    body: "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
  });
  waypoint.config.set(apiConfig({ vip: at(200), endpoints: [endpoint("stranger", at(2), app.port)] }));
  t.is((await waypoint.request("a", `${at(200)}:80`, "/")).status, 503);
  t.is(asked, 0);
});

test.serial("beyond a cluster's limit requests are refused at once", async (t) => {
  let release: (() => void) | undefined;
  const app = await httpApplication(t, at(2), (_, response) => {
    release = () => response.end("late");
  });
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({
      vip: at(200),
      endpoints: [endpoint("b", at(2), app.port)],
      cluster: { limits: { maxConnections: 10, maxPendingRequests: 10, maxRequests: 1, maxRetries: 1 } },
    }),
  });
  await waypoint.workload("b", at(2), app);
  const first = waypoint.request("a", `${at(200)}:80`, "/");
  await eventually(t, () => release !== undefined);
  const refused = await waypoint.request("a", `${at(200)}:80`, "/");
  t.like(refused, { status: 503, body: "upstream connect error or disconnect/reset before headers. reset reason: overflow" });
  t.is(refused.headers["x-envoy-overloaded"], "true");
  release?.();
  t.is((await first).body, "late");
});

test.serial("where all connections are busy as many wait as may, and an endpoint that has none gets one", async (t) => {
  const waiting: (() => void)[] = [];
  const slow = await httpApplication(t, at(2), (_, response) => void waiting.push(() => response.end("slow")));
  const other = await httpApplication(t, at(3), (_, response) => void response.end("other"));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2)), workload("c", at(3))] },
    config: apiConfig({
      vip: at(200),
      endpoints: [endpoint("b", at(2), slow.port)],
      cluster: { limits: { maxConnections: 1, maxPendingRequests: 1, maxRequests: 10, maxRetries: 1 } },
    }),
  });
  await waypoint.workload("b", at(2), slow);
  await waypoint.workload("c", at(3), other);
  const ask = () => waypoint.request("a", `${at(200)}:80`, "/");
  const first = ask();
  await eventually(t, () => waiting.length === 1);
  const [second, third] = [ask(), ask()];
  t.is((await Promise.race([second, third])).body, "upstream connect error or disconnect/reset before headers. reset reason: overflow");
  waiting.shift()?.();
  await eventually(t, () => waiting.length === 1);
  waiting.shift()?.();
  const bodies = (await Promise.all([first, second, third])).map(({ body }) => body);
  t.is(bodies.filter((body) => body === "slow").length, 2);
  waypoint.config.set(
    apiConfig({
      vip: at(200),
      endpoints: [endpoint("b", at(2), slow.port), endpoint("c", at(3), other.port)],
      cluster: { limits: { maxConnections: 1, maxPendingRequests: 1, maxRequests: 10, maxRetries: 1 }, loadBalancing: "round-robin" },
    }),
  );
  // One after another, while the endpoint before keeps its connection.
  const answers = new Set<string>();
  for (let index = 0; index < 4; index++) {
    const asked = ask();
    await Promise.race([asked, eventually(t, () => waiting.length === 1)]);
    waiting.shift()?.();
    answers.add((await asked).body);
  }
  t.deepEqual([...answers].sort(), ["other", "slow"]);
});

function tcpConfig(port: number, policies: readonly RequestPolicy[] = []): WaypointConfig {
  return apiConfig({
    vip: at(200),
    endpoints: [endpoint("b", at(2), port)],
    port: { protocol: "tcp", routes: undefined, tcpBackends: [{ cluster: "api", weight: 1 }], policies },
  });
}

test.serial("bytes that are not HTTP go both ways, each FIN for itself", async (t) => {
  const app = await echo(t, at(2));
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh: { workloads: [workload("b", at(2))] }, config: tcpConfig(app.port) });
  await waypoint.workload("b", at(2), app);
  const stream = (await waypoint.connect("a", `${at(200)}:80`)).duplex();
  stream.end("\u0000raw");
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  t.is(text, "\u0000raw");
});

test.serial("a connection of bytes is judged before it is accepted, and again when policies change", async (t) => {
  const app = await echo(t, at(2));
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh: { workloads: [workload("b", at(2))] }, config: tcpConfig(app.port, [denyB]) });
  await waypoint.workload("b", at(2), app);
  await t.throwsAsync(waypoint.connect("a", `${at(200)}:80`), { code: "HBONE_REFUSED", message: /401/ });
  const stream = (await waypoint.connect("c", `${at(200)}:80`)).duplex();
  stream.on("error", () => undefined);
  stream.write("x");
  await once(stream, "data");
  waypoint.config.set(tcpConfig(app.port, [{ ...denyB, rules: [{ kind: "any" }] }]));
  // The stream is reset, which is an error to who reads it.
  await new Promise((resolve) => stream.once("close", resolve));
  t.pass();
});

test.serial("a workload that is addressed directly gets what was meant for it, on any port", async (t) => {
  const app = await httpApplication(t, at(2), (request, response) => response.end(request.url));
  const base = apiConfig({ vip: at(200), endpoints: [], routes: [routeTo(forwardTo("encap"))] });
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: {
      ...base,
      targets: new Map([
        [
          "workload/Kubernetes//Pod/default/b",
          {
            name: "workload/Kubernetes//Pod/default/b",
            kind: "workload",
            namespace: "default",
            hostname: "b",
            addresses: [parseIp(at(2))],
            ports: [],
            anyPort: { port: 0, protocol: "http", routes: "api-routes", tcpBackends: [], policies: [], tokens: [] },
          },
        ],
      ]),
    },
  });
  await waypoint.workload("b", at(2), app);
  t.like(await waypoint.request("a", `${at(2)}:${app.port}`, "/direct"), { status: 200, body: "/direct" });
});

test.serial("the client's address is the tunnel's, unless a trusted gateway says otherwise", async (t) => {
  const app = await httpApplication(t, at(2), (request, response) => response.end(String(request.headers["x-forwarded-for"])));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }),
    proxy: { trustedGateways: [spiffeId({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "gateway" })] },
  });
  await waypoint.workload("b", at(2), app);
  const forwarded = { tunnel: { forwarded: 'for="9.9.9.9:1"' } };
  t.is((await waypoint.request("gateway", `${at(200)}:80`, "/", forwarded)).body, "9.9.9.9");
  t.is((await waypoint.request("a", `${at(200)}:80`, "/", forwarded)).body, "127.0.0.1");
});

test.serial("what comes back to the waypoint that sent it is a loop and is refused", async (t) => {
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh: {}, config: apiConfig({ vip: at(200), endpoints: [] }), proxy: { ownAddresses: [at(201)] } });
  await t.throwsAsync(waypoint.connect("waypoint", `${at(200)}:80`), { code: "HBONE_REFUSED", message: /400/ });
  await t.throwsAsync(waypoint.connect("a", `${at(201)}:80`), { code: "HBONE_REFUSED", message: /400/ });
});

test.serial("requests, denials and connections are in the access log and the metrics, with who and why", async (t) => {
  const app = await httpApplication(t, at(2), (_, response) => response.end("hello"));
  const lines: string[] = [];
  const registry = createRegistry();
  const accessLog = new AccessLog({ format: "text", write: (text) => void lines.push(...text.trimEnd().split("\n")), clock: systemClock });
  const policies: RequestPolicy[] = [{ ...denyB, name: "no-admin", rules: [{ kind: "path", match: { kind: "exact", value: "/admin" } }] }];
  const config = apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)], port: { policies } });
  const mesh = { workloads: [workload("b", at(2)), workload("a", "127.0.0.1")] };
  let snapshot: Parameters<typeof createProxyTelemetry>[0]["snapshot"] = () => t.fail() as never;
  const telemetry = createProxyTelemetry({
    registry,
    accessLog,
    clock: systemClock,
    log: silentLogger,
    config: testProxyConfig,
    snapshot: () => snapshot(),
    waypoint: () => config,
  });
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh, config, parts: { telemetry } });
  snapshot = () => waypoint.mesh.current.snapshot;
  await waypoint.workload("b", at(2), app);
  t.is((await waypoint.request("a", `${at(200)}:80`, "/ok?x=1", { headers: { "user-agent": 'evil "agent"' } })).status, 200);
  t.is((await waypoint.request("a", `${at(200)}:80`, "/%61dmin")).status, 403);
  await t.throwsAsync(waypoint.connect("a", `${at(250)}:80`));
  await eventually(t, () => lines.length >= 3);
  const line = (part: string): string => lines.find((candidate) => candidate.includes(part)) ?? t.fail(`no line with ${part} in\n${lines.join("\n")}`);
  t.regex(
    line("/ok"),
    /^\[\S+Z\] "GET \/ok\?x=1 HTTP\/1\.1" 200 - via_upstream - "-" 0 5 \d+ \d+ "-" "evil \\"agent\\"" "[0-9a-f-]{36}" "api" "127\.\S+:\d+" api - 127\.\S+:80 127\.0\.0\.1:\d+ - default$/,
  );
  t.regex(line("/%61dmin"), / 403 - rbac_access_denied_matched_policy\[ns\[default\]-policy\[no-admin\]-rule\[0\]\] /);
  t.regex(line("CONNECT"), / 400 NR WAYPOINT_NOT_BOUND /);
  const metrics = await registry.metrics();
  const common =
    'reporter="waypoint",source_workload="a",source_canonical_service="a",source_canonical_revision="v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/a"';
  t.true(metrics.includes(`istio_requests_total{${common}`), metrics);
  t.regex(
    metrics,
    /istio_requests_total\{.*destination_workload="b".*destination_service="api\.default\.svc\.cluster\.local".*request_protocol="http".*response_flags="-",connection_security_policy="mutual_tls",response_code="200",grpc_response_status=""\} 1\n/,
  );
  t.regex(metrics, /istio_requests_total\{.*destination_workload="unknown".*response_code="403".*\} 1\n/);
  t.regex(metrics, /istio_response_bytes_sum\{.*response_code="200".*\} 5\n/);
  t.regex(
    metrics,
    /istio_request_duration_milliseconds_bucket\{.*le="\+Inf".*response_code="200".*\} 1\n|istio_request_duration_milliseconds_bucket\{.*response_code="200".*le="\+Inf".*\} 1\n/,
  );
});
