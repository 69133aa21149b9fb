import { MutableCollection } from "@fairway/kube";
import type { RequestCondition } from "@fairway/model";
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { createRegistry, silentLogger, systemClock } from "@fairway/runtime";
import type { ResourceSource } from "@fairway/xds";
import test from "ava";
import { createControllerMetrics } from "./metrics.ts";
import { WaypointPublication } from "./waypoint-publication.ts";
import { type WaypointResource, waypointResourceKey } from "./waypoint-resource.ts";

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
    [clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl],
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
  const { resources, publication } = setUp(target("t"));
  const { sources } = publication.open("shop/wp");
  const before = sources[2]?.get("t")?.version;
  resources.set(target("t", tooManyCombinations), target("u"));
  t.is(sources[2]?.get("t")?.version, before);
  t.truthy(sources[2]?.get("u"));
});

function target(name: string, condition: RequestCondition = { kind: "any" }): WaypointResource {
  const policy = { namespace: "shop", name: "p", action: "allow", dryRun: false, rules: [condition] } as const;
  const port = { port: 80, protocol: "http", routes: "r", tcpBackends: [], policies: [policy], tokens: [] } as const;
  return {
    waypoint: "shop/wp",
    kind: "target",
    value: { name, kind: "service", namespace: "shop", hostname: name, addresses: [], ports: [port], anyPort: undefined },
  };
}

/** Either a client and a port or another client and another port, and so on: each pair is a part of its own in Envoy's form. */
const tooManyCombinations: RequestCondition = {
  kind: "all",
  of: Array.from({ length: 12 }, (_, index) => ({
    kind: "some" as const,
    of: [1, 2].map((port) => ({
      kind: "all" as const,
      of: [
        { kind: "principal" as const, match: { kind: "exact" as const, value: `${index}-${port}` } },
        { kind: "destination-port" as const, from: port, to: port },
      ],
    })),
  })),
};

test("how many resources are served is counted over all waypoints", async (t) => {
  const { resources, registry } = setUp(routes("shop/wp", "r"), routes("other/wp", "r"));
  resources.delete(waypointResourceKey(routes("other/wp", "r")));
  t.regex(await registry.metrics(), /fairway_controller_resources\{type="rds"\} 1/);
});
