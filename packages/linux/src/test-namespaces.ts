/** Network namespaces for tests: made with `ip`, named after this process, always removed. */
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { currentNamespace, inNamespace, type NetworkNamespace, openNamespace } from "./namespace.ts";

const path = "/usr/sbin:/usr/bin:/sbin:/bin";
let counter = 0;

export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8", env: { PATH: path }, stdio: ["ignore", "pipe", "pipe"] });
}

/** Why namespaces cannot be used here; undefined when they can. */
export function obstacle(): string | undefined {
  try {
    using own = currentNamespace();
    inNamespace(own, () => {});
    run("ip", "netns", "list");
    run("nft", "--version");
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

/** True, and a visible line, when the test cannot run on this machine. */
export function skipped(t: ExecutionContext): boolean {
  const reason = obstacle();
  if (reason === undefined) return false;
  t.log(`SKIPPED (needs network namespaces): ${t.title}: ${reason}`);
  t.pass();
  return true;
}

export interface TestNamespace {
  readonly name: string;
  readonly namespace: NetworkNamespace;
  readonly ip: (...args: readonly string[]) => string;
  readonly nft: (text: string) => void;
}

/** A namespace with its loopback up, removed when the test ends. */
export function testNamespace(t: ExecutionContext): TestNamespace {
  counter += 1;
  const name = `fwlinux-${process.pid}-${counter}`;
  run("ip", "netns", "add", name);
  const namespace = openNamespace(`/run/netns/${name}`);
  t.teardown(() => {
    namespace[Symbol.dispose]();
    run("ip", "netns", "delete", name);
  });
  const ip = (...args: readonly string[]): string => run("ip", "-n", name, ...args);
  ip("link", "set", "lo", "up");
  const nft = (text: string): void =>
    void execFileSync("ip", ["netns", "exec", name, "nft", "-f", "-"], { input: text, env: { PATH: path }, stdio: ["pipe", "pipe", "pipe"] });
  return { name, namespace, ip, nft };
}

/** A veth pair between two namespaces, with an IPv4 and an IPv6 address on each end. */
export function joined(a: TestNamespace, b: TestNamespace): { readonly a: string; readonly b: string; readonly a6: string; readonly b6: string } {
  a.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.name);
  const ends = [
    { end: a, host: 1 },
    { end: b, host: 2 },
  ];
  for (const { end, host } of ends) {
    end.ip("addr", "add", `10.99.0.${host}/24`, "dev", "eth0");
    end.ip("addr", "add", `fd99::${host}/64`, "dev", "eth0", "nodad");
    end.ip("link", "set", "eth0", "up");
  }
  return { a: "10.99.0.1", b: "10.99.0.2", a6: "fd99::1", b6: "fd99::2" };
}

/** A path for a socket file, removed when the test ends. */
export function socketPath(t: ExecutionContext): string {
  counter += 1;
  const file = join(tmpdir(), `fwlinux-${process.pid}-${counter}.sock`);
  t.teardown(() => rmSync(file, { force: true }));
  return file;
}
