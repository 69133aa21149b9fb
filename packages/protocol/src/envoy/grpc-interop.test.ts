// The real @grpc/grpc-js-xds client against the proxyless profile: it must accept every resource and follow the routes.
import {
  type Cluster,
  type ClusterEndpoints,
  compilePattern,
  defaultConnectTimeoutMs,
  type ForwardAction,
  type HttpRoute,
  noHeaderChanges,
  parseIp,
  type RouteMatch,
  type RouteTable,
  type SocketAddress,
  unlimited,
} from "@fairway/model";
import { Client, credentials, Metadata, Server, ServerCredentials, type ServiceError, status } from "@grpc/grpc-js";
import { register } from "@grpc/grpc-js-xds";
import test, { type ExecutionContext } from "ava";
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from "../gen/envoy/service/discovery/v3/ads.ts";
import { type DiscoveryRequest, DiscoveryResponse } from "../gen/envoy/service/discovery/v3/discovery.ts";
import { clusterTypeUrl } from "./cluster-codec.ts";
import { endpointTypeUrl } from "./endpoint-codec.ts";
import { type GrpcResources, type GrpcService, grpcResources } from "./grpc-profile.ts";
import { listenerTypeUrl } from "./listener-codec.ts";
import { routeTypeUrl } from "./route-codec.ts";

register();

const loopback = parseIp("127.0.0.1");
const target = "api.shop.svc.cluster.local:8080";
const text = (bytes: Buffer): string => bytes.toString();
const bytes = (value: string): Buffer => Buffer.from(value);

/** Starts a server that answers every method of /demo.Echo/ with its own name. */
async function backend(t: ExecutionContext, name: string): Promise<SocketAddress> {
  const server = new Server();
  const method = (path: string) => ({
    path,
    requestStream: false as const,
    responseStream: false as const,
    requestSerialize: bytes,
    requestDeserialize: text,
    responseSerialize: bytes,
    responseDeserialize: text,
  });
  const paths = ["/demo.Echo/Say", "/demo.Echo/Shout", "/other.Echo/Say"];
  server.addService(
    Object.fromEntries(paths.map((path) => [path, method(path)])),
    Object.fromEntries(paths.map((path) => [path, (_call: unknown, done: (error: null, value: string) => void) => done(null, name)])),
  );
  const port = await listen(server);
  t.teardown(() => server.forceShutdown());
  return { ip: loopback, port };
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => (error === null ? resolve(port) : reject(error))),
  );
}

interface ControlPlane {
  readonly port: number;
  /** What the client refused. */
  readonly refusals: string[];
}

/** State of the world: each question is answered once, with all that it asks for. */
async function controlPlane(t: ExecutionContext, resources: GrpcResources): Promise<ControlPlane> {
  const held: Readonly<Record<string, readonly { readonly name: string; readonly bytes: Uint8Array }[]>> = {
    [listenerTypeUrl]: [resources.listener],
    [routeTypeUrl]: [resources.routes],
    [clusterTypeUrl]: resources.clusters,
    [endpointTypeUrl]: resources.endpoints,
  };
  const refusals: string[] = [];
  const server = new Server();
  const discovery: AggregatedDiscoveryServiceServer = {
    streamAggregatedResources: (call) => {
      const asked = new Map<string, string>();
      let nonce = 0;
      call.on("data", (request: DiscoveryRequest) => {
        if (request.errorDetail !== undefined) refusals.push(request.errorDetail.message);
        const names = [...request.resourceNames].sort().join();
        if (asked.get(request.typeUrl) === names) return;
        asked.set(request.typeUrl, names);
        nonce++;
        const found = (held[request.typeUrl] ?? []).filter(({ name }) => request.resourceNames.includes(name));
        call.write(
          DiscoveryResponse.fromPartial({
            versionInfo: "1",
            typeUrl: request.typeUrl,
            nonce: String(nonce),
            resources: found.map((resource) => ({ typeUrl: request.typeUrl, value: resource.bytes })),
          }),
        );
      });
      call.on("end", () => call.end());
    },
    deltaAggregatedResources: (call) => call.end(),
  };
  server.addService(AggregatedDiscoveryServiceService, discovery);
  const port = await listen(server);
  t.teardown(() => server.forceShutdown());
  return { port, refusals };
}

function connect(t: ExecutionContext, { port }: ControlPlane): Client {
  const bootstrap = {
    xds_servers: [{ server_uri: `127.0.0.1:${port}`, channel_creds: [{ type: "insecure" }], server_features: ["xds_v3"] }],
    node: { id: "test", locality: {} },
  };
  const client = new Client(`xds:///${target}`, credentials.createInsecure(), {
    "grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config": JSON.stringify(bootstrap),
  });
  t.teardown(() => client.close());
  return client;
}

/** Who answered, or the status. */
function call(client: Client, path: string, headers: Readonly<Record<string, string>> = {}): Promise<string> {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return new Promise((resolve) => {
    client.makeUnaryRequest(path, bytes, text, "hello", metadata, { deadline: Date.now() + 120_000 }, (error: ServiceError | null, value) =>
      resolve(error === null ? (value ?? "") : (status[error.code] ?? "")),
    );
  });
}

function aCluster(name: string): Cluster {
  return {
    name,
    service: { namespace: "shop", hostname: "api.shop.svc.cluster.local", port: 8080 },
    protocol: "http2",
    connectTimeoutMs: defaultConnectTimeoutMs,
    loadBalancing: "least-request",
    limits: unlimited,
    ejection: { consecutiveErrors: 5, consecutiveGatewayErrors: 0, baseEjectionMs: 1000, maxEjectionMs: 1000, maxEjectedPercent: 100 },
  };
}

function endpointsAt(cluster: string, ...addresses: readonly SocketAddress[]): ClusterEndpoints {
  const endpoint = (address: SocketAddress) => ({ address, tunnel: "hbone" as const, workload: "uid", health: "healthy" as const, weight: 1 });
  const locality = { region: "", zone: "", subzone: "" };
  return {
    cluster,
    localities: addresses.map((address, index) => ({ locality, priority: 3 * index, weight: 1, endpoints: [endpoint(address), endpoint(address)] })),
  };
}

function aRoute(name: string, match: Partial<RouteMatch>, backends: Readonly<Record<string, number>>, more: Partial<ForwardAction> = {}): HttpRoute {
  return {
    name,
    match: { path: { kind: "prefix", value: "/" }, method: undefined, headers: [], query: [], grpc: false, ...match },
    action: {
      kind: "forward",
      backends: Object.entries(backends).map(([cluster, weight]) => ({ cluster, weight, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges })),
      timeoutMs: undefined,
      retry: undefined,
      rewrite: undefined,
      mirrors: [],
      ...more,
    },
    requestHeaders: noHeaderChanges,
    responseHeaders: noHeaderChanges,
  };
}

function responding(route: HttpRoute): HttpRoute {
  return { ...route, action: { kind: "respond", status: 500, body: "" } };
}

function aTable(...routes: readonly HttpRoute[]): RouteTable {
  return { name: "inbound-vip|8080|http|api.shop.svc.cluster.local", virtualHosts: [{ name: "all", domains: ["*"], routes }] };
}

async function program(
  t: ExecutionContext,
  routes: RouteTable | undefined,
  vip?: SocketAddress,
): Promise<{ client: Client; plane: ControlPlane; resources: GrpcResources }> {
  const stable = await backend(t, "stable");
  const canary = await backend(t, "canary");
  const clusters = ["stable", "canary", "idle"].map(aCluster);
  const service: GrpcService = {
    name: target,
    port: 8080,
    cluster: aCluster("stable"),
    routes,
    clusters: new Map(clusters.map((each) => [each.name, each])),
    endpoints: new Map([
      ["stable", endpointsAt("stable", stable)],
      ["canary", endpointsAt("canary", canary, canary)],
    ]),
    vip,
  };
  const resources = grpcResources(service);
  const plane = await controlPlane(t, resources);
  return { client: connect(t, plane), plane, resources };
}

test("a split of 90 to 10 is followed, and no resource is refused", async (t) => {
  const retry = { on: ["5xx", "reset", "cancelled"] as const, attempts: 2, statusCodes: [], perTryTimeoutMs: 60_000, backoff: { baseMs: 0.5, maxMs: 2 ** 40 } };
  const { client, plane } = await program(t, aTable(aRoute("split", {}, { stable: 9, canary: 1 }, { timeoutMs: 120_000, retry })));
  const counts = new Map<string, number>();
  for (let batch = 0; batch < 20; batch++) {
    for (const answer of await Promise.all(Array.from({ length: 50 }, () => call(client, "/demo.Echo/Say")))) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  }
  t.deepEqual(plane.refusals, []);
  const canary = counts.get("canary") ?? 0;
  t.is((counts.get("stable") ?? 0) + canary, 1000);
  t.true(canary > 50 && canary < 160, `${canary} of 1000`);
});

test("a split of 2 to 1, which no hundred can hold, is followed", async (t) => {
  const { client, plane } = await program(t, aTable(aRoute("split", {}, { stable: 2, canary: 1 })));
  const answers = await Promise.all(Array.from({ length: 300 }, () => call(client, "/demo.Echo/Say")));
  t.deepEqual(plane.refusals, []);
  const canary = answers.filter((answer) => answer === "canary").length;
  t.is(answers.filter((answer) => answer === "stable").length, 300 - canary);
  t.true(canary > 60 && canary < 140, `${canary} of 300`);
});

test("headers and paths are matched, and what cannot be asked by a call is never taken", async (t) => {
  const canaryHeader = [{ name: "x-canary", value: { kind: "exact" as const, value: "yes" }, invert: false }];
  const { client, plane, resources } = await program(
    t,
    aTable(
      aRoute("queries", { query: [{ name: "q", value: { kind: "present" } }] }, { canary: 1 }),
      aRoute("gets", { method: "GET" }, { canary: 1 }),
      aRoute("header", { headers: canaryHeader, method: "POST" }, { canary: 1 }),
      aRoute("pattern", { headers: [{ name: "x-version", value: { kind: "regex", pattern: compilePattern("v[12]") }, invert: false }] }, { canary: 1 }),
      aRoute(
        "absent",
        { headers: [{ name: "x-all", value: { kind: "present" }, invert: true }], path: { kind: "regex", pattern: compilePattern("/other\\..*") } },
        { canary: 1 },
      ),
      aRoute("elements", { path: { kind: "path-prefix", value: "/demo.Echo/Shout" } }, { canary: 1 }),
      aRoute("rest", {}, { stable: 1 }),
    ),
  );
  t.is(await call(client, "/demo.Echo/Say"), "stable");
  t.is(await call(client, "/demo.Echo/Say", { "x-canary": "yes" }), "canary");
  t.is(await call(client, "/demo.Echo/Say", { "x-canary": "no" }), "stable");
  t.is(await call(client, "/demo.Echo/Say", { "x-version": "v2" }), "canary");
  t.is(await call(client, "/demo.Echo/Say", { "x-version": "v22" }), "stable");
  t.is(await call(client, "/other.Echo/Say"), "canary");
  t.is(await call(client, "/other.Echo/Say", { "x-all": "1" }), "stable");
  t.is(await call(client, "/demo.Echo/Shout"), "canary");
  t.deepEqual(plane.refusals, []);
  t.deepEqual(resources.ignored, ['route "queries": matches on queries and pseudo headers; the route is left out']);
});

test("what a client cannot do fails its calls at once, and leaves the others alone", async (t) => {
  const { client, plane, resources } = await program(
    t,
    aTable(
      responding(aRoute("respond", { path: { kind: "exact", value: "/demo.Echo/Shout" } }, {})),
      aRoute("nobody", { path: { kind: "path-prefix", value: "/other.Echo" } }, { UnknownService: 1 }),
      aRoute("rest", {}, { stable: 1, idle: 0 }),
    ),
  );
  t.is(await call(client, "/demo.Echo/Shout"), "UNAVAILABLE");
  t.is(await call(client, "/other.Echo/Say"), "UNAVAILABLE");
  t.is(await call(client, "/demo.Echo/Say"), "stable");
  t.deepEqual(plane.refusals, []);
  t.deepEqual(resources.ignored, ['route "respond": respond; calls fail instead']);
});

test("a cluster nobody knows the endpoints of fails its calls and not the channel", async (t) => {
  const { client, plane } = await program(
    t,
    aTable(aRoute("idle", { path: { kind: "exact", value: "/demo.Echo/Shout" } }, { idle: 1 }), aRoute("rest", {}, { stable: 1 })),
  );
  t.is(await call(client, "/demo.Echo/Shout"), "UNAVAILABLE");
  t.is(await call(client, "/demo.Echo/Say"), "stable");
  t.deepEqual(plane.refusals, []);
});

test("calls to a service with a waypoint go to its virtual address, whatever its routes say", async (t) => {
  const vip = await backend(t, "waypoint");
  const { client, plane } = await program(t, aTable(aRoute("split", {}, { canary: 1 })), vip);
  t.is(await call(client, "/demo.Echo/Say"), "waypoint");
  t.deepEqual(plane.refusals, []);
});

test("a service without routes is called directly", async (t) => {
  const { client, plane } = await program(t, undefined);
  t.is(await call(client, "/demo.Echo/Say"), "stable");
  t.deepEqual(plane.refusals, []);
});
