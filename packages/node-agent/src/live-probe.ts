/**
 * The proof that a pod is captured, by its own rules and not by a label: a connection made inside the pod, unmarked, to an address that
 * exists nowhere is answered. Only ztunnel, reached by the pod's own redirection, can have answered it.
 * And all of ztunnel's listeners stand in the pod.
 */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { hasRoute, inNamespace, linuxPodNetwork, type NetworkNamespace, type PodNetwork } from "@fairway/linux";
import { type CaptureProbeDestination, captureProbeDestinations } from "@fairway/protocol";
import { type Clock, errorCode, MeshError, systemClock } from "@fairway/runtime";
import { dnsPort, inboundPort, outboundPort, type RuleOptions, tunnelPort } from "./rules.ts";

const timeoutMs = 2_000;
/** ztunnel ends the connection at once; one that is busy, or another kind of ztunnel, is not waited for longer. */
const endTimeoutMs = 500;
/** TCP_LISTEN in /proc/net/tcp. */
const listenState = "0A";

/** Throws NODE_AGENT_NOT_CAPTURED, saying what is missing, or the signal's reason. */
export async function proveCapture(
  namespace: NetworkNamespace,
  { rules, signal, clock = systemClock }: { readonly rules: RuleOptions; readonly signal: AbortSignal; readonly clock?: Clock },
): Promise<void> {
  const listening = listeningPorts(namespace);
  // Redirected questions that nobody answers would take the pod's DNS away.
  const wanted = [outboundPort, inboundPort, tunnelPort, ...(rules.dnsCapture ? [dnsPort] : [])];
  const missing = wanted.filter((port) => !listening.has(port));
  if (missing.length > 0) throw new MeshError("NODE_AGENT_NOT_CAPTURED", `ztunnel does not listen on ${missing.join(", ")} inside the pod`);
  await using network = linuxPodNetwork(namespace);
  // A family without a route has no way out of the pod. Asked of the pod itself: a router's "unreachable" would be no proof.
  for (const destination of captureProbeDestinations.filter(({ ip }) => hasRoute(namespace, ip))) {
    const socket = await answered(network, destination, signal);
    if (socket !== undefined) await ended(socket, { signal, clock });
  }
}

/** The connection that was accepted; undefined when whoever accepted it has closed it already. */
async function answered(network: PodNetwork, { ip, port }: CaptureProbeDestination, signal: AbortSignal): Promise<Socket | undefined> {
  try {
    return (await network.dial({ host: ip, port, mark: 0, timeoutMs, signal })).socket;
  } catch (cause) {
    signal.throwIfAborted();
    // Refused is ECONNREFUSED: only a connection that stood can be reset.
    if (cause instanceof MeshError && cause.details["errno"] === "ECONNRESET") return undefined;
    throw new MeshError("NODE_AGENT_NOT_CAPTURED", notCaptured(cause), { cause });
  }
}

/**
 * Waits for the other side's end, so that it never finds a connection that is gone. One that does not end is reset: whoever it is shall
 * not go on trying to reach nowhere.
 */
async function ended(socket: Socket, { signal, clock }: { readonly signal: AbortSignal; readonly clock: Clock }): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  using _deadline = clock.schedule(endTimeoutMs, resolve);
  const onEvent = (): void => resolve();
  signal.addEventListener("abort", onEvent, { once: true });
  socket.once("end", onEvent).once("close", onEvent).resume();
  await promise;
  signal.removeEventListener("abort", onEvent);
  if (socket.readableEnded) socket.destroySoon();
  else socket.resetAndDestroy();
  // Gone before this returns: the pod's network may go next, and the last word to ztunnel with it.
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  signal.throwIfAborted();
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
    case "LINUX_DIAL_TIMEOUT":
      return "a connection from inside the pod was not answered: the redirection rules do not hold, or ztunnel is too busy to accept";
    default:
      return "a connection from inside the pod left it: the redirection rules do not hold";
  }
}
