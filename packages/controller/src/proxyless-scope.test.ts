/** What a proxyless client is told, from Kubernetes objects to resources by name. */
import type { ReferenceGrantObject } from "@fairway/kube";
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import type { ResourceSource } from "@fairway/xds";
import test from "ava";
import { gateway, namespace, pod, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";
import { ProxylessMesh } from "./proxyless-mesh.ts";
import { deriveProxylessTables } from "./proxyless-routes.ts";
import { openProxylessScope } from "./proxyless-scope.ts";

const apiCluster = "outbound|80||api.shop.svc.cluster.local";
const text = (source: ResourceSource | undefined, name: string): string => Buffer.from(source?.get(name)?.body ?? []).toString("latin1");

function setUp() {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop"), namespace("client"));
  for (const [name, last] of [
    ["api", 1],
    ["api-v2", 2],
  ] as const) {
    inputs.services.set(service(name, { spec: { clusterIP: `10.1.0.${last}`, clusterIPs: [`10.1.0.${last}`] } }));
    inputs.pods.set(pod(name, { status: { podIP: `10.0.0.${last}`, podIPs: [{ ip: `10.0.0.${last}` }] } }));
  }
  const mesh = deriveMesh(inputs, testSettings);
  const { services, pods } = inputs;
  const { routes, backendFacts } = mesh.programs;
  const tables = deriveProxylessTables({ services, meshServices: mesh.services, routes, backendFacts });
  const proxyless = new ProxylessMesh({ services, pods, meshServices: mesh.services, workloads: mesh.workloads, tables });
  const scope = openProxylessScope(proxyless, { namespace: "shop", clusterDomain: "cluster.local" });
  const of = (typeUrl: string): ResourceSource | undefined => scope.sources.find((source) => source.typeUrl === typeUrl);
  const [cds, eds, lds, rds] = [clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl].map(of);
  const changed: string[] = [];
  for (const source of scope.sources) source.subscribe((names) => changed.push(...names));
  return { inputs, scope, proxyless, cds, eds, lds, rds, changed };
}

function split(weights: Readonly<Record<string, number>>) {
  const backendRefs = Object.entries(weights).map(([name, weight]) => ({ name, port: 80, weight }));
  return {
    metadata: { name: "split", namespace: "shop" },
    spec: { parentRefs: [{ group: "", kind: "Service", name: "api", port: 80 }], rules: [{ backendRefs }] },
  };
}

test("a listener is there under the whole name and the short ones, each with that name", (t) => {
  const { lds, rds } = setUp();
  for (const name of ["api:80", "api.shop:80", "api.shop.svc:80", "api.shop.svc.cluster.local:80"]) {
    t.is(lds?.get(name)?.name, name);
    t.true(text(lds, name).includes(name));
    t.true(text(rds, name).includes(apiCluster));
  }
  for (const name of ["api:81", "nobody:80", "api.other:80", "api"]) t.is(lds?.get(name), undefined);
});

test("nobody is served everything", (t) => {
  const { scope, lds } = setUp();
  lds?.get("api:80");
  for (const source of scope.sources) t.deepEqual([...source.all()], []);
});

test("endpoints are the ready workloads that are not terminating, and the client is told when they change", (t) => {
  const { inputs, eds, changed } = setUp();
  t.true(text(eds, apiCluster).includes("10.0.0.1"));
  inputs.pods.set(pod("more", { metadata: { labels: { app: "api" } }, status: { podIP: "10.0.0.7", podIPs: [{ ip: "10.0.0.7" }] } }));
  t.true(text(eds, apiCluster).includes("10.0.0.7"));
  t.deepEqual(changed.splice(0), [apiCluster]);
  inputs.pods.set(
    pod("more", {
      metadata: { labels: { app: "api" }, deletionTimestamp: "2026-01-01T00:00:00Z" },
      status: { podIP: "10.0.0.7", podIPs: [{ ip: "10.0.0.7" }] },
    }),
  );
  t.false(text(eds, apiCluster).includes("10.0.0.7"));
  t.true(changed.length > 0);
});

test("what changes elsewhere, or says the same again, tells nobody anything", (t) => {
  const { inputs, eds, lds, changed } = setUp();
  lds?.get("api:80");
  eds?.get(apiCluster);
  inputs.pods.set(pod("api-v2", { status: { podIP: "10.0.0.9", podIPs: [{ ip: "10.0.0.9" }] } }));
  inputs.services.set(service("api", { metadata: { annotations: { note: "x" } }, spec: { clusterIP: "10.1.0.1", clusterIPs: ["10.1.0.1"] } }));
  t.deepEqual(changed, []);
});

test("a name that was asked for before its service exists is told when it does", (t) => {
  const { inputs, lds, changed } = setUp();
  t.is(lds?.get("later:80"), undefined);
  inputs.services.set(service("later", { spec: { clusterIP: "10.1.0.3", clusterIPs: ["10.1.0.3"] } }));
  t.deepEqual([...new Set(changed.splice(0))], ["later:80"]);
  t.truthy(lds?.get("later:80"));
  inputs.services.delete("shop/later");
  t.deepEqual([...new Set(changed)], ["later:80"]);
  t.is(lds?.get("later:80"), undefined);
});

test("a weighted split is in the routes, and every cluster it names is there", (t) => {
  const { inputs, rds, cds, eds, changed } = setUp();
  const before = text(rds, "api:80");
  inputs.httpRoutes.set(split({ api: 90, "api-v2": 10 }));
  t.not(text(rds, "api:80"), before);
  t.deepEqual([...new Set(changed)], ["api:80"]);
  for (const cluster of [apiCluster, "outbound|80||api-v2.shop.svc.cluster.local"]) {
    t.true(text(rds, "api:80").includes(cluster));
    t.truthy(cds?.get(cluster));
    t.truthy(eds?.get(cluster));
  }
  t.true(text(eds, "outbound|80||api-v2.shop.svc.cluster.local").includes("10.0.0.2"));
});

test("a backend that is led elsewhere by routes of its own is still there under its cluster's name", (t) => {
  const { inputs, cds, rds } = setUp();
  inputs.httpRoutes.set(split({ "api-v2": 1 }));
  t.false(text(rds, "api:80").includes(apiCluster));
  t.truthy(cds?.get(apiCluster));
});

test("a route to nowhere becomes a call that fails, and its cluster is there too", (t) => {
  const { inputs, rds, cds, eds } = setUp();
  inputs.httpRoutes.set(split({ api: 1, nobody: 1 }));
  t.true(text(rds, "api:80").includes("grpc_reject"));
  t.truthy(cds?.get("grpc_reject"));
  t.truthy(eds?.get("grpc_reject"));
});

test("a route of another namespace into this one needs a grant, and a grant is noticed", (t) => {
  const { inputs, rds } = setUp();
  inputs.services.set(service("far", { metadata: { namespace: "client" }, spec: { clusterIP: "10.1.0.5", clusterIPs: ["10.1.0.5"] } }));
  inputs.httpRoutes.set({
    ...split({}),
    spec: { parentRefs: [{ group: "", kind: "Service", name: "api" }], rules: [{ backendRefs: [{ name: "far", namespace: "client", port: 80 }] }] },
  });
  t.true(text(rds, "api:80").includes("grpc_reject"));
  const grant: ReferenceGrantObject = {
    metadata: { name: "in", namespace: "client" },
    spec: { from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: "shop" }], to: [{ group: "", kind: "Service" }] },
  };
  inputs.referenceGrants.set(grant);
  t.true(text(rds, "api:80").includes("outbound|80||far.client.svc.cluster.local"));
});

test("of a service with a waypoint the client is told the virtual address alone, and no routes", (t) => {
  const { inputs, rds, eds } = setUp();
  inputs.httpRoutes.set(split({ "api-v2": 1 }));
  inputs.gateways.set(gateway("wp"));
  inputs.services.set(service("api", { metadata: { labels: { "istio.io/use-waypoint": "wp" } }, spec: { clusterIP: "10.1.0.1", clusterIPs: ["10.1.0.1"] } }));
  t.true(text(rds, "api:80").includes(apiCluster));
  t.false(text(rds, "api:80").includes("api-v2"));
  const endpoints = text(eds, apiCluster);
  t.true(endpoints.includes("10.1.0.1"));
  t.false(endpoints.includes("10.0.0.1"));
});

test("of a headless service with a waypoint nobody is told: the waypoint is not passed by", (t) => {
  const { inputs, eds } = setUp();
  inputs.gateways.set(gateway("wp"));
  inputs.services.set(service("api", { metadata: { labels: { "istio.io/use-waypoint": "wp" } }, spec: { clusterIP: "None", clusterIPs: ["None"] } }));
  t.false(text(eds, apiCluster).includes("10.0.0.1"));
  t.truthy(eds?.get(apiCluster));
});

test("a client that left is told nothing more", (t) => {
  const { inputs, scope, eds, changed } = setUp();
  eds?.get(apiCluster);
  scope[Symbol.dispose]();
  inputs.pods.set(pod("api", { status: { podIP: "10.0.0.9", podIPs: [{ ip: "10.0.0.9" }] } }));
  t.deepEqual(changed, []);
});

test("names beyond what is followed are made when they are asked for", (t) => {
  const { lds } = setUp();
  t.truthy(lds?.get("api:80"));
  for (let index = 0; index < 5_000; index++) lds?.get(`n${index}:80`);
  t.truthy(lds?.get("api:80"));
});
