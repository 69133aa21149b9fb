import test from "ava";
import { networkId, parseIp } from "./address.ts";
import { type BalanceRequest, balance, chooseIp, pickByWeight } from "./balance.ts";
import type { ResolveContext } from "./resolve.ts";
import { aMesh, aService, aWorkload, byAddress, keyOfService } from "./sample-mesh.ts";
import type { LoadBalancing, Service } from "./service.ts";
import type { Workload } from "./workload.ts";

const source = aWorkload("client", { locality: { region: "r1", zone: "z1", subzone: "s1" }, node: "node1" });
const vip = parseIp("10.1.0.1");

/** Names of the endpoints that receive anything, over evenly spread draws. */
function reached(service: Service, workloads: readonly Workload[], request: Partial<BalanceRequest> = {}): string {
  const names = new Set<string>();
  for (let draw = 0; draw < 50; draw++) {
    const context = contextOf(service, workloads, () => draw / 50);
    const upstream = balance(context, { source, service, port: 80, wanted: vip, mode: "standard", ...request });
    if (upstream !== undefined) names.add(`${upstream.workload.name}:${upstream.port}`);
  }
  return [...names].sort().join(" ");
}

function contextOf(service: Service, workloads: readonly Workload[], random: () => number): ResolveContext {
  return { snapshot: aMesh({ workloads, services: [service] }), network: networkId(""), random, ownPorts: new Set() };
}

const web = aService("web", { ip: ["10.1.0.1"], port: { 80: 8080, 81: 0 } });
const endpoint = (name: string, fields: Parameters<typeof aWorkload>[1] = {}) =>
  aWorkload(name, { ips: ["10.0.0.1"], of: { "default/web.default": {} }, ...fields });

test("the endpoint's port mapping goes before the service's, and a port that maps nowhere drops the endpoint", (t) => {
  const own = endpoint("own", { of: { "default/web.default": { 80: 9090, 81: 9091 } } });
  const plain = endpoint("plain");
  t.is(reached(web, [own, plain]), "own:9090 plain:8080");
  t.is(reached(web, [own, plain], { port: 81 }), "own:9091");
  t.is(reached(web, [plain], { port: 81 }), "");
  t.is(reached(web, [own, plain], { port: 82 }), "");
});

test("an endpoint that maps a port the service does not offer is not asked for it", (t) => {
  t.is(reached(web, [endpoint("own", { of: { "default/web.default": { 82: 9090 } } })], { port: 82 }), "");
});

test("a waypoint listens behind its application tunnel even on a port its service does not list", (t) => {
  const tunnelled = endpoint("tunnelled", { applicationTunnel: { protocol: "proxy", port: 15_088 } });
  t.is(reached(web, [tunnelled, endpoint("plain")], { port: 15_008, mode: "waypoint" }), "tunnelled:15008");
  t.is(reached(web, [tunnelled], { port: 15_008, mode: "standard" }), "");
});

test("endpoints of other services, and unknown ones, are not chosen", (t) => {
  t.is(reached(web, [aWorkload("stranger", { ips: ["10.0.0.9"], of: { "default/other.default": { 80: 80 } } })]), "");
});

test("unhealthy endpoints are chosen only when the service allows all", (t) => {
  const sick = endpoint("sick", { status: "unhealthy" });
  const allowAll = { ...web, loadBalancing: { ...web.loadBalancing, healthPolicy: "allow-all" as const } };
  t.is(reached(web, [sick, endpoint("well")]), "well:8080");
  t.is(reached(web, [sick]), "");
  t.is(reached(allowAll, [sick, endpoint("well")]), "sick:8080 well:8080");
});

test("an endpoint without address needs a hostname, or a gateway on another network", (t) => {
  const west = networkId("west");
  t.is(reached(web, [endpoint("bare", { ips: [] })]), "");
  t.is(reached(web, [endpoint("named", { ips: [], hostname: "vm.example.com" })]), "named:8080");
  t.is(reached(web, [endpoint("remote", { ips: [], network: west, networkGateway: byAddress("1.2.3.4") })]), "remote:8080");
  t.is(reached(web, [endpoint("remote", { ips: [], network: west })]), "");
  t.is(reached(web, [endpoint("near", { ips: [], networkGateway: byAddress("1.2.3.4") })]), "");
});

test("capacity is the weight: none of it receives nothing", (t) => {
  t.is(reached(web, [endpoint("off", { capacity: 0 }), endpoint("on")]), "on:8080");
  t.is(reached(web, [endpoint("off", { capacity: 0 })]), "");
  const draws = Array.from({ length: 100 }, (_, index) =>
    pickByWeight(
      [1, 3],
      (weight) => weight,
      () => index / 100,
    ),
  );
  t.is(draws.filter((weight) => weight === 3).length, 75);
});

test("a draw at the very end of the range still chooses something with weight", (t) => {
  t.is(
    pickByWeight(
      [5, 0],
      (weight) => weight,
      () => 1 - Number.EPSILON / 2,
    ),
    5,
  );
  t.is(
    pickByWeight(
      [0.1, 0.2, 0.3],
      (weight) => weight,
      () => 1 - Number.EPSILON / 2,
    ),
    0.3,
  );
  t.is(
    pickByWeight<number>(
      [],
      (weight) => weight,
      () => 0,
    ),
    undefined,
  );
});

const at = (name: string, place: string, fields: Parameters<typeof aWorkload>[1] = {}) => {
  const [region = "", zone = "", subzone = "", node = ""] = place.split("/");
  return endpoint(name, { locality: { region, zone, subzone }, node, ...fields });
};
const preferring = (mode: LoadBalancing["mode"], ...routingPreference: LoadBalancing["routingPreference"]) => ({
  ...web,
  loadBalancing: { ...web.loadBalancing, mode, routingPreference },
});

const localityCases: readonly [string, Service, readonly Workload[], string][] = [
  ["failover keeps the nearest", preferring("failover", "region", "zone"), [at("near", "r1/z1"), at("far", "r1/z2"), at("away", "r2/z1")], "near:8080"],
  ["failover takes the next best", preferring("failover", "region", "zone"), [at("far", "r1/z2"), at("away", "r2/z1")], "far:8080"],
  ["failover takes anything", preferring("failover", "region", "zone"), [at("away", "r2/z1"), at("b", "r3/z1")], "away:8080 b:8080"],
  ["a zone is compared without its region", preferring("failover", "zone"), [at("same", "r2/z1"), at("other", "r1/z2")], "same:8080"],
  ["strict keeps what matches all", preferring("strict", "region", "zone"), [at("near", "r1/z1"), at("far", "r1/z2")], "near:8080"],
  ["strict keeps nothing else", preferring("strict", "node"), [at("far", "r1/z1/s1/node2")], ""],
  ["strict without scopes keeps all", preferring("strict"), [at("a", "r1"), at("b", "r2")], "a:8080 b:8080"],
  ["no mode, no preference", preferring("unspecified", "node"), [at("a", "r1//" + "/node1"), at("b", "r1///node2")], "a:8080 b:8080"],
  ["the cluster is a scope", preferring("failover", "cluster"), [at("a", "r1", { clusterId: "other" }), at("b", "r2")], "b:8080"],
  [
    "a network in first place puts local endpoints before remote ones, however near those are",
    preferring("failover", "network", "region", "zone"),
    [at("remote", "r1/z1", { network: networkId("west") }), at("local", "r2/z2")],
    "local:8080",
  ],
  [
    "remote endpoints are still ordered by locality",
    preferring("failover", "network", "region", "zone"),
    [at("near", "r1/z2", { network: networkId("west") }), at("far", "r2/z1", { network: networkId("west") })],
    "near:8080",
  ],
  [
    "a network in a later place ends the count",
    preferring("failover", "region", "network", "zone"),
    [at("remote", "r1/z1", { network: networkId("west") }), at("local", "r1/z2")],
    "local:8080",
  ],
];
for (const [name, service, workloads, expected] of localityCases) test(name, (t) => t.is(reached(service, workloads), expected));

test("of several addresses the one asked for is dialled, else one of its family, within the service's families", (t) => {
  const dual = endpoint("dual", { ips: ["fd00::1", "10.0.0.1"] });
  const wanted4 = parseIp("10.1.0.1");
  const wanted6 = parseIp("fd01::1");
  t.is(chooseIp(dual, web, parseIp("fd00::1")), parseIp("fd00::1"));
  t.is(chooseIp(dual, web, wanted4), parseIp("10.0.0.1"));
  t.is(chooseIp(dual, web, wanted6), parseIp("fd00::1"));
  t.is(chooseIp(dual, { ...web, ipFamilies: "ipv6" }, wanted4), parseIp("fd00::1"));
  t.is(chooseIp(dual, { ...web, ipFamilies: "ipv4" }, wanted6), parseIp("10.0.0.1"));
  t.is(chooseIp(endpoint("six", { ips: ["fd00::1"] }), web, wanted4), parseIp("fd00::1"));
  t.is(chooseIp(endpoint("six", { ips: ["fd00::1"] }), { ...web, ipFamilies: "ipv4" }, wanted4), undefined);
});

test("the key of the sample service is its namespace and hostname", (t) => {
  t.is(String(keyOfService(web)), "default/web.default");
});
