import test from "ava";
import type { EndpointSlice, Service } from "../resources.ts";
import { serviceRules, virtualPorts } from "./service-rules.ts";

const service = (name: string, spec: NonNullable<Service["spec"]>): Service => ({ metadata: { name, namespace: "default" }, spec });

const slice = (service: string, addressType: string, ports: EndpointSlice["ports"], endpoints: EndpointSlice["endpoints"]): EndpointSlice => ({
  metadata: { name: `${service}-${addressType}`, namespace: "default", labels: { "kubernetes.io/service-name": service } },
  addressType,
  ...(ports === undefined ? {} : { ports }),
  ...(endpoints === undefined ? {} : { endpoints }),
});

const web = service("web", { clusterIPs: ["10.96.1.0", "fd00:10:96::100"], ports: [{ name: "http", port: 80, nodePort: 30080 }] });
const webSlices = [
  slice(
    "web",
    "IPv4",
    [{ name: "http", port: 8080, protocol: "TCP" }],
    [
      { addresses: ["10.244.2.2"] },
      { addresses: ["10.244.1.2"], conditions: { ready: true } },
      { addresses: ["10.244.1.9"], conditions: { ready: false, terminating: true } },
    ],
  ),
  slice("web", "IPv6", [{ name: "http", port: 8080, protocol: "TCP" }], [{ addresses: ["fd00:10:244:1::2"] }]),
];

test("each address of a service leads to the ready endpoints of its own family", (t) => {
  t.deepEqual(virtualPorts([web], webSlices), [
    {
      ip: "10.96.1.0",
      protocol: "tcp",
      port: 80,
      nodePort: 30080,
      endpoints: [
        { ip: "10.244.1.2", port: 8080 },
        { ip: "10.244.2.2", port: 8080 },
      ],
    },
    { ip: "fd00:10:96::100", protocol: "tcp", port: 80, nodePort: 30080, endpoints: [{ ip: "fd00:10:244:1::2", port: 8080 }] },
  ]);
});

test("headless and external services, protocols other than TCP and UDP, and slices of other services give no rules of their own", (t) => {
  const others = [
    service("headless", { clusterIP: "None", clusterIPs: ["None"], ports: [{ port: 80 }] }),
    service("outside", { type: "ExternalName", externalName: "example.com", ports: [{ port: 80 }] }),
    service("sctp", { clusterIPs: ["10.96.1.1"], ports: [{ port: 80, protocol: "SCTP" }] }),
  ];
  t.deepEqual(virtualPorts(others, webSlices), []);
  const other = service("other", { clusterIPs: ["10.96.1.2"], ports: [{ name: "http", port: 80 }] });
  t.deepEqual(virtualPorts([other], webSlices)[0]?.endpoints, []);
});

test("the rules share connections, refuse ports without endpoints, and let a pod reach itself", (t) => {
  const none = service("none", { clusterIPs: ["10.96.1.9"], ports: [{ port: 53, protocol: "UDP" }] });
  const rules = serviceRules(virtualPorts([none, web], webSlices), ["172.30.0.11", "fd00:172:30::b"]);
  t.is(
    rules,
    `table inet fairway_services
delete table inet fairway_services
table inet fairway_services {
  map served4 {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.1.0 . tcp . 80 : goto to_0, 172.30.0.11 . tcp . 30080 : goto to_0 }
  }
  map served6 {
    type ipv6_addr . inet_proto . inet_service : verdict
    elements = { fd00:10:96::100 . tcp . 80 : goto to_1, fd00:172:30::b . tcp . 30080 : goto to_1 }
  }
  map refused4 {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.1.9 . udp . 53 : goto refuse }
  }
  map refused6 {
    type ipv6_addr . inet_proto . inet_service : verdict
  }
  set itself4 {
    type ipv4_addr . ipv4_addr
    elements = { 10.244.1.2 . 10.244.1.2, 10.244.2.2 . 10.244.2.2 }
  }
  set itself6 {
    type ipv6_addr . ipv6_addr
    elements = { fd00:10:244:1::2 . fd00:10:244:1::2 }
  }
  chain to_0 {
    meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }
  }
  chain to_1 {
    meta l4proto tcp dnat ip6 to [fd00:10:244:1::2]:8080
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain refuse_forwarded {
    type filter hook prerouting priority -110; policy accept
    ip daddr . meta l4proto . th dport vmap @refused4
    ip6 daddr . meta l4proto . th dport vmap @refused6
  }
  chain refuse_local {
    type filter hook output priority -110; policy accept
    ip daddr . meta l4proto . th dport vmap @refused4
    ip6 daddr . meta l4proto . th dport vmap @refused6
  }
  chain translate_forwarded {
    type nat hook prerouting priority -100; policy accept
    ip daddr . meta l4proto . th dport vmap @served4
    ip6 daddr . meta l4proto . th dport vmap @served6
  }
  chain translate_local {
    type nat hook output priority -100; policy accept
    ip daddr . meta l4proto . th dport vmap @served4
    ip6 daddr . meta l4proto . th dport vmap @served6
  }
  chain unknown_forwarded {
    type filter hook forward priority 0; policy accept
    ip daddr 10.96.0.0/16 goto refuse
    ip6 daddr fd00:10:96::/112 goto refuse
  }
  chain unknown_local {
    type filter hook output priority 0; policy accept
    ip daddr 10.96.0.0/16 goto refuse
    ip6 daddr fd00:10:96::/112 goto refuse
  }
  chain hairpin {
    type nat hook postrouting priority 100; policy accept
    ip saddr . ip daddr @itself4 masquerade
    ip6 saddr . ip6 daddr @itself6 masquerade
    ct status dnat ct original ip daddr 172.30.0.11 masquerade
    ct status dnat ct original ip6 daddr fd00:172:30::b masquerade
  }
}
`,
  );
});

test("equal input gives equal rules, whatever its order", (t) => {
  const ports = (slices: EndpointSlice[]): string => serviceRules(virtualPorts([web], slices), []);
  t.is(ports(webSlices), ports(webSlices.toReversed()));
});
