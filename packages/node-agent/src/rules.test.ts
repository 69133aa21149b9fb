import test from "ava";
import { hostRules } from "./host-rules.ts";
import { podCaptureRemoval, podRules, podRulesRemoval } from "./rules.ts";
import { defaultRules } from "./test-namespaces.ts";

const pod = `add table inet istio-ambient-raw
delete table inet istio-ambient-raw
add table inet istio-ambient-nat
flush table inet istio-ambient-nat
table inet istio-ambient-nat {
  chain istio-prerouting {
    ip saddr 169.254.7.127 meta l4proto tcp counter accept
    ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp counter accept
    ip daddr != 127.0.0.1 tcp dport != 15008 meta mark and 0xfff != 0x539 counter redirect to :15006
    ip6 daddr != ::1 tcp dport != 15008 meta mark and 0xfff != 0x539 counter redirect to :15006
  }
  chain istio-output {
    ip daddr 169.254.7.127 meta l4proto tcp counter accept
    ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp counter accept
    meta l4proto tcp meta mark and 0xfff == 0x111 counter accept
    ip daddr != 127.0.0.1 oifname "lo" counter accept
    ip6 daddr != ::1 oifname "lo" counter accept
    ip daddr != 127.0.0.1 meta l4proto tcp meta mark and 0xfff != 0x539 counter redirect to :15001
    ip6 daddr != ::1 meta l4proto tcp meta mark and 0xfff != 0x539 counter redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    counter jump istio-prerouting
  }
  chain output {
    type nat hook output priority -100; policy accept;
    counter jump istio-output
  }
}
add table inet istio-ambient-mangle
flush table inet istio-ambient-mangle
table inet istio-ambient-mangle {
  chain istio-prerouting {
    meta mark and 0xfff == 0x539 counter ct mark set ct mark and 0xfffff000 or 0x111
  }
  chain istio-output {
    ct mark and 0xfff == 0x111 counter meta mark set ct mark
  }
  chain prerouting {
    type filter hook prerouting priority -150; policy accept;
    counter jump istio-prerouting
  }
  chain output {
    type route hook output priority -150; policy accept;
    counter jump istio-output
  }
}
`;

test("the rules of an ordinary pod", (t) => {
  t.is(podRules(defaultRules), pod);
});

test("a pod that bypasses inbound capture keeps its outbound rules and loses both inbound ones", (t) => {
  const text = podRules({ ...defaultRules, bypassInbound: true });
  t.false(text.includes("15006"));
  t.false(text.includes("saddr"));
  t.is(text.match(/redirect to :15001/g)?.length, 2);
});

test("traffic of virtual interfaces counts as the pod's own, before all else", (t) => {
  const lines = podRules({ ...defaultRules, virtualInterfaces: ["docker0"] }).split("\n");
  const at = lines.indexOf("  chain istio-prerouting {");
  t.deepEqual(lines.slice(at + 1, at + 3), ['    iifname "docker0" meta l4proto tcp counter redirect to :15001', '    iifname "docker0" counter return']);
});

test("DNS capture redirects questions before the exemptions that follow, and separates ztunnel's own", (t) => {
  const text = podRules({ ...defaultRules, dnsCapture: true });
  const order = [
    "169.254.7.127 meta l4proto tcp counter accept",
    'oifname != "lo" udp dport 53',
    "tcp dport 53",
    "meta mark and 0xfff == 0x111 counter accept",
  ];
  const output = text.slice(text.indexOf("chain istio-output"));
  t.deepEqual(
    order.map((part) => output.indexOf(part)),
    order.map((part) => output.indexOf(part)).toSorted((a, b) => a - b),
  );
  t.false(order.some((part) => !output.includes(part)));
  t.true(text.includes("table inet istio-ambient-raw {"));
  t.false(text.includes("delete table"));
});

test("every rule counts", (t) => {
  const rules = podRules({ ...defaultRules, dnsCapture: true, virtualInterfaces: ["docker0"] })
    .split("\n")
    .filter((line) => line.startsWith("    ") && !line.includes("hook"));
  t.deepEqual(
    rules.filter((line) => !line.includes("counter")),
    [],
  );
  t.true(rules.length > 15);
});

test("removal names all three tables and works where there are none", (t) => {
  t.deepEqual(
    podRulesRemoval()
      .split("\n")
      .filter((line) => line.startsWith("delete")),
    ["nat", "mangle", "raw"].map((name) => `delete table inet istio-ambient-${name}`),
  );
});

test("the end of the capture takes the redirection and leaves what carries ztunnel's connections to the application", (t) => {
  t.is(podCaptureRemoval(), "add table inet istio-ambient-nat\ndelete table inet istio-ambient-nat\n");
});

test("the node's rules match by user, mark or any local socket, and carry each address once", (t) => {
  const { probeIpv4, probeIpv6 } = defaultRules;
  const text = hostRules({ probeIpv4, probeIpv6, source: { kind: "user", uid: 1001 }, podIps: ["10.0.0.1", "fd00::1", "10.0.0.1"] });
  t.true(text.includes("elements = { 10.0.0.1 }"));
  t.true(text.includes("elements = { fd00::1 }"));
  t.true(text.includes("ip daddr @istio-inpod-probes-v4 meta l4proto tcp meta skuid 1001 counter snat ip to 169.254.7.127"));
  const base = { probeIpv4, probeIpv6, podIps: [] };
  t.true(hostRules({ ...base, source: { kind: "mark", mark: 0x2a } }).includes("meta mark 0x2a counter"));
  t.true(hostRules({ ...base, source: { kind: "any-local" } }).includes("meta skuid 0-4294967294 counter"));
  t.false(hostRules({ ...base, source: { kind: "any-local" } }).includes("elements"));
});
