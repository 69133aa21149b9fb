import { type ClusterEndpoints, parseIp, type RouteTable } from "@fairway/model";
import { register } from "@grpc/grpc-js-xds";
import { ClusterResourceType } from "@grpc/grpc-js-xds/build/src/xds-resource-type/cluster-resource-type.js";
import { EndpointResourceType } from "@grpc/grpc-js-xds/build/src/xds-resource-type/endpoint-resource-type.js";
import { ListenerResourceType } from "@grpc/grpc-js-xds/build/src/xds-resource-type/listener-resource-type.js";
import { RouteConfigurationResourceType } from "@grpc/grpc-js-xds/build/src/xds-resource-type/route-config-resource-type.js";
import type { XdsDecodeContext, XdsResourceType } from "@grpc/grpc-js-xds/build/src/xds-resource-type/xds-resource-type.js";
import test from "ava";
import fc from "fast-check";
import { ClusterLoadAssignment } from "../gen/resources/envoy/config/endpoint/v3/endpoint.ts";
import { RouteConfiguration } from "../gen/resources/envoy/config/route/v3/route.ts";
import { anyCluster, anyEndpoints, anyRouteTable } from "../sample-waypoint.ts";
import { clusterTypeUrl } from "./cluster-codec.ts";
import { encodeEndpoints, endpointTypeUrl } from "./endpoint-codec.ts";
import { type GrpcResource, type GrpcService, grpcResources } from "./grpc-profile.ts";
import { rejectCluster } from "./grpc-routes.ts";
import { listenerTypeUrl } from "./listener-codec.ts";
import { encodeRouteTable, routeTypeUrl } from "./route-codec.ts";

register();

/** A service whose routes point at clusters that are known and at some that are not. */
const anyGrpcService: fc.Arbitrary<GrpcService> = fc
  .record({
    routes: fc.option(anyRouteTable, { nil: undefined }),
    cluster: anyCluster,
    clusters: fc.array(anyCluster, { maxLength: 3 }),
    endpoints: fc.array(anyEndpoints, { maxLength: 4 }),
    picks: fc.array(fc.boolean()),
    vip: fc.option(fc.constant({ ip: parseIp("10.1.0.1"), port: 80 }), { nil: undefined }),
  })
  .map(({ routes, cluster, clusters, endpoints, picks, vip }) => {
    const named = new Set(
      (routes?.virtualHosts ?? []).flatMap((host) =>
        host.routes.flatMap(({ action }) => (action.kind === "forward" ? action.backends.map((backend) => backend.cluster) : [])),
      ),
    );
    const used = [...named].filter((_, index) => picks[index % Math.max(1, picks.length)] ?? true);
    const known = [...clusters, ...used.map((name) => ({ ...cluster, name }))];
    const held = [cluster.name, ...used].map((name, index) => ({
      cluster: name,
      localities: endpoints[index % Math.max(1, endpoints.length)]?.localities ?? [],
    }));
    return {
      name: "api.shop.svc.cluster.local:80",
      port: 80,
      cluster,
      routes,
      clusters: new Map(known.map((each) => [each.name, each])),
      endpoints: new Map(held.map((each) => [each.cluster, each])),
      vip,
    };
  });

/** What the client says of the resource, as it would on receiving it; undefined when it takes it. */
function refusal(type: XdsResourceType, typeUrl: string, { name, bytes }: GrpcResource): string | undefined {
  const context = { server: { serverUri: "", serverFeatures: [] }, bootstrap: { certificateProviders: {} } } as unknown as XdsDecodeContext;
  const read = type.decode(context, { type_url: typeUrl, value: Buffer.from(bytes) });
  return read.error ?? (read.name === name ? undefined : `named ${read.name}`);
}

test("whatever the model says, the client's own validation takes every resource", (t) => {
  fc.assert(
    fc.property(anyGrpcService, (service) => {
      const { listener, routes, clusters, endpoints } = grpcResources(service);
      t.is(refusal(ListenerResourceType.get(), listenerTypeUrl, listener), undefined);
      t.is(refusal(RouteConfigurationResourceType.get(), routeTypeUrl, routes), undefined);
      for (const each of clusters) t.is(refusal(ClusterResourceType.get(), clusterTypeUrl, each), undefined);
      for (const each of endpoints) t.is(refusal(EndpointResourceType.get(), endpointTypeUrl, each), undefined);
    }),
    { numRuns: 150 },
  );
});

test("every cluster that a route names is told of, with endpoints, and no other is", (t) => {
  fc.assert(
    fc.property(anyGrpcService, (service) => {
      const { routes, clusters, endpoints } = grpcResources(service);
      const named = JSON.stringify(RouteConfiguration.decode(routes.bytes).virtualHosts);
      for (const { name } of clusters) t.true(named.includes(JSON.stringify(name)), name);
      t.deepEqual(
        clusters.map(({ name }) => name),
        endpoints.map(({ name }) => name),
      );
      const rejects = endpoints.find(({ name }) => name === rejectCluster);
      t.deepEqual(rejects === undefined ? [] : ClusterLoadAssignment.decode(rejects.bytes).endpoints, []);
    }),
    { numRuns: 100 },
  );
});

test("what a waypoint is told the client refuses: each needs its own form", (t) => {
  const endpoint = { address: { ip: parseIp("10.0.0.1"), port: 80 }, tunnel: "hbone", workload: "", health: "healthy", weight: 1 } as const;
  const endpoints: ClusterEndpoints = {
    cluster: "c",
    localities: [{ locality: { region: "", zone: "", subzone: "" }, priority: 1, weight: 1, endpoints: [endpoint] }],
  };
  const ofEndpoints = refusal(EndpointResourceType.get(), endpointTypeUrl, { name: "c", bytes: encodeEndpoints(endpoints) });
  t.regex(ofEndpoints ?? "", /socket_address not set.*priority 1 but not 0/);
  const [
    {
      virtualHosts: [host],
    } = { virtualHosts: [] },
  ] = fc.sample(
    anyRouteTable.filter(({ virtualHosts }) => (virtualHosts[0]?.routes.length ?? 0) > 0),
    1,
  );
  const [route] = host?.routes ?? [];
  if (host === undefined || route === undefined) throw new Error("a table with a route was asked for");
  const responding = {
    ...route,
    match: { ...route.match, path: { kind: "path-prefix", value: "/a" } },
    action: { kind: "respond", status: 500, body: "" },
  } as const;
  const table: RouteTable = { name: "t", virtualHosts: [{ ...host, routes: [responding] }] };
  const ofRoutes = refusal(RouteConfigurationResourceType.get(), routeTypeUrl, { name: "t", bytes: encodeRouteTable(table) });
  t.regex(ofRoutes ?? "", /unsupported path_specifier: path_separated_prefix.*unsupported action: direct_response/);
});
