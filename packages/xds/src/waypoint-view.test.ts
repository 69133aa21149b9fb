/** A waypoint's view and the server against each other over TLS on loopback. */
import type { WaypointConfig } from "@fairway/model";
import {
  AggregatedDiscoveryServiceClient,
  addressTypeUrl,
  clusterTypeUrl,
  DiscoveryRequest,
  type DiscoveryResponse,
  endpointTypeUrl,
  listenerTypeUrl,
  routeTypeUrl,
} from "@fairway/protocol";
import { silentLogger, systemClock, Watched } from "@fairway/runtime";
import { status } from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import type { XdsScope } from "./mesh-source.ts";
import { waypointNode } from "./node.ts";
import { MutableResourceSource } from "./resource-source.ts";
import { createXdsServer, type XdsServerOptions } from "./server.ts";
import { workload, workloadResource } from "./test-mesh.ts";
import { accessTo, listen } from "./test-server.ts";
import { asCluster, asEndpoints, asRoutes, asTarget, cluster, endpoints, garbage, routeTable, target } from "./test-waypoint.ts";
import { applyWaypointResources, emptyWaypointState } from "./waypoint-state.ts";
import { createWaypointView, type WaypointView } from "./waypoint-view.ts";

const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(60_000) });

test("a waypoint receives its configuration and the addresses over one stream, and their changes", async (t) => {
  const control = await start(t);
  const { clusters, endpoints: eds, targets, routes } = control.of("shop/wp");
  control.addresses.update({ set: [workloadResource(workload("a"))] });
  clusters.update({ set: [asCluster(cluster("c"))] });
  eds.update({ set: [asEndpoints(endpoints("c"))] });
  targets.update({ set: [asTarget(target("t", "r"))] });
  routes.update({ set: [asRoutes(routeTable("r"))] });
  const view = control.connect("shop/wp");
  await view.synced.until(Boolean, soon());
  t.truthy(view.mesh.snapshot.workload(workload("a").uid));
  const { config } = { config: view.changes.current };
  t.deepEqual([config.clusters.size, config.endpoints.size, config.targets.size, config.routeTables.size], [1, 1, 1, 1]);
  await control.server.clients.until(({ size }) => size === 1, soon());
  routes.update({ set: [asRoutes(routeTable("r", "second"))] });
  await until(view, ({ routeTables }) => routeTables.get("r")?.virtualHosts[0]?.name === "second");
  targets.update({ delete: ["t"] });
  await until(view, ({ targets: left }) => left.size === 0);
});

test("a waypoint sees nothing of another's", async (t) => {
  const control = await start(t);
  control.of("shop/wp").routes.update({ set: [asRoutes(routeTable("shop"))] });
  control.of("other/wp").routes.update({ set: [asRoutes(routeTable("other"))] });
  const [shop, other] = [control.connect("shop/wp"), control.connect("other/wp")];
  for (const view of [shop, other]) await view.synced.until(Boolean, soon());
  control.of("other/wp").routes.update({ set: [asRoutes(routeTable("more"))] });
  await until(other, ({ routeTables }) => routeTables.size === 2);
  t.deepEqual([...shop.changes.current.routeTables.keys()], ["shop"]);
  t.deepEqual(control.opened, ["waypoint shop/wp", "waypoint other/wp"]);
  await shop[Symbol.asyncDispose]();
  await control.server.clients.until(({ size }) => size === 1, soon());
  t.deepEqual(control.closed, ["waypoint shop/wp"]);
});

test("what a waypoint cannot read is refused by name, its last good form stays, and the waypoint is in sync all the same", async (t) => {
  const control = await start(t);
  const { targets, routes } = control.of("shop/wp");
  targets.update({ set: [asTarget(target("t", "r")), garbage("broken")] });
  routes.update({ set: [asRoutes(routeTable("r"))] });
  const view = control.connect("shop/wp");
  await view.synced.until(Boolean, soon());
  t.deepEqual([...view.changes.current.targets.keys()], ["t"]);
  routes.update({ set: [garbage("r")] });
  const clients = await control.server.clients.until((all) => [...all.values()].some(({ types }) => (types.get(routeTypeUrl)?.rejected.size ?? 0) > 0), soon());
  const [client] = clients.values();
  t.deepEqual([...(client?.types.get(listenerTypeUrl)?.rejected.keys() ?? [])], ["broken"]);
  t.deepEqual([...(client?.types.get(routeTypeUrl)?.rejected.keys() ?? [])], ["r"]);
  t.deepEqual(view.changes.current.routeTables.get("r"), routeTable("r"));
});

test("whoever follows, from the start or later, folds to the same configuration", async (t) => {
  const control = await start(t);
  const { clusters, endpoints: eds, targets, routes } = control.of("shop/wp");
  const view = control.connect("shop/wp");
  const follow = (): { current: () => WaypointConfig } => {
    let state = emptyWaypointState;
    view.follow((change) => {
      state = applyWaypointResources(state, structuredClone(change)).state;
    });
    return { current: () => state.config };
  };
  const early = follow();
  clusters.update({ set: [asCluster(cluster("c")), garbage("d")] });
  eds.update({ set: [asEndpoints(endpoints("c"))] });
  targets.update({ set: [asTarget(target("t", "r"))] });
  routes.update({ set: [asRoutes(routeTable("r")), asRoutes(routeTable("gone"))] });
  await until(view, (config) => config.routeTables.size === 2);
  routes.update({ delete: ["gone"] });
  await until(view, (config) => config.routeTables.size === 1);
  t.is(view.changes.current.targets.size, 1);
  t.deepEqual(early.current(), view.changes.current);
  t.deepEqual(follow().current(), view.changes.current);
});

test("at no moment does a target name routes that are not held, nor a cluster stand without endpoints", async (t) => {
  const control = await start(t);
  const { clusters, endpoints: eds, targets, routes } = control.of("shop/wp");
  const view = control.connect("shop/wp");
  await view.synced.until(Boolean, soon());
  const holes: string[] = [];
  view.changes.subscribe((config) => {
    for (const { ports } of config.targets.values()) for (const { routes: name = "" } of ports) if (!config.routeTables.has(name)) holes.push(name);
    for (const name of config.clusters.keys()) if (!config.endpoints.has(name)) holes.push(name);
  });
  for (let index = 0; index < 20; index++) {
    routes.update({ set: [asRoutes(routeTable(`r${index}`))], delete: [`r${index - 1}`] });
    targets.update({ set: [asTarget(target("t", `r${index}`))] });
    eds.update({ set: [asEndpoints(endpoints(`c${index}`))], delete: [`c${index - 1}`] });
    clusters.update({ set: [asCluster(cluster(`c${index}`))], delete: [`c${index - 1}`] });
    if (index % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await until(view, (config) => config.clusters.has("c19") && config.routeTables.has("r19") && config.clusters.size === 1 && config.routeTables.size === 1);
  t.deepEqual(holes, []);
});

test("a client of the older protocol is served beside the others, and a type that nobody serves ends nothing", async (t) => {
  const pushed: string[] = [];
  const expired: string[] = [];
  const observer = { pushed: (typeUrl: string) => void pushed.push(typeUrl), expiredNonce: (typeUrl: string) => void expired.push(typeUrl) };
  const control = await start(t, { observer });
  const { clusters } = control.of("shop/wp");
  clusters.update({ set: [asCluster(cluster("c"))] });
  const client = await control.sotw();
  client.send({ node: { id: "proxy" }, typeUrl: "type.googleapis.com/nobody.Knows", resourceNames: ["x"] });
  client.send({ node: { id: "proxy" }, typeUrl: clusterTypeUrl });
  const first = await client.next();
  t.deepEqual([first.typeUrl, first.resources.length, first.resources[0]?.typeUrl], [clusterTypeUrl, 1, clusterTypeUrl]);
  client.send({ typeUrl: clusterTypeUrl, versionInfo: first.versionInfo, responseNonce: first.nonce });
  clusters.update({ set: [asCluster(cluster("d"))] });
  const second = await client.next();
  t.is(second.resources.length, 2);
  client.send({ typeUrl: clusterTypeUrl, responseNonce: first.nonce });
  client.send({
    typeUrl: clusterTypeUrl,
    versionInfo: first.versionInfo,
    responseNonce: second.nonce,
    errorDetail: { code: 3, message: "d: no", details: [] },
  });
  const known = await control.server.clients.until((all) => [...all.values()].some(({ types }) => types.get(clusterTypeUrl)?.lastError !== undefined), soon());
  t.deepEqual([...known.values()][0]?.types.get(clusterTypeUrl)?.rejected, new Map([["d", "no"]]));
  t.deepEqual(pushed, [clusterTypeUrl, clusterTypeUrl]);
  t.deepEqual(expired, [clusterTypeUrl]);
});

test("the older protocol has the same doors: too many names, and no permission", async (t) => {
  const control = await start(t, { limits: { maxNamesPerType: 3 } });
  const client = await control.sotw();
  client.send({ node: { id: "proxy" }, typeUrl: endpointTypeUrl, resourceNames: ["a", "b", "c", "d"] });
  t.is((await client.ended).code, status.RESOURCE_EXHAUSTED);
  const closed = await start(t, { authorize: () => Promise.reject(new Error("who are you")) });
  const stranger = await closed.sotw();
  stranger.send({ node: { id: "proxy" }, typeUrl: clusterTypeUrl });
  t.is((await stranger.ended).code, status.UNAUTHENTICATED);
});

async function until(view: WaypointView, accept: (config: WaypointConfig) => boolean): Promise<void> {
  await view.changes.until(accept, soon());
}

/** A server whose clients are the waypoint that their token names. */
async function start(t: ExecutionContext, options: Partial<XdsServerOptions> = {}) {
  const addresses = new MutableResourceSource(addressTypeUrl);
  const waypoints = new Map<string, ReturnType<typeof sources>>();
  const opened: string[] = [];
  const closed: string[] = [];
  const of = (key: string): ReturnType<typeof sources> => {
    const known = waypoints.get(key) ?? sources();
    waypoints.set(key, known);
    return known;
  };
  const server = createXdsServer({
    openScope: (scope) => {
      opened.push(text(scope));
      const { clusters, endpoints: eds, targets, routes } = of(scope.kind === "waypoint" ? scope.waypoint : "");
      return { sources: [addresses, clusters, eds, targets, routes], [Symbol.dispose]: () => void closed.push(text(scope)) };
    },
    authorize: async ({ metadata }) => {
      const waypoint = String(metadata.get("authorization")[0]).replace("Bearer ", "");
      return { identity: { namespace: "shop", serviceAccount: "wp" }, node: undefined, scope: { kind: "waypoint", waypoint } };
    },
    clock: systemClock,
    log: silentLogger,
    ready: new Watched(true),
    ...options,
  });
  const listening = await listen(server.service);
  t.teardown(async () => {
    listening.stop();
    await server[Symbol.asyncDispose]();
  });
  return {
    server,
    addresses,
    of,
    opened,
    closed,
    connect(waypoint: string): WaypointView {
      const view = createWaypointView({
        access: accessTo(listening.target, { token: waypoint }),
        node: waypointNode({ instanceIp: "10.0.0.1", podName: "wp-1", podNamespace: "shop", nodeName: "node-1" }),
        clock: systemClock,
        log: silentLogger,
      });
      t.teardown(() => view[Symbol.asyncDispose]());
      return view;
    },
    async sotw() {
      const access = accessTo(listening.target, { token: "shop/wp" });
      const client = new AggregatedDiscoveryServiceClient(listening.target, (await access.credentials()).credentials);
      t.teardown(() => client.close());
      const stream = client.streamAggregatedResources(await access.metadata());
      const received: DiscoveryResponse[] = [];
      const arrived = new Watched(0);
      const ended = new Promise<{ code: number }>((resolve) => {
        stream.on("error", resolve);
        stream.on("end", () => resolve({ code: status.OK }));
      });
      stream.on("data", (response: DiscoveryResponse) => {
        received.push(response);
        arrived.set(arrived.current + 1);
      });
      return {
        ended,
        send: (request: Parameters<typeof DiscoveryRequest.fromPartial>[0]) => stream.write(DiscoveryRequest.fromPartial(request)),
        async next(): Promise<DiscoveryResponse> {
          await arrived.until(() => received.length > 0, soon());
          const response = received.shift();
          if (response === undefined) throw new Error("a response was expected");
          return response;
        },
      };
    },
  };
}

function sources() {
  return {
    clusters: new MutableResourceSource(clusterTypeUrl),
    endpoints: new MutableResourceSource(endpointTypeUrl),
    targets: new MutableResourceSource(listenerTypeUrl),
    routes: new MutableResourceSource(routeTypeUrl),
  };
}

function text(scope: XdsScope): string {
  return scope.kind === "waypoint" ? `waypoint ${scope.waypoint}` : scope.kind;
}
