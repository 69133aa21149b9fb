import { authorizationTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { createRegistry, silentLogger, systemClock, Watched } from "@fairway/runtime";
import type { XdsClientStatus, XdsScope } from "@fairway/xds";
import test from "ava";
import { createControllerMetrics } from "./metrics.ts";
import { followRejections } from "./rejections.ts";
import { waypointResourceKey } from "./waypoint-resource.ts";

type Rejected = readonly (readonly [string, string])[];

function client(scope: XdsScope, byType: Readonly<Record<string, Rejected>>): XdsClientStatus {
  const status = (rejected: Rejected) => ({ sentNonce: "1", ackedNonce: "", sentAt: 0, lastError: "", rejected: new Map(rejected) });
  return {
    nodeId: "proxy~x",
    peer: { identity: { namespace: "fairway-system", serviceAccount: "proxy" }, node: "n1", scope },
    address: "10.0.0.1:1",
    connectedAt: 0,
    types: new Map(Object.entries(byType).map(([typeUrl, rejected]) => [typeUrl, status(rejected)])),
  };
}
const ztunnel = (...rejected: Rejected): XdsClientStatus => client({ kind: "node" }, { [authorizationTypeUrl]: rejected });

function setUp() {
  const clients = new Watched<ReadonlyMap<string, XdsClientStatus>>(new Map());
  const registry = createRegistry();
  const { rejections } = followRejections(clients, { log: silentLogger, metrics: createControllerMetrics(registry, systemClock) });
  const heard: string[] = [];
  rejections.subscribe((events) => heard.push(...events.map(({ type, key }) => `${type} ${key}`)));
  const connect = (...all: readonly XdsClientStatus[]): void => clients.set(new Map(all.map((one, index) => [String(index), one])));
  return { connect, rejections, heard, registry };
}

test("what several ztunnels reject is one rejection that counts them, and goes when they accept or leave", (t) => {
  const { connect, rejections, heard } = setUp();
  connect(ztunnel(["shop/p", "no"]), ztunnel(["shop/p", "no"], ["shop/q", "neither"]));
  t.deepEqual(rejections.get("shop/p"), { typeUrl: authorizationTypeUrl, waypoint: undefined, name: "shop/p", message: "no", proxies: 2 });
  connect(ztunnel(["shop/p", "no"]), ztunnel(["shop/p", "no"]));
  connect(ztunnel());
  t.deepEqual([...rejections.list()], []);
  t.deepEqual(heard, ["added shop/p", "added shop/q", "deleted shop/q", "deleted shop/p"]);
});

test("what a waypoint rejects is known by the key of its resource, apart from the same name at another waypoint", (t) => {
  const { connect, rejections } = setUp();
  const name = "inbound-vip|80|http|web.shop.svc.cluster.local";
  const waypoint = (key: string, message: string): XdsClientStatus =>
    client({ kind: "waypoint", waypoint: key }, { [routeTypeUrl]: [[name, message]], [listenerTypeUrl]: [["service/shop/web", message]] });
  connect(waypoint("shop/wp", "a lookahead"), waypoint("shop/wp", "a lookahead"), waypoint("other/wp", "too deep"));
  const key = (of: string): string => waypointResourceKey({ waypoint: of, kind: "routes", value: { name, virtualHosts: [] } });
  t.like(rejections.get(key("shop/wp")), { waypoint: "shop/wp", name, message: "a lookahead", proxies: 2, typeUrl: routeTypeUrl });
  t.like(rejections.get(key("other/wp")), { message: "too deep", proxies: 1 });
  t.is(rejections.get("shop/wp|target|service/shop/web")?.typeUrl, listenerTypeUrl);
});

test("a waypoint says nothing about policies and a node nothing about routes: neither is asked", (t) => {
  const { connect, rejections } = setUp();
  connect(client({ kind: "waypoint", waypoint: "shop/wp" }, { [authorizationTypeUrl]: [["shop/p", "no"]] }));
  connect(client({ kind: "node" }, { [routeTypeUrl]: [["r", "no"]] }));
  connect(client({ kind: "grpc", namespace: "shop" }, { [routeTypeUrl]: [["r", "no"]] }));
  t.deepEqual([...rejections.list()], []);
});

test("connected clients are counted by what they are", async (t) => {
  const { connect, registry } = setUp();
  connect(ztunnel(), ztunnel(), client({ kind: "grpc", namespace: "shop" }, {}));
  const text = await registry.metrics();
  for (const line of ['pilot_xds{type="node"} 2', 'pilot_xds{type="waypoint"} 0', 'pilot_xds{type="grpc"} 1']) t.true(text.includes(line), line);
});
