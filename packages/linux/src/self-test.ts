/** What this package assumes of the kernel and of Node, proven once at start: a wrong assumption must not be found by traffic. */

import { once } from "node:events";
import { readdirSync, readlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { MeshError } from "@fairway/runtime";
import { currentNamespace, inNamespace } from "./namespace.ts";
import { descriptorOf } from "./node-handle.ts";
import { getMark, setMark, setTransparent } from "./socket-options.ts";
import { AF_INET, closeDescriptor, openSocket, SOCK_STREAM } from "./system-calls.ts";

const defaultPoolSize = 4;
const largestPoolSize = 1024;
const probeMark = 0x539;

/**
 * Call it first in a program that enters namespaces, before any pool work, and in the main thread only.
 * Throws LINUX_SELF_TEST_FAILED; the message names the check, and `details.check` is one of
 * `thread-pool`, `setns`, `mark`, `transparent`, `handle`.
 */
export async function selfTest(options: { readonly poolSize?: number } = {}): Promise<void> {
  await check("thread-pool", "a pool thread runs in another network namespace: something entered a namespace before the self-test", () =>
    warmPool(options.poolSize ?? defaultPoolSize),
  );
  await check("setns", "the process cannot enter a network namespace, not even its own: grant CAP_SYS_ADMIN", enterOwnNamespace);
  await check("mark", "the process may not mark sockets: grant CAP_NET_ADMIN", markSocket);
  await check("transparent", "the process may not make transparent sockets: grant CAP_NET_ADMIN", transparentSocket);
  await check("handle", "this version of Node hides the descriptor of a socket: use the version this release pins", readHandle);
}

/**
 * Starts every thread of libuv's pool now. Pool threads belong to the namespace of the thread that starts them: a pool first
 * used inside a pod would resolve names and read files there for the rest of the process's life.
 */
async function warmPool(poolSize: number): Promise<void> {
  const tasks = Math.min(largestPoolSize, Math.max(1, poolSize));
  await Promise.all(Array.from({ length: tasks }, () => stat("/proc/self")));
  const own = readlinkSync("/proc/thread-self/ns/net");
  const outside = readdirSync("/proc/self/task").filter((thread) => namespaceOfThread(thread) !== own);
  if (outside.length > 0) throw new MeshError("LINUX_THREADS_OUTSIDE", `${outside.length} threads are in another network namespace`);
}

/** A thread that ended between the listing and the look is nowhere else: it counts as ours. */
function namespaceOfThread(thread: string): string {
  try {
    return readlinkSync(`/proc/self/task/${thread}/ns/net`);
  } catch {
    return readlinkSync("/proc/thread-self/ns/net");
  }
}

function enterOwnNamespace(): void {
  using own = currentNamespace();
  inNamespace(own, () => {});
}

function markSocket(): void {
  withSocket((fd) => {
    setMark(fd, probeMark);
    if (getMark(fd) !== probeMark) throw new MeshError("LINUX_MARK_LOST", "the kernel did not keep a socket's mark");
  });
}

function transparentSocket(): void {
  withSocket((fd) => setTransparent(fd, AF_INET));
}

function withSocket(use: (fd: number) => void): void {
  const fd = openSocket(AF_INET, SOCK_STREAM);
  try {
    use(fd);
  } finally {
    closeDescriptor(fd);
  }
}

async function readHandle(): Promise<void> {
  const server = createServer();
  let client: Socket | undefined;
  try {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (typeof address !== "object" || address === null) throw new MeshError("LINUX_HANDLE_HIDDEN", "a listening server has no address");
    client = connect(address.port, "127.0.0.1");
    await once(client, "connect");
    const fd = descriptorOf(client);
    if (fd === undefined) throw new MeshError("LINUX_HANDLE_HIDDEN", "a connected socket has no descriptor");
    getMark(fd);
  } finally {
    client?.destroy();
    server.close();
  }
}

async function check(name: string, meaning: string, run: () => void | Promise<void>): Promise<void> {
  try {
    await run();
  } catch (cause) {
    throw new MeshError("LINUX_SELF_TEST_FAILED", `self-test "${name}": ${meaning}`, { cause, details: { check: name } });
  }
}
