import { MutableCollection } from "@fairway/kube";
import type { RouteTable } from "@fairway/model";
import { createRegistry, silentLogger, systemClock } from "@fairway/runtime";
import type { ResourceSource } from "@fairway/xds";
import test from "ava";
import { createControllerMetrics } from "./metrics.ts";
import { WaypointPublication } from "./waypoint-publication.ts";
import { type WaypointResource, waypointResourceKey } from "./waypoint-resource.ts";

const types = { target: "x.T", routes: "x.R", cluster: "x.C", endpoints: "x.E" };

function routes(waypoint: string, name: string, host = "a"): WaypointResource {
  return { waypoint, kind: "routes", value: { name, virtualHosts: [{ name: host, domains: ["*"], routes: [] }] } };
}

function endpoints(waypoint: string, cluster: string): WaypointResource {
  return { waypoint, kind: "endpoints", value: { cluster, localities: [] } };
}

function setUp(...initial: readonly WaypointResource[]) {
  const resources = new MutableCollection<WaypointResource>(waypointResourceKey, initial);
  const registry = createRegistry();
  const publication = new WaypointPublication({
    resources,
    types,
    encode: ({ value }) => {
      if ((value as RouteTable).virtualHosts?.[0]?.name === "unspeakable") throw new Error("no form on the wire");
      return Buffer.from(JSON.stringify(value));
    },
    log: silentLogger,
    metrics: createControllerMetrics(registry, systemClock),
  });
  return { resources, publication, registry };
}

const names = ({ sources }: { readonly sources: readonly ResourceSource[] }): unknown => sources.map((source) => [...source.all()].map(({ name }) => name));

test("a waypoint has the sources of its types in push order, and in them its own resources only", (t) => {
  const { publication } = setUp(routes("shop/wp", "r"), endpoints("shop/wp", "c"), routes("other/wp", "s"));
  const shop = publication.open("shop/wp");
  t.deepEqual(
    shop.sources.map(({ typeUrl }) => typeUrl),
    ["x.C", "x.E", "x.T", "x.R"],
  );
  t.deepEqual(names(shop), [[], ["c"], [], ["r"]]);
  t.deepEqual(names(publication.open("other/wp")), [[], [], [], ["s"]]);
});

test("a changed object touches its own name at its own waypoint, and what says the same touches nothing", (t) => {
  const { resources, publication } = setUp(routes("shop/wp", "r"), routes("shop/wp", "q"));
  const { sources } = publication.open("shop/wp");
  const changed: string[] = [];
  for (const source of sources) source.subscribe((some) => changed.push(...some));
  resources.set(routes("shop/wp", "r"));
  resources.set(routes("other/wp", "r", "b"));
  t.deepEqual(changed, []);
  resources.set(routes("shop/wp", "r", "b"));
  resources.delete(waypointResourceKey(routes("shop/wp", "q")));
  t.deepEqual(changed, ["r", "q"]);
});

test("sources come with the first resource or client and go with the last of both", (t) => {
  const { resources, publication } = setUp();
  const early = publication.open("shop/wp");
  t.deepEqual([...publication.waypoints], ["shop/wp"]);
  resources.set(routes("shop/wp", "r"));
  t.deepEqual(names(early), [[], [], [], ["r"]], "a client that was there first is not left with sources of its own");
  early[Symbol.dispose]();
  t.deepEqual([...publication.waypoints], ["shop/wp"]);
  resources.delete(waypointResourceKey(routes("shop/wp", "r")));
  t.deepEqual([...publication.waypoints], []);
});

test("a waypoint that comes back while its client stays is served by the same sources", (t) => {
  const { resources, publication } = setUp(routes("shop/wp", "r"));
  const client = publication.open("shop/wp");
  resources.delete(waypointResourceKey(routes("shop/wp", "r")));
  resources.set(routes("shop/wp", "again"));
  t.deepEqual(names(client), [[], [], [], ["again"]]);
});

test("what has no form on the wire stays as it was, and nothing else suffers", (t) => {
  const { resources, publication } = setUp(routes("shop/wp", "r"));
  const { sources } = publication.open("shop/wp");
  const before = sources[3]?.get("r")?.version;
  resources.set(routes("shop/wp", "r", "unspeakable"), routes("shop/wp", "s"));
  t.is(sources[3]?.get("r")?.version, before);
  t.truthy(sources[3]?.get("s"));
});

test("how many resources are served is counted over all waypoints", async (t) => {
  const { resources, registry } = setUp(routes("shop/wp", "r"), routes("other/wp", "r"));
  resources.delete(waypointResourceKey(routes("other/wp", "r")));
  t.regex(await registry.metrics(), /fairway_controller_resources\{type="r"\} 1/);
});
