/**
 * Two network namespaces on one wire, for `--netem`: the load generator and the first hop on the near side, the second hop and the application on
 * the far side, and `tc netem` between them. Without it everything is on the loopback of the machine.
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

/** Packets under way at once; the default of 1,000 would drop those of one fast connection. */
const packetLimit = 100_000;
const [nearAddress, farAddress] = ["10.98.0.1", "10.98.0.2"];
/** The system's own tools, whatever else is called so on the PATH. */
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };

/** `impairment` is what `tc qdisc add dev … root netem` takes after its name, a bare time is a delay. Every round trip passes it once. */
export function delayedWire(impairment: string): Wire & Disposable {
  if (process.getuid?.() !== 0) throw new Error("--netem makes network namespaces and needs root");
  const [near, farSide] = [`fwbench-${process.pid}-near`, `fwbench-${process.pid}-far`];
  const made: string[] = [];
  const dispose = (): void => {
    for (const name of made.splice(0)) ip("netns", "delete", name);
  };
  try {
    for (const name of [near, farSide]) {
      ip("netns", "add", name);
      made.push(name);
      ip("-n", name, "link", "set", "lo", "up");
    }
    ip("-n", near, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", farSide);
    for (const [name, address] of [
      [near, nearAddress],
      [farSide, farAddress],
    ] as const) {
      ip("-n", name, "addr", "add", `${address}/24`, "dev", "eth0");
      ip("-n", name, "link", "set", "eth0", "up");
    }
    const words = impairment.trim().split(/\s+/);
    const netem = words.length === 1 ? ["delay", ...words] : words;
    run("tc", ["-n", near, "qdisc", "add", "dev", "eth0", "root", "netem", "limit", String(packetLimit), ...netem]);
    return { near, farSide, far: farAddress, [Symbol.dispose]: dispose };
  } catch (thrown) {
    dispose();
    throw new Error(`--netem "${impairment}": no such wire; this needs tc and a kernel with netem (CONFIG_NET_SCH_NETEM)`, { cause: thrown });
  }
}

function ip(...args: readonly string[]): void {
  run("ip", args);
}

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, { env, stdio: ["ignore", "ignore", "inherit"] });
}
