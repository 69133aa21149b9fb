/** Two enrolled pods on one wire and a node, as network namespaces: what the node agent would have made (ztunnel contract 7.2). */
import { execFileSync } from "node:child_process";

export interface BenchPod {
  readonly name: string;
  readonly ip: string;
  readonly namespace: string;
  readonly path: string;
}

const rules = `
table inet bench_mangle {
  chain pre {
    type filter hook prerouting priority -150
    meta mark and 0xfff == 0x539 ct mark set ct mark and 0xfffff000 or 0x111
  }
  chain out {
    type route hook output priority -150
    ct mark and 0xfff == 0x111 meta mark set ct mark
  }
}
table inet bench_nat {
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

/** Their names begin with `prefix`; all are gone after disposal. */
export function podNamespaces(prefix: string): Disposable & { readonly a: BenchPod; readonly b: BenchPod; readonly node: string } {
  const pod = (name: string, ip: string): BenchPod => ({ name, ip, namespace: `${prefix}-${name}`, path: `/run/netns/${prefix}-${name}` });
  const [a, b, node] = [pod("a", "10.97.0.1"), pod("b", "10.97.0.2"), `${prefix}-node`];
  const names = [node, a.namespace, b.namespace];
  const dispose = (): void => {
    for (const name of names) run("ip", ["netns", "delete", name]);
  };
  for (const name of names) {
    run("ip", ["netns", "add", name]);
    run("ip", ["-n", name, "link", "set", "lo", "up"]);
  }
  run("ip", ["-n", a.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.namespace]);
  for (const { namespace, ip } of [a, b]) {
    run("ip", ["-n", namespace, "addr", "add", `${ip}/24`, "dev", "eth0"]);
    run("ip", ["-n", namespace, "link", "set", "eth0", "up"]);
    run("ip", ["netns", "exec", namespace, "nft", "-f", "-"], rules);
    run("ip", ["-n", namespace, "rule", "add", "fwmark", "0x111/0xfff", "lookup", "100", "pref", "32764"]);
    run("ip", ["-n", namespace, "route", "replace", "local", "default", "dev", "lo", "table", "100"]);
    // A client that opens thousands of connections must not run out of ports.
    run("ip", ["netns", "exec", namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; echo 10000 65000 > /proc/sys/net/ipv4/ip_local_port_range"]);
  }
  return { a, b, node, [Symbol.dispose]: dispose };
}

/** The system's own tools, whatever else is called so on the PATH. */
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };

function run(program: string, args: readonly string[], input = ""): void {
  execFileSync(program, args, { env, input, stdio: ["pipe", "ignore", "inherit"] });
}
