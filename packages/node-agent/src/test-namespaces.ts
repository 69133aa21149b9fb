/** Network namespaces for tests: a node, its pods behind it, and a stand-in for ztunnel. Always removed. */
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { currentNamespace, inNamespace, linuxPodNetwork, type NetworkNamespace, openNamespace, type PodNetwork } from "@fairway/linux";
import type { ExecutionContext } from "ava";
import type { RuleOptions } from "./rules.ts";

const path = "/usr/sbin:/usr/bin:/sbin:/bin";
let counter = 0;

export const defaultRules: RuleOptions = {
  dnsCapture: false,
  bypassInbound: false,
  virtualInterfaces: [],
  probeIpv4: "169.254.7.127",
  probeIpv6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
};

export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8", env: { PATH: path }, stdio: ["ignore", "pipe", "pipe"] });
}

/** True, and a visible line, when the test cannot run on this machine. */
export function skipped(t: ExecutionContext): boolean {
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

export interface TestNamespace {
  readonly name: string;
  readonly path: string;
  readonly namespace: NetworkNamespace;
  readonly network: PodNetwork;
  readonly ip: (...args: readonly string[]) => string;
  readonly exec: (...argv: readonly string[]) => string;
}

export function testNamespace(t: ExecutionContext): TestNamespace {
  counter += 1;
  const name = `fwagent-${process.pid}-${counter}`;
  run("ip", "netns", "add", name);
  const namespace = openNamespace(`/run/netns/${name}`);
  const network = linuxPodNetwork(namespace);
  t.teardown(async () => {
    await network[Symbol.asyncDispose]();
    namespace[Symbol.dispose]();
    run("ip", "netns", "delete", name);
  });
  const ip = (...args: readonly string[]): string => run("ip", "-n", name, ...args);
  ip("link", "set", "lo", "up");
  return { name, path: `/run/netns/${name}`, namespace, network, ip, exec: (...argv) => run("ip", "netns", "exec", name, ...argv) };
}

export interface TestNode {
  readonly node: TestNamespace;
  readonly pods: readonly { readonly pod: TestNamespace; readonly ipv4: string; readonly ipv6: string }[];
}

/** A node that forwards between pods, each with a default route to it. */
export function testNode(t: ExecutionContext, podCount: number): TestNode {
  const node = testNamespace(t);
  node.exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
  const pods = Array.from({ length: podCount }, (_, index) => {
    const pod = testNamespace(t);
    const link = `veth${index}`;
    const ipv4 = `10.77.${index}.2`;
    const ipv6 = `fd77:${index + 1}::2`;
    node.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.name);
    node.ip("addr", "add", `10.77.${index}.1/24`, "dev", link);
    node.ip("addr", "add", `fd77:${index + 1}::1/64`, "dev", link, "nodad");
    node.ip("link", "set", link, "up");
    pod.ip("addr", "add", `${ipv4}/24`, "dev", "eth0");
    pod.ip("addr", "add", `${ipv6}/64`, "dev", "eth0", "nodad");
    pod.ip("link", "set", "eth0", "up");
    pod.ip("route", "add", "default", "via", `10.77.${index}.1`);
    pod.ip("-6", "route", "add", "default", "via", `fd77:${index + 1}::1`);
    return { pod, ipv4, ipv6 };
  });
  return { node, pods };
}

/** ztunnel's listeners in a pod, without that for DNS unless asked for: each says its port and the original destination, then closes. */
export async function listenAsZtunnel(network: PodNetwork, { dns = false }: { dns?: boolean } = {}): Promise<{ readonly accepted: string[] }> {
  const accepted: string[] = [];
  for (const port of [15001, 15006, 15008, ...(dns ? [15053] : [])]) {
    await network.listen({
      host: "::",
      port,
      mark: 0x539,
      reusePort: true,
      transparent: true,
      backlog: 128,
      onConnection: (socket) => {
        const { ip, port: wanted } = network.originalDestination(socket);
        const said = `${port} ${ip} ${wanted} ${(socket.remoteAddress ?? "").replace("::ffff:", "")}`;
        accepted.push(said);
        socket.resume();
        socket.end(said);
      },
    });
  }
  return { accepted };
}

/** An application that says whom it talks to. */
export async function listenAsApp(network: PodNetwork, port: number): Promise<void> {
  await network.listen({
    host: "::",
    port,
    mark: 0,
    reusePort: false,
    transparent: false,
    backlog: 128,
    onConnection: (socket) => {
      socket.resume();
      socket.end(`app ${(socket.remoteAddress ?? "").replace("::ffff:", "")}`);
    },
  });
}

/** Connects and returns what the other side said. */
export async function ask(network: PodNetwork, host: string, port: number, options: { mark?: number; source?: string } = {}): Promise<string> {
  const { socket } = await network.dial({ host, port, mark: 0, timeoutMs: 20_000, signal: new AbortController().signal, ...options });
  return await whole(socket);
}

async function whole(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await new Promise<void>((resolve, reject) => {
    socket.once("end", resolve);
    socket.once("error", reject);
    socket.resume();
  });
  socket.destroy();
  return Buffer.concat(chunks).toString();
}

/** A directory that is removed when the test ends. */
export async function testDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fwagent-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
