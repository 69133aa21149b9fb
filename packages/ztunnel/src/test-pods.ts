/** Two pods as network namespaces with the rules of an enrolled pod, for tests of the whole captured path. */
import { execFileSync } from "node:child_process";
import { currentNamespace, inNamespace, type NetworkNamespace, openNamespace } from "@fairway/linux";
import type { ExecutionContext } from "ava";

const environment = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
let counter = 0;

/** True, and a visible line, when this machine lets us make no namespaces. */
export function skippedWithoutNamespaces(t: ExecutionContext): boolean {
  try {
    using own = currentNamespace();
    inNamespace(own, () => {});
    run("ip", "netns", "list");
    run("nft", "--version");
    return false;
  } catch (thrown) {
    t.log(`SKIPPED (needs network namespaces): ${t.title}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
    t.pass();
    return true;
  }
}

export interface TestPod {
  /** Of its namespace, as `ip netns` knows it. */
  readonly name: string;
  readonly ip: string;
  readonly ip6: string;
  /** A descriptor of its own at each call. */
  readonly open: () => NetworkNamespace;
  /** Runs a program in it, to its end. */
  readonly run: (program: string, ...args: readonly string[]) => void;
}

/** Two pods on one wire; removed when the test ends. The second is enrolled always, the first when `enrolled`; its DNS is captured on demand. */
export function twoPods(t: ExecutionContext, { enrolled = true, dns = false }: { enrolled?: boolean; dns?: boolean } = {}): { a: TestPod; b: TestPod } {
  const a = pod(t, 1);
  const b = pod(t, 2);
  run("ip", "-n", a.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.name);
  for (const { name, ip, ip6 } of [a, b]) {
    run("ip", "-n", name, "addr", "add", `${ip}/24`, "dev", "eth0");
    run("ip", "-n", name, "addr", "add", `${ip6}/64`, "dev", "eth0", "nodad");
    run("ip", "-n", name, "link", "set", "lo", "up");
    run("ip", "-n", name, "link", "set", "eth0", "up");
  }
  if (enrolled) enrol(a.name, dns ? dnsRules : "");
  enrol(b.name);
  return { a, b };
}

function pod(t: ExecutionContext, host: number): TestPod {
  counter += 1;
  const name = `fwztunnel-${process.pid}-${counter}`;
  run("ip", "netns", "add", name);
  t.teardown(() => run("ip", "netns", "delete", name));
  return {
    name,
    ip: `10.98.0.${host}`,
    ip6: `fd00:98::${host}`,
    open: () => openNamespace(`/run/netns/${name}`),
    run: (...words) => run("ip", "netns", "exec", name, ...words),
  };
}

/** What of ztunnel contract 7.2 redirects DNS, and keeps ztunnel's own questions apart. The ports before the others: the first match decides. */
const dnsRules = `
table inet test_dns {
  chain out {
    type nat hook output priority -101
    oifname != "lo" udp dport 53 meta mark and 0xfff != 0x539 redirect to :15053
    ip daddr != 127.0.0.1 tcp dport 53 meta mark and 0xfff != 0x539 redirect to :15053
    ip6 daddr != ::1 tcp dport 53 meta mark and 0xfff != 0x539 redirect to :15053
  }
}
table inet test_raw {
  chain pre {
    type filter hook prerouting priority -300
    udp sport 53 meta mark and 0xfff != 0x539 ct zone set 1
  }
  chain out {
    type filter hook output priority -300
    udp dport 53 meta mark and 0xfff == 0x539 ct zone set 1
  }
}
`;

/** The logic of ztunnel contract 7.2 as nft rules, without probes. */
function enrol(name: string, more = ""): void {
  const rules = `
table inet test_mangle {
  chain pre {
    type filter hook prerouting priority -150
    meta mark and 0xfff == 0x539 ct mark set ct mark and 0xfffff000 or 0x111
  }
  chain out {
    type route hook output priority -150
    ct mark and 0xfff == 0x111 meta mark set ct mark
  }
}
table inet test_nat {
  chain pre {
    type nat hook prerouting priority -100
    ip daddr != 127.0.0.1 meta l4proto tcp tcp dport != 15008 meta mark and 0xfff != 0x539 redirect to :15006
  }
  chain out {
    type nat hook output priority -100
    meta l4proto tcp meta mark and 0xfff == 0x111 accept
    ip daddr != 127.0.0.1 oifname "lo" accept
    ip daddr != 127.0.0.1 meta l4proto tcp meta mark and 0xfff != 0x539 redirect to :15001
  }
}
`;
  execFileSync("ip", ["netns", "exec", name, "nft", "-f", "-"], { input: rules + more, env: environment, stdio: ["pipe", "pipe", "pipe"] });
  run("ip", "-n", name, "rule", "add", "fwmark", "0x111/0xfff", "lookup", "100", "pref", "32764");
  run("ip", "-n", name, "route", "replace", "local", "default", "dev", "lo", "table", "100");
}

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8", env: environment, stdio: ["ignore", "pipe", "pipe"] });
}
