/**
 * The proof that a pod is captured, by its own rules and not by a label: a connection made inside the pod, unmarked, to an address that
 * exists nowhere (RFC 5737 TEST-NET-1, RFC 3849) is answered. Only ztunnel, reached by the pod's own redirection, can have answered it.
 * And all of ztunnel's listeners stand in the pod.
 */
import { readFileSync } from "node:fs";
import { hasRoute, inNamespace, linuxPodNetwork, type NetworkNamespace } from "@fairway/linux";
import { errorCode, MeshError } from "@fairway/runtime";
import { dnsPort, inboundPort, outboundPort, type RuleOptions, tunnelPort } from "./rules.ts";

/** A pod of one family has no route to the other. */
const nowhere = ["192.0.2.1", "2001:db8::1"];
const timeoutMs = 2_000;
/** TCP_LISTEN in /proc/net/tcp. */
const listenState = "0A";

/** Throws NODE_AGENT_NOT_CAPTURED, saying what is missing, or the signal's reason. */
export async function proveCapture(
  namespace: NetworkNamespace,
  { rules, signal }: { readonly rules: RuleOptions; readonly signal: AbortSignal },
): Promise<void> {
  const listening = listeningPorts(namespace);
  // Redirected questions that nobody answers would take the pod's DNS away.
  const wanted = [outboundPort, inboundPort, tunnelPort, ...(rules.dnsCapture ? [dnsPort] : [])];
  const missing = wanted.filter((port) => !listening.has(port));
  if (missing.length > 0) throw new MeshError("NODE_AGENT_NOT_CAPTURED", `ztunnel does not listen on ${missing.join(", ")} inside the pod`);
  await using network = linuxPodNetwork(namespace);
  // A family without a route has no way out of the pod. Asked of the pod itself: a router's "unreachable" would be no proof.
  for (const host of nowhere.filter((ip) => hasRoute(namespace, ip))) {
    try {
      const { socket } = await network.dial({ host, port: outboundPort, mark: 0, timeoutMs, signal });
      // A reset: ztunnel drops its own attempt to reach nowhere instead of waiting for it.
      socket.resetAndDestroy();
    } catch (cause) {
      signal.throwIfAborted();
      throw new MeshError("NODE_AGENT_NOT_CAPTURED", notCaptured(cause), { cause });
    }
  }
}

/** Ports with a TCP listener in the namespace, on either family. */
export function listeningPorts(namespace: NetworkNamespace): ReadonlySet<number> {
  return inNamespace(namespace, () => new Set([...listenersIn(readTable("tcp")), ...listenersIn(readTable("tcp6"))]));
}

/** Reads the format of proc_net_tcp(5). */
export function listenersIn(table: string): number[] {
  return table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [, local = "", , state] = line.trim().split(/\s+/);
      const port = Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16);
      return state === listenState && Number.isInteger(port) ? [port] : [];
    });
}

function readTable(name: string): string {
  try {
    return readFileSync(`/proc/thread-self/net/${name}`, "utf8");
  } catch {
    // A kernel without the family has no table of it.
    return "";
  }
}

function notCaptured(cause: unknown): string {
  switch (errorCode(cause)) {
    case "LINUX_DIAL_REFUSED":
      return "a connection from inside the pod was refused: the rules redirect it, and ztunnel does not accept";
    default:
      return "a connection from inside the pod left it: the redirection rules do not hold";
  }
}
