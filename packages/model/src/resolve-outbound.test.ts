import test from "ava";
import { networkId, tryParseSocketAddress } from "./address.ts";
import type { OutboundRoute, ResolveContext } from "./resolve.ts";
import { resolveOutbound } from "./resolve-outbound.ts";
import { aMesh, aService, aWorkload, byAddress, byHostname } from "./sample-mesh.ts";
import type { SnapshotChange } from "./snapshot.ts";
import type { Workload, WorkloadUid } from "./workload.ts";

const west = networkId("west");
const client = aWorkload("client", { ips: ["10.0.0.99"], namespace: "clients" });
const ownPorts = new Set([15_001, 15_006, 15_008]);

function ask(change: SnapshotChange, to: string, options: { source?: Workload; random?: number } = {}): OutboundRoute {
  const source = options.source ?? client;
  const context: ResolveContext = {
    snapshot: aMesh({ ...change, workloads: [source, ...(change.workloads ?? [])] }),
    network: networkId(""),
    random: () => options.random ?? 0,
    ownPorts,
  };
  const destination = tryParseSocketAddress(to);
  if (destination === undefined) throw new Error(`${to} is not a socket address`);
  return resolveOutbound(context, source, destination);
}

/** A route in one line: what is dialled, what is asked for, whom we expect. */
function told(route: OutboundRoute): string {
  const hop = (at: Extract<OutboundRoute, { nextHop: unknown }>["nextHop"]) =>
    at.kind === "address" ? `${at.address.ip}:${at.address.port}` : `${at.hostname}:${at.port}`;
  const names = (ids: readonly string[]) => `[${ids.map((id) => id.replace("spiffe://cluster.local/ns/", "")).join(" ")}]`;
  switch (route.kind) {
    case "hbone":
      return `hbone ${hop(route.nextHop)} for ${route.authority} ${names(route.expected)} ${route.via} ${route.target.workload?.name}`;
    case "double-hbone":
      return `double ${hop(route.nextHop)} for ${route.authority} ${names(route.expected)} inner ${names(route.innerExpected)}`;
    case "tcp":
      return `tcp ${hop(route.nextHop)} ${route.target.workload?.name}`;
    case "passthrough":
      return `passthrough ${route.to.ip}:${route.to.port}`;
    case "deny":
      return `deny ${route.reason}`;
  }
}

const server = aWorkload("server", { ips: ["10.0.0.1"], of: { "default/web.default": {} }, serviceAccount: "server" });
const web = aService("web", { ip: ["10.1.0.1"] });
const waypointPod = aWorkload("waypoint", { ips: ["10.0.0.50"], serviceAccount: "waypoint", of: { "default/waypoint.default": {} } });
const waypointService = aService("waypoint", { ip: ["10.1.0.50"], port: { 15008: 15_008 } });
const waypoint = { workloads: [waypointPod], services: [waypointService] };
const throughWaypoint = "hbone 10.0.0.50:15008 for 10.1.0.1:80 [default/sa/waypoint] waypoint waypoint";

const cases: readonly [string, SnapshotChange, string, string][] = [
  ["unknown destinations pass through", {}, "93.184.216.34:443", "passthrough 93.184.216.34:443"],
  ["our own ports on loopback are refused", {}, "127.0.0.1:15001", "deny self-call"],
  ["our own ports on IPv6 loopback are refused", {}, "[::1]:15008", "deny self-call"],
  ["other ports on loopback are not ours", {}, "127.0.0.1:8080", "passthrough 127.0.0.1:8080"],
  ["a captured pod is tunnelled to", { workloads: [server] }, "10.0.0.1:8080", "hbone 10.0.0.1:15008 for 10.0.0.1:8080 [default/sa/server] endpoint server"],
  ["a pod outside the mesh is dialled plainly", { workloads: [{ ...server, tunnelProtocol: "none" }] }, "10.0.0.1:8080", "tcp 10.0.0.1:8080 server"],
  ["a pod of another network is not the one meant", { workloads: [{ ...server, network: west }] }, "10.0.0.1:8080", "passthrough 10.0.0.1:8080"],
  ["a host-network pod is not found by address", { workloads: [{ ...server, networkMode: "host-network" }] }, "10.0.0.1:80", "passthrough 10.0.0.1:80"],
  [
    "a service leads to its endpoint, port mapped, its published identities expected too",
    { workloads: [server], services: [{ ...web, subjectAltNames: ["spiffe://td/ns/a/sa/b" as never] }] },
    "10.1.0.1:80",
    "hbone 10.0.0.1:15008 for 10.0.0.1:8080 [spiffe://td/ns/a/sa/b default/sa/server] endpoint server",
  ],
  [
    "a service leads to endpoints outside the mesh",
    { workloads: [{ ...server, tunnelProtocol: "none" }], services: [web] },
    "10.1.0.1:80",
    "tcp 10.0.0.1:8080 server",
  ],
  ["a service without endpoints is refused", { services: [web] }, "10.1.0.1:80", "deny no-healthy-upstream"],
  ["a port that the service does not offer is refused", { workloads: [server], services: [web] }, "10.1.0.1:81", "deny no-healthy-upstream"],
  [
    "endpoints that are unhealthy are no upstream",
    { workloads: [{ ...server, status: "unhealthy" }], services: [web] },
    "10.1.0.1:80",
    "deny no-healthy-upstream",
  ],
  [
    "a host-network endpoint is reached through its service though two pods share its address",
    {
      workloads: [
        aWorkload("agent", { ips: ["10.0.0.7"], networkMode: "host-network", tunnelProtocol: "none", of: { "default/web.default": {} } }),
        aWorkload("other", { ips: ["10.0.0.7"], networkMode: "host-network", tunnelProtocol: "none" }),
      ],
      services: [web],
    },
    "10.1.0.1:80",
    "tcp 10.0.0.7:8080 agent",
  ],
  [
    "a service's passthrough mode keeps the original destination",
    { workloads: [server], services: [aService("open", { ranges: ["10.1.0.0/16"], loadBalancing: { ...web.loadBalancing, mode: "passthrough" } })] },
    "10.1.0.1:80",
    "passthrough 10.1.0.1:80",
  ],
  [
    "a passthrough service still goes through its waypoint",
    {
      workloads: [waypointPod],
      services: [
        waypointService,
        aService("open", { ranges: ["10.1.0.0/16"], waypoint: byAddress("10.1.0.50"), loadBalancing: { ...web.loadBalancing, mode: "passthrough" } }),
      ],
    },
    "10.1.0.1:80",
    throughWaypoint,
  ],
  [
    "a service's waypoint is found by hostname",
    { ...waypoint, services: [waypointService, { ...web, waypoint: byHostname("default", "waypoint.default") }] },
    "10.1.0.1:80",
    throughWaypoint,
  ],
  [
    "a service's waypoint is found by virtual address",
    { ...waypoint, services: [waypointService, { ...web, waypoint: byAddress("10.1.0.50") }] },
    "10.1.0.1:80",
    throughWaypoint,
  ],
  ["a service's waypoint is found by pod address", { ...waypoint, services: [{ ...web, waypoint: byAddress("10.0.0.50") }] }, "10.1.0.1:80", throughWaypoint],
  [
    "a service's waypoint is found as a workload with a hostname",
    { workloads: [{ ...waypointPod, hostname: "wp.example.com" }], services: [{ ...web, waypoint: byHostname("default", "wp.example.com") }] },
    "10.1.0.1:80",
    throughWaypoint,
  ],
  [
    "a waypoint that nobody knows denies",
    { workloads: [server], services: [{ ...web, waypoint: byHostname("default", "waypoint.default") }] },
    "10.1.0.1:80",
    "deny unknown-waypoint",
  ],
  [
    "a waypoint without endpoints denies",
    { workloads: [server], services: [waypointService, { ...web, waypoint: byAddress("10.1.0.50") }] },
    "10.1.0.1:80",
    "deny waypoint-not-ready",
  ],
  ["a waypoint at port 0 denies", { ...waypoint, services: [{ ...web, waypoint: byAddress("10.0.0.50", 0) }] }, "10.1.0.1:80", "deny unknown-waypoint"],
  [
    "a waypoint that only its owner's namespace sees is used for clients elsewhere",
    {
      ...waypoint,
      services: [
        { ...waypointService, visibility: "namespace" },
        { ...web, waypoint: byAddress("10.1.0.50") },
      ],
    },
    "10.1.0.1:80",
    throughWaypoint,
  ],
  [
    "pod addresses do not take the service's waypoint",
    { workloads: [server, waypointPod], services: [waypointService, { ...web, waypoint: byAddress("10.1.0.50") }] },
    "10.0.0.1:8080",
    "hbone 10.0.0.1:15008 for 10.0.0.1:8080 [default/sa/server] endpoint server",
  ],
  [
    "a workload's waypoint is asked for the pod's address",
    { ...waypoint, workloads: [waypointPod, { ...server, waypoint: byAddress("10.1.0.50") }] },
    "10.0.0.1:8080",
    "hbone 10.0.0.50:15008 for 10.0.0.1:8080 [default/sa/waypoint] waypoint waypoint",
  ],
  ["a workload's unknown waypoint denies", { workloads: [{ ...server, waypoint: byAddress("10.1.0.50") }] }, "10.0.0.1:8080", "deny unknown-waypoint"],
  [
    "a workload's waypoint on another network denies",
    {
      workloads: [
        { ...waypointPod, network: west },
        { ...server, waypoint: byAddress("10.0.0.50", 15_008, west) },
      ],
    },
    "10.0.0.1:8080",
    "deny no-service-for-target",
  ],
  [
    "a service without waypoint takes that of the endpoint, which is asked for the endpoint that was chosen",
    { workloads: [waypointPod, { ...server, waypoint: byAddress("10.1.0.50") }], services: [waypointService, web] },
    "10.1.0.1:80",
    "hbone 10.0.0.50:15008 for 10.0.0.1:8080 [default/sa/waypoint] waypoint waypoint",
  ],
  [
    "a workload with a hostname only is dialled by name",
    { workloads: [aWorkload("vm", { hostname: "vm.example.com", tunnelProtocol: "none", of: { "default/web.default": {} } })], services: [web] },
    "10.1.0.1:80",
    "tcp vm.example.com:8080 vm",
  ],
  [
    "an endpoint whose families the service excludes has no destination",
    { workloads: [server], services: [{ ...web, ipFamilies: "ipv6" }] },
    "10.1.0.1:80",
    "deny no-valid-destination",
  ],
  [
    "where a workload and a service share an address, the service is balanced and its waypoint is not asked",
    { workloads: [server, aWorkload("same", { ips: ["10.1.0.1"] })], services: [{ ...web, waypoint: byHostname("default", "nowhere") }] },
    "10.1.0.1:80",
    "hbone 10.0.0.1:15008 for 10.0.0.1:8080 [default/sa/server] endpoint server",
  ],
];
for (const [name, change, to, expected] of cases) test(name, (t) => t.is(told(ask(change, to)), expected));

test("a multi-address workload is dialled at the address that was asked for", (t) => {
  const dual = { ...server, addresses: aWorkload("x", { ips: ["10.0.0.1", "10.0.0.2"] }).addresses };
  t.regex(told(ask({ workloads: [dual] }, "10.0.0.2:8080")), /^hbone 10\.0\.0\.2:15008 for 10\.0\.0\.2:8080/);
});

test("an IPv6 authority is in brackets", (t) => {
  const six = aWorkload("six", { ips: ["fd00::1"] });
  t.regex(told(ask({ workloads: [six] }, "[fd00::1]:80")), /^hbone fd00::1:15008 for \[fd00::1\]:80 /);
});

test("a waypoint goes directly to the workloads behind it, by pod address and by service", (t) => {
  const behind = { ...server, waypoint: byAddress("10.1.0.50") };
  const mesh = { workloads: [behind], services: [waypointService, web] };
  t.regex(told(ask(mesh, "10.0.0.1:8080", { source: waypointPod })), /^hbone 10\.0\.0\.1:15008 .* endpoint server$/);
  t.regex(told(ask(mesh, "10.1.0.1:80", { source: waypointPod })), /^hbone 10\.0\.0\.1:15008 .* endpoint server$/);
});

test("a waypoint that asks for a service bound to it is led to itself, as everybody is", (t) => {
  const mesh = { workloads: [server], services: [waypointService, { ...web, waypoint: byAddress("10.1.0.50") }] };
  t.is(told(ask(mesh, "10.1.0.1:80", { source: waypointPod })), throughWaypoint);
});

test("another workload of the waypoint's identity is not the waypoint", (t) => {
  const impostor = aWorkload("impostor", { ips: ["10.0.0.51"], serviceAccount: "waypoint" });
  const mesh = { workloads: [waypointPod, { ...server, waypoint: byAddress("10.1.0.50") }], services: [waypointService] };
  t.regex(told(ask(mesh, "10.0.0.1:8080", { source: impostor })), /waypoint waypoint$/);
});

test("weighted waypoints are drawn by weight, override the single one, and give way to it when they carry none", (t) => {
  const canaryPod = aWorkload("canary", { ips: ["10.0.0.51"] });
  const mesh = (primary: number, canary: number) => ({
    workloads: [waypointPod, canaryPod],
    services: [
      waypointService,
      {
        ...web,
        waypoint: byAddress("10.0.0.50"),
        weightedWaypoints: [
          { destination: byAddress("10.0.0.50"), weight: primary },
          { destination: byAddress("10.0.0.51"), weight: canary },
        ],
      },
    ],
  });
  const drawn = (primary: number, canary: number) =>
    Array.from({ length: 10 }, (_, index) => {
      const { target } = ask(mesh(primary, canary), "10.1.0.1:80", { random: index / 10 });
      return target.workload?.name === "canary" ? 1 : 0;
    }).reduce<number>((sum, one) => sum + one, 0);
  t.deepEqual([drawn(90, 10), drawn(50, 50), drawn(0, 1)], [1, 5, 10]);
  t.is(ask(mesh(0, 0), "10.1.0.1:80").target.workload?.name, "waypoint");
});

// Across networks

const gateway = aWorkload("gateway", {
  ips: ["172.16.0.1"],
  uid: "NetworkGateway/west/172.16.0.1/15009" as WorkloadUid,
  namespace: "istio-system",
  network: west,
  serviceAccount: "gw",
});
const remote = aWorkload("remote", { of: { "default/web.default": {} }, network: west, networkGateway: byAddress("172.16.0.1", 15_009, west) });
const spread = { ...web, subjectAltNames: ["spiffe://cluster.local/ns/default/sa/remote" as never] };
const acrossNetworks = "double 172.16.0.1:15009 for web.default:80 [istio-system/sa/gw] inner [default/sa/remote]";

test("a service's endpoint on another network is reached through that network's gateway, asked for by name", (t) => {
  t.is(told(ask({ workloads: [remote, gateway], services: [spread] }, "10.1.0.1:80")), acrossNetworks);
});

test("a gateway that is a service is balanced and its port mapped", (t) => {
  const pod = aWorkload("gw", {
    ips: ["172.16.0.9"],
    serviceAccount: "gw",
    of: { "istio-system/gw.istio-system": {} },
    namespace: "istio-system",
    network: west,
  });
  const service = aService("gw", { namespace: "istio-system", port: { 15009: 15_008 }, subjectAltNames: ["spiffe://cluster.local/ns/x/sa/y" as never] });
  const far = { ...remote, networkGateway: byHostname("istio-system", "gw.istio-system", 15_009) };
  const route = ask({ workloads: [far, pod], services: [spread, service] }, "10.1.0.1:80");
  t.is(told(route), "double 172.16.0.9:15008 for web.default:80 [x/sa/y istio-system/sa/gw] inner [default/sa/remote]");
  const closed = ask({ workloads: [far, pod], services: [spread, { ...service, ports: [] }] }, "10.1.0.1:80");
  t.is(told(closed), "deny unknown-gateway");
});

test("without a known gateway another network is out of reach", (t) => {
  t.is(told(ask({ workloads: [remote], services: [spread] }, "10.1.0.1:80")), "deny unknown-gateway");
  const cut = { ...remote, addresses: server.addresses, networkGateway: undefined };
  t.is(told(ask({ workloads: [cut, gateway], services: [spread] }, "10.1.0.1:80")), "deny unknown-gateway");
});

test("failover leaves the network only when nothing is left on it", (t) => {
  const preferring = { ...spread, loadBalancing: { ...web.loadBalancing, mode: "failover" as const, routingPreference: ["network" as const] } };
  t.regex(told(ask({ workloads: [remote, gateway, server], services: [preferring] }, "10.1.0.1:80", { random: 0.99 })), /^hbone 10\.0\.0\.1:15008/);
  t.is(told(ask({ workloads: [remote, gateway, { ...server, status: "unhealthy" }], services: [preferring] }, "10.1.0.1:80")), acrossNetworks);
});

test("a waypoint on another network is reached through that network's gateway, the waypoint's identities expected inside", (t) => {
  const farWaypoint = { ...waypointPod, addresses: [], network: west, networkGateway: byAddress("172.16.0.1", 15_009, west) };
  const service = { ...waypointService, subjectAltNames: ["spiffe://cluster.local/ns/default/sa/waypoint" as never] };
  const route = ask(
    { workloads: [farWaypoint, gateway], services: [service, { ...spread, waypoint: byHostname("default", "waypoint.default") }] },
    "10.1.0.1:80",
  );
  t.is(told(route), "double 172.16.0.1:15009 for web.default:80 [istio-system/sa/gw] inner [default/sa/waypoint]");
});

test("only services cross networks: an address that a workload shares with a service does not", (t) => {
  const mesh = { workloads: [remote, gateway, aWorkload("same", { ips: ["10.1.0.1"] })], services: [spread] };
  t.is(told(ask(mesh, "10.1.0.1:80")), "deny no-service-for-target");
});

test("a service that the client's namespace cannot see is unknown to it", (t) => {
  const hidden = { ...web, visibility: "namespace" as const };
  t.is(told(ask({ workloads: [server], services: [hidden] }, "10.1.0.1:80")), "passthrough 10.1.0.1:80");
  t.regex(told(ask({ workloads: [server], services: [hidden] }, "10.1.0.1:80", { source: aWorkload("neighbour") })), /^hbone/);
});

test("a denial names what was looked for", (t) => {
  const route = ask({ workloads: [server], services: [{ ...web, waypoint: byHostname("infra", "wp.infra") }] }, "10.1.0.1:80");
  t.is(route.kind === "deny" && route.message, "unknown waypoint infra/wp.infra:15008, required by default/web.default");
  t.is(route.target.service?.name, "web");
});
