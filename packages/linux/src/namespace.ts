/** Network namespaces: held open by a descriptor, and entered for the length of one synchronous function. */
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { MeshError } from "@fairway/runtime";
import { isNetworkNamespace, setNetworkNamespace } from "./system-calls.ts";

/** A network namespace held open by a descriptor. */
export interface NetworkNamespace extends Disposable {
  readonly fd: number;
  /** What makes two descriptors the same namespace. */
  readonly inode: bigint;
  readonly device: bigint;
}

/** The calling thread's own namespace: every visit to another one ends here. It cannot change, so one descriptor a thread is enough. */
let home: NetworkNamespace | undefined;
/** Where the thread is while a function runs in another namespace. */
let visiting: number | undefined;
const nobodyWakes = new Int32Array(new SharedArrayBuffer(4));

/**
 * Opens a namespace by path (`/proc/1/ns/net`, `/run/netns/x`), or takes over a descriptor that is one.
 * Throws LINUX_NAMESPACE_NOT_FOUND or LINUX_NOT_A_NAMESPACE; a descriptor handed in is closed then too.
 */
export function openNamespace(pathOrFd: string | number): NetworkNamespace {
  const fd = typeof pathOrFd === "number" ? pathOrFd : openPath(pathOrFd);
  try {
    const { ino, dev } = fstatSync(fd, { bigint: true });
    if (!isNetworkNamespace(fd)) {
      throw new MeshError("LINUX_NOT_A_NAMESPACE", `${describe(pathOrFd)} is not a network namespace; was it deleted, leaving its mount point behind?`);
    }
    return held(fd, ino, dev);
  } catch (thrown) {
    closeQuietly(fd);
    throw MeshError.from(thrown, "LINUX_NOT_A_NAMESPACE");
  }
}

/** The namespace that the calling thread belongs to. The caller owns the result. */
export function currentNamespace(): NetworkNamespace {
  return openNamespace("/proc/thread-self/ns/net");
}

export function sameNamespace(a: NetworkNamespace, b: NetworkNamespace): boolean {
  return a.inode === b.inode && a.device === b.device;
}

/**
 * Runs `visit` with the calling thread in `namespace`, and comes back whatever happens. `visit` must do all its work before
 * it returns: anything awaited would run elsewhere, and everything else on this thread would run in the pod.
 * Throws LINUX_NAMESPACE_ENTER_FAILED. A thread that cannot come back can no longer be trusted: the process aborts.
 */
export function inNamespace<T>(namespace: NetworkNamespace | undefined, visit: () => T): T {
  if (namespace === undefined) return visit();
  home ??= currentNamespace();
  const from = visiting ?? home.fd;
  const before = visiting;
  try {
    setNetworkNamespace(namespace.fd);
  } catch (thrown) {
    throw new MeshError("LINUX_NAMESPACE_ENTER_FAILED", "cannot enter the network namespace; is CAP_SYS_ADMIN granted, and the namespace still open?", {
      cause: thrown,
    });
  }
  visiting = namespace.fd;
  try {
    const result = visit();
    if (isThenable(result)) throw new MeshError("LINUX_NAMESPACE_ASYNC", "work in a namespace must be synchronous; it returned a promise");
    return result;
  } finally {
    visiting = before;
    comeBack(from);
  }
}

/** Whether the namespace has IPv6 on its loopback interface (ztunnel contract 7.5). */
export function hasIpv6(namespace: NetworkNamespace | undefined): boolean {
  return inNamespace(namespace, () => {
    try {
      return readFileSync("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "utf8").trim() === "0";
    } catch {
      // A kernel without IPv6 has no such file.
      return false;
    }
  });
}

function comeBack(fd: number): void {
  try {
    setNetworkNamespace(fd);
  } catch {
    // process.abort() throws in a worker thread, and this thread must not run on.
    process.kill(process.pid, "SIGABRT");
    for (;;) Atomics.wait(nobodyWakes, 0, 0);
  }
}

function held(fd: number, inode: bigint, device: bigint): NetworkNamespace {
  let open = true;
  return {
    fd,
    inode,
    device,
    [Symbol.dispose]: () => {
      // Once only: the number may belong to somebody else by the second time.
      if (open) closeQuietly(fd);
      open = false;
    },
  };
}

function openPath(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new MeshError("LINUX_NAMESPACE_NOT_FOUND", `cannot open the network namespace ${path}; does the process or the pod still exist?`, { cause });
  }
}

function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // Not open: nothing to close.
  }
}

function describe(pathOrFd: string | number): string {
  return typeof pathOrFd === "number" ? `descriptor ${pathOrFd}` : pathOrFd;
}

function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
