import test from "ava";
import fc from "fast-check";
import { networkId, parseIp } from "./address.ts";
import type { InboundRoute } from "./resolve.ts";
import { resolveInbound } from "./resolve-inbound.ts";
import { aMesh, aService, aWorkload, byAddress, byHostname } from "./sample-mesh.ts";
import type { SnapshotChange } from "./snapshot.ts";
import type { Workload } from "./workload.ts";

const server = aWorkload("server", { ips: ["10.0.0.1"], of: { "default/web.default": { 81: 9091 } } });
const web = aService("web", { ip: ["10.1.0.1"], port: { 80: 8080, 81: 0, 82: 0 } });
const mesh: SnapshotChange = { workloads: [server, aWorkload("other", { ips: ["10.0.0.2"] })], services: [web] };

function ask(local: Workload, authority: string, change: SnapshotChange = mesh, forwardedHost?: string): InboundRoute {
  const ip = local.addresses[0] ?? parseIp("10.0.0.1");
  const snapshot = aMesh({ ...change, workloads: [...(change.workloads ?? []), local] });
  const context = { snapshot, network: networkId(""), random: () => 0, ownPorts: new Set([15_001, 15_006, 15_008]) };
  return resolveInbound(context, local, { local: { ip, port: 15_008 }, authority, forwardedHost });
}

function told(route: InboundRoute): string {
  if (route.kind === "reject") return `${route.status} ${route.reason}`;
  const header = route.proxyHeader === undefined ? "" : ` PROXY ${route.proxyHeader.destination.ip}:${route.proxyHeader.destination.port}`;
  return `${route.loopback ? "loopback " : ""}${route.to.ip}:${route.to.port}${header}`;
}

const cases: readonly [string, string, string][] = [
  ["the pod's own address is accepted", "10.0.0.1:8080", "10.0.0.1:8080"],
  ["another pod's address is not", "10.0.0.2:8080", "400 ip-mismatch"],
  ["an unknown address is not", "10.0.0.77:8080", "400 ip-mismatch"],
  ["the address of a service without waypoint is not, though the pod is an endpoint", "10.1.0.1:80", "400 ip-mismatch"],
  ["a hostname is mapped by the service", "web.default:80", "10.0.0.1:8080"],
  ["a hostname is mapped by the endpoint", "web.default:81", "10.0.0.1:9091"],
  ["a port that maps nowhere is unavailable", "web.default:82", "503 no-port-mapping"],
  ["a port that the service does not have is unavailable", "web.default:83", "503 no-port-mapping"],
  ["a hostname that nobody knows is unavailable", "nowhere.default:80", "503 unknown-hostname"],
  ["our own ports are refused", "10.0.0.1:15001", "503 self-call"],
  ["an authority without port is bad", "10.0.0.1", "400 bad-authority"],
  ["a hostname without port is bad", "web.default", "400 bad-authority"],
  ["port 0 is bad", "10.0.0.1:0", "400 bad-authority"],
  ["a port beyond the last is bad", "web.default:65536", "400 bad-authority"],
  ["a broken address is bad, not a name", "10.0.0:80", "400 bad-authority"],
  ["IPv6 without brackets is bad", "fd00::1:80", "400 bad-authority"],
  ["an empty authority is bad", "", "400 bad-authority"],
  ["user information is bad", "user@web.default:80", "400 bad-authority"],
];
for (const [name, authority, expected] of cases) test(name, (t) => t.is(told(ask(server, authority)), expected));

test("no authority whatsoever is an exception", (t) => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.webAuthority({ withPort: true }), fc.ipV6(), fc.ipV4()), (authority) => void ask(server, authority)));
  t.pass();
});

test("an own port reached through a mapping is refused too", (t) => {
  t.is(told(ask(server, "loop.default:80", { services: [aService("loop", { port: { 80: 15_006 } })] })), "503 self-call");
});

// A waypoint's own tunnel end

const waypoint = aWorkload("waypoint", { ips: ["10.0.0.50"], of: { "default/waypoint.default": {} } });
const waypointService = aService("waypoint", { ip: ["10.1.0.50"], port: { 15008: 15_008 } });

test("a waypoint may be asked for the services bound to it, in every way a binding is written", (t) => {
  for (const address of [byAddress("10.0.0.50"), byAddress("10.1.0.50"), byHostname("default", "waypoint.default")]) {
    t.is(told(ask(waypoint, "10.1.0.1:80", { services: [waypointService, { ...web, waypoint: address }] })), "10.0.0.50:80");
    const weightedWaypoints = [{ destination: address, weight: 0 }];
    t.is(told(ask(waypoint, "10.1.0.1:80", { services: [waypointService, { ...web, weightedWaypoints }] })), "10.0.0.50:80");
  }
});

test("a waypoint may be asked for the workloads bound to it, and not for those that are not", (t) => {
  const bound = { ...server, waypoint: byAddress("10.1.0.50") };
  t.is(told(ask(waypoint, "10.0.0.1:80", { workloads: [bound], services: [waypointService] })), "10.0.0.50:80");
  t.is(told(ask(waypoint, "10.0.0.1:80", { workloads: [server], services: [waypointService] })), "400 ip-mismatch");
});

test("a binding of the service says nothing about its pods, and the reverse", (t) => {
  const boundService = { ...web, waypoint: byAddress("10.1.0.50") };
  t.is(told(ask(waypoint, "10.0.0.1:80", { workloads: [server], services: [waypointService, boundService] })), "400 ip-mismatch");
  const boundPod = { ...server, waypoint: byAddress("10.1.0.50") };
  t.is(told(ask(waypoint, "10.1.0.1:80", { workloads: [boundPod], services: [waypointService, web] })), "400 ip-mismatch");
});

test("a waypoint may be asked for a service that only another namespace sees, and for each of several at one address", (t) => {
  const toWaypoint = byHostname("default", "waypoint.default");
  const hidden = { ...aService("hidden", { namespace: "shop", ip: ["10.1.0.1"] }), visibility: "namespace" as const, waypoint: toWaypoint };
  t.is(told(ask(waypoint, "10.1.0.1:80", { services: [waypointService, hidden] })), "10.0.0.50:80");
  t.is(
    told(ask(waypoint, "10.1.0.1:80", { services: [waypointService, { ...web, canonical: true }, hidden] })),
    "10.0.0.50:80",
    "beside one that is not bound",
  );
  const range = { ...aService("range", { namespace: "shop", ranges: ["10.1.0.0/16"] }), visibility: "namespace" as const, waypoint: toWaypoint };
  t.is(told(ask(waypoint, "10.1.7.7:80", { services: [waypointService, range] })), "10.0.0.50:80");
  t.is(told(ask(waypoint, "10.2.0.1:80", { services: [waypointService, range] })), "400 ip-mismatch");
});

test("what is bound to another waypoint is refused", (t) => {
  t.is(told(ask(waypoint, "10.1.0.1:80", { services: [waypointService, { ...web, waypoint: byAddress("10.0.0.51") }] })), "400 ip-mismatch");
});

// Application tunnels

test("an application tunnel without PROXY only replaces the port", (t) => {
  const tunnelled = { ...waypoint, applicationTunnel: { protocol: "none" as const, port: 15_088 } };
  t.is(told(ask(tunnelled, "10.0.0.1:80")), "10.0.0.50:15088");
  t.is(told(ask({ ...tunnelled, applicationTunnel: { protocol: "none", port: undefined } }, "10.0.0.1:80")), "10.0.0.50:80");
});

test("an application tunnel with PROXY is dialled on loopback and told what was asked for", (t) => {
  const tunnelled = { ...waypoint, applicationTunnel: { protocol: "proxy" as const, port: 15_088 } };
  t.is(told(ask(tunnelled, "10.0.0.1:80")), "loopback 10.0.0.50:15088 PROXY 10.0.0.1:80");
  t.is(told(ask(tunnelled, "10.1.0.1:80")), "loopback 10.0.0.50:15088 PROXY 10.1.0.1:80");
  t.is(told(ask(tunnelled, "web.default:80")), "loopback 10.0.0.50:15088 PROXY 10.1.0.1:80");
});

test("a name in the PROXY header becomes an address of our network, IPv4 if there is one", (t) => {
  const tunnelled = { ...waypoint, applicationTunnel: { protocol: "proxy" as const, port: 15_088 } };
  const [foreign] = aService("x", { ip: ["10.9.0.1"] }).vips;
  const vips = [{ ...(foreign ?? web.vips[0]), network: networkId("west") }, ...aService("x", { ip: ["fd00::1", "10.1.0.7"] }).vips] as typeof web.vips;
  t.is(told(ask(tunnelled, "web.default:80", { services: [{ ...web, vips }] })), "loopback 10.0.0.50:15088 PROXY 10.1.0.7:80");
  t.is(told(ask(tunnelled, "web.default:80", { services: [{ ...web, vips: [] }] })), "503 no-service-address");
});

// Labels

test("the service named by the client labels the stream when it is the pod's, else the first that leads to the port", (t) => {
  const pod = aWorkload("pod", { ips: ["10.0.0.1"], of: { "default/a.default": {}, "default/b.default": {}, "default/c.default": { 80: 9999 } } });
  const services = [aService("a", { port: { 80: 7070 } }), aService("b"), aService("c")];
  const label = (authority: string, host?: string) => {
    const route = ask(pod, authority, { services }, host);
    return route.kind === "accept" ? route.service?.name : route.reason;
  };
  t.is(label("10.0.0.1:8080"), "b");
  t.is(label("10.0.0.1:9999"), "c");
  t.is(label("10.0.0.1:8080", "a.default"), "a");
  t.is(label("10.0.0.1:8080", "elsewhere.default"), "b");
  t.is(label("10.0.0.1:1234"), undefined);
  t.is(label("c.default:80"), "c");
});
