import { passthroughCluster } from "@fairway/model";
import test from "ava";
import {
  asCluster,
  asEndpoints,
  asRoutes,
  asTarget,
  cluster,
  clustersPush,
  endpoints,
  endpointsPush,
  garbage,
  routesPush,
  routeTable,
  target,
  targetsPush,
} from "./test-waypoint.ts";
import { applyWaypointResources, emptyWaypointState, type WaypointResources, type WaypointState } from "./waypoint-state.ts";

const fold = (...pushes: readonly WaypointResources[]): WaypointState => from(emptyWaypointState, ...pushes);

function from(state: WaypointState, ...pushes: readonly WaypointResources[]): WaypointState {
  return pushes.reduce((held, change) => applyWaypointResources(held, change).state, state);
}

const whole = [
  clustersPush({ set: [asCluster(cluster("c"))] }),
  endpointsPush({ set: [asEndpoints(endpoints("c"))] }),
  targetsPush({ set: [asTarget(target("t", "r"))] }),
  routesPush({ set: [asRoutes(routeTable("r"))] }),
];

test("what came in the order of the contract is in force", (t) => {
  const { config } = fold(...whole);
  t.deepEqual(config.clusters.get("c"), cluster("c"));
  t.deepEqual(config.endpoints.get("c"), endpoints("c"));
  t.deepEqual(config.targets.get("t"), target("t", "r"));
  t.deepEqual(config.routeTables.get("r"), routeTable("r"));
});

test("a cluster waits for its endpoints, and a new form of it does not wait again", (t) => {
  const waiting = fold(clustersPush({ set: [asCluster(cluster("c"))] }));
  t.is(waiting.config.clusters.size, 0);
  const warm = from(waiting, endpointsPush({ set: [asEndpoints(endpoints("c"))] }));
  t.is(warm.config.clusters.size, 1);
  t.is(from(warm, clustersPush({ set: [asCluster(cluster("c", 2))] })).config.clusters.get("c")?.connectTimeoutMs, 2);
});

test("the cluster that stands for the address that was asked for has no endpoints to wait for", (t) => {
  t.is(fold(clustersPush({ set: [asCluster(cluster(passthroughCluster))] })).config.clusters.size, 1);
});

test("a target waits for its routes", (t) => {
  const waiting = fold(targetsPush({ set: [asTarget(target("t", "r"))] }));
  t.is(waiting.config.targets.size, 0);
  t.is(from(waiting, routesPush({ set: [asRoutes(routeTable("r"))] })).config.targets.size, 1);
});

test("a target whose new routes never came keeps the former ones, also when their removal came", (t) => {
  const state = from(fold(...whole), targetsPush({ set: [asTarget(target("t", "r2"))] }), routesPush({ removed: ["r"] }));
  t.deepEqual(state.config.targets.get("t"), target("t", "r"));
  t.deepEqual(state.config.routeTables.get("r"), routeTable("r"));
  const arrived = from(state, routesPush({ set: [asRoutes(routeTable("r2"))] }));
  t.deepEqual(arrived.config.targets.get("t"), target("t", "r2"));
  t.deepEqual([...arrived.config.routeTables.keys()], ["r2"]);
});

test("endpoints and routes outlive their own removal for as long as what needs them stands", (t) => {
  const state = from(fold(...whole), routesPush({ removed: ["r"] }), endpointsPush({ removed: ["c"] }));
  t.truthy(state.config.routeTables.get("r"));
  t.truthy(state.config.endpoints.get("c"));
  const { config } = from(state, targetsPush({ removed: ["t"] }), clustersPush({ removed: ["c"] }));
  t.deepEqual([config.targets.size, config.routeTables.size, config.clusters.size, config.endpoints.size], [0, 0, 0, 0]);
});

test("what cannot be read is named, its last good form stays, and what came with it applies", (t) => {
  const before = fold(...whole);
  const misnamed = { ...asRoutes(routeTable("x")), name: "y" };
  const change = routesPush({ set: [garbage("r"), asRoutes(routeTable("s")), misnamed] });
  const { state, rejected } = applyWaypointResources(before, change);
  t.deepEqual([...rejected.keys()], ["r", "y"]);
  t.regex(rejected.get("y") ?? "", /calls itself "x"/);
  t.deepEqual([...state.config.routeTables.keys()].toSorted(), ["r", "s"]);
});

test("a push that says nothing new is the same configuration, and parts that did not change are the same maps", (t) => {
  const before = fold(...whole);
  t.is(from(before, routesPush({ removed: ["nobody"] })).config, before.config);
  t.is(from(before, { typeUrl: "type.googleapis.com/nobody.Knows", resources: [garbage("r")], removed: ["c"] }), before);
  const after = from(before, routesPush({ set: [asRoutes(routeTable("r", "second"))] }));
  t.is(after.config.clusters, before.config.clusters);
  t.is(after.config.targets, before.config.targets);
  t.not(after.config.routeTables, before.config.routeTables);
});

test("one push is applied as a whole: removed and sent again is held", (t) => {
  const { config } = from(fold(...whole), clustersPush({ removed: ["c"], set: [asCluster(cluster("c", 2))] }));
  t.is(config.clusters.get("c")?.connectTimeoutMs, 2);
});
