/**
 * Two network namespaces with a wire between them: the load generator and the first hop on the near side, the second hop and the application on the
 * far side; in the middle `tc netem` (`--netem`), or a relay that holds bytes back (`--delay`). Without either all is on the loopback of the machine.
 */
import { execFileSync } from "node:child_process";

export interface Wire {
  /** Namespaces to start processes in; the bench's own when absent. */
  readonly near?: string;
  readonly farSide?: string;
  /** The address of the far side. */
  readonly far: string;
}

export const loopback: Wire = { far: "127.0.0.1" };

/** Where the relay in the middle listens: everything from the near side arrives there. */
export const relayPort = 9;
/** Packets under way at once; the default of 1,000 would drop those of one fast connection. */
const packetLimit = 100_000;
const [near, far] = [
  { address: "10.98.0.1", gateway: "10.98.0.254" },
  { address: "10.98.1.1", gateway: "10.98.1.254" },
];
/** The system's own tools, whatever else is called so on the PATH. */
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
const redirect = `
table ip bench {
  chain pre {
    type nat hook prerouting priority -100
    ip daddr ${far.address} meta l4proto tcp redirect to :${relayPort}
  }
}
`;

/** A wire with a namespace in its middle, which forwards; all three are gone after disposal. */
export function wireBetween(): Wire & Disposable & { readonly near: string; readonly middle: string } {
  if (process.getuid?.() !== 0) throw new Error("--netem and --delay make network namespaces and need root");
  const name = (part: string): string => `fwbench-${process.pid}-${part}`;
  const [nearSide, middle, farSide] = [name("near"), name("middle"), name("far")];
  const made: string[] = [];
  const dispose = (): void => {
    for (const namespace of made.splice(0)) ip("netns", "delete", namespace);
  };
  // Also when the bench is interrupted: namespaces outlive their processes.
  process.once("exit", dispose);
  try {
    for (const namespace of [nearSide, middle, farSide]) {
      ip("netns", "add", namespace);
      made.push(namespace);
      ip("-n", namespace, "link", "set", "lo", "up");
    }
    for (const [namespace, { address, gateway }, device] of [
      [nearSide, near, "near"],
      [farSide, far, "far"],
    ] as const) {
      ip("-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", device, "netns", middle);
      ip("-n", namespace, "addr", "add", `${address}/24`, "dev", "eth0");
      ip("-n", namespace, "link", "set", "eth0", "up");
      ip("-n", middle, "addr", "add", `${gateway}/24`, "dev", device);
      ip("-n", middle, "link", "set", device, "up");
      ip("-n", namespace, "route", "add", "default", "via", gateway);
    }
    run("ip", ["netns", "exec", middle, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    return { near: nearSide, middle, farSide, far: far.address, [Symbol.dispose]: dispose };
  } catch (thrown) {
    dispose();
    throw thrown;
  }
}

/** `impairment` is what `tc qdisc add dev … root netem` takes after its name, a bare time is a delay. Every round trip passes it once. */
export function impair({ near: namespace }: { readonly near: string }, impairment: string): void {
  const words = impairment.trim().split(/\s+/);
  const netem = words.length === 1 ? ["delay", ...words] : words;
  try {
    run("tc", ["-n", namespace, "qdisc", "add", "dev", "eth0", "root", "netem", "limit", String(packetLimit), ...netem]);
  } catch (thrown) {
    throw new Error(`--netem "${impairment}" needs tc and a kernel with netem (CONFIG_NET_SCH_NETEM); --delay does without`, { cause: thrown });
  }
}

/** Leads every connection of the near side to the relay in the middle. */
export function redirectToRelay({ middle }: { readonly middle: string }): void {
  execFileSync("ip", ["netns", "exec", middle, "nft", "-f", "-"], { env, input: redirect, stdio: ["pipe", "ignore", "inherit"] });
}

function ip(...args: readonly string[]): void {
  run("ip", args);
}

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, { env, stdio: ["ignore", "ignore", "inherit"] });
}
