/**
 * The conversation with the node agent (ztunnel contract 4.4): connect, say hello, then one request and one answer at a time.
 * The agent's mistakes end the connection, and a different understanding of the protocol ends the process: both sides must then be
 * of one release.
 */
import { closeDescriptors, connectSeqpacket, openNamespace, type SeqpacketConnection, type SeqpacketMessage } from "@fairway/linux";
import { decodeZdsRequest, encodeZdsHello, encodeZdsResponse, type ZdsRequest } from "@fairway/protocol";
import { Backoff, type Clock, errorCode, type Logger, MeshError, messageOf } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";
import type { Pod } from "./pods.ts";

/** What the conversation is about. */
export interface PodSink {
  connected(): Promise<void>;
  disconnected(): Promise<void>;
  add(pod: Pod): Promise<void>;
  keep(uid: string): Promise<void>;
  remove(uid: string): Promise<void>;
  snapshotSent(): Promise<void>;
}

export interface ZdsClientOptions {
  readonly socketPath: string;
  readonly pods: PodSink;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
}

/** Contract 4.4: what cannot be read is refused before the connection ends. */
const truncatedAnswer = encodeZdsResponse({ error: "the message had more bytes or descriptors than one may have" });

/** The reference waits up to 15 s; the socket is on this node, and until it is there no pod of the node can start. */
const longestWaitMs = 1_000;

/**
 * Serves the agent until `signal` aborts. From the moment in which `leaving` aborts it connects to no agent any more, but keeps the one that is
 * there: a process that drains must hear which pods are gone, and must never seem the newest to an agent that was restarted (contract 10).
 * Throws ZTUNNEL_ZDS_PROTOCOL when the agent speaks another version of the protocol.
 */
export async function runZdsClient(
  { socketPath, pods, clock, log, random }: ZdsClientOptions,
  { signal, leaving }: { signal: AbortSignal; leaving: AbortSignal },
): Promise<void> {
  const connecting = new Backoff({ initialMs: 20, maxMs: longestWaitMs });
  const greeting = new Backoff({ initialMs: 5, maxMs: longestWaitMs, jitter: 0.2, random });
  const until = AbortSignal.any([signal, leaving]);
  while (!until.aborted) {
    let connection: SeqpacketConnection;
    try {
      connection = await connectSeqpacket(socketPath, { truncatedAnswer });
    } catch (thrown) {
      log.warn("cannot reach the node agent", { socket: socketPath, error: MeshError.from(thrown, "ZTUNNEL_ZDS_PROTOCOL") });
      await clock.sleep(connecting.next(), { signal: until }).catch(() => {});
      continue;
    }
    connecting.reset();
    let answered = 0;
    try {
      await connection.send(encodeZdsHello(), [], { signal });
      await pods.connected();
      log.info("connected to the node agent", { socket: socketPath });
      answered = await converse(connection, pods, { signal, log });
    } catch (thrown) {
      if (signal.aborted) break;
      if (errorCode(thrown) === "ZTUNNEL_ZDS_PROTOCOL") throw thrown;
      log.warn("the connection to the node agent failed", { error: MeshError.from(thrown, "ZTUNNEL_ZDS_PROTOCOL") });
    } finally {
      connection.close();
      await pods.disconnected();
    }
    // One that lasted is replaced at once; one that was of no use, such as a failed hello, not before a moment passed.
    if (answered > 0) greeting.reset();
    else await clock.sleep(greeting.next(), { signal: until }).catch(() => {});
  }
}

/** Answers request after request; returns how many, when the agent hangs up. */
async function converse(connection: SeqpacketConnection, pods: PodSink, { signal, log }: { signal: AbortSignal; log: Logger }): Promise<number> {
  let answered = 0;
  const answer = (error: string): Promise<void> => connection.send(encodeZdsResponse({ error }), [], { signal });
  for await (const message of connection.messages({ signal })) {
    const request = await read(message).catch(async (thrown: unknown) => {
      await answer(messageOf(thrown));
      throw thrown;
    });
    try {
      await carryOut(request, pods);
    } catch (thrown) {
      // A proxy that did not start is pending; the agent is told, and the conversation goes on.
      await answer(messageOf(thrown));
      if (errorCode(thrown) === "ZTUNNEL_ZDS_PROTOCOL") throw thrown;
      log.warn("refused a request of the node agent", { request: request.kind, error: MeshError.from(thrown, "ZTUNNEL_ZDS_PROTOCOL") });
      answered++;
      continue;
    }
    await answer("");
    answered++;
  }
  return answered;
}

type Request = Exclude<ZdsRequest, { kind: "add" }> | { readonly kind: "add"; readonly pod: Pod };

/** Throws for bytes that are no request and for descriptors that do not belong; these are closed. */
async function read({ bytes, fds }: SeqpacketMessage): Promise<Request> {
  let found: { request: ZdsRequest; fd: number | undefined };
  try {
    found = checked(decodeZdsRequest(bytes), fds);
  } catch (thrown) {
    closeDescriptors(fds);
    throw thrown;
  }
  const { request, fd } = found;
  if (request.kind !== "add") return request;
  const { uid, workload } = request;
  if (workload === undefined || fd === undefined) {
    closeDescriptors(fds);
    throw ztunnelError("ZTUNNEL_ZDS_PROTOCOL", "add came without workload info");
  }
  // Takes over the descriptor, also when it throws.
  return { kind: "add", pod: { uid, name: workload, namespace: openNamespace(fd) } };
}

/** Exactly one descriptor with an add, none with anything else. */
function checked(request: ZdsRequest, fds: readonly number[]): { request: ZdsRequest; fd: number | undefined } {
  const expected = request.kind === "add" ? 1 : 0;
  if (fds.length === expected) return { request, fd: fds[0] };
  throw ztunnelError("ZTUNNEL_ZDS_DESCRIPTORS", `${request.kind} must carry ${expected} file descriptors, not ${fds.length}`);
}

async function carryOut(request: Request, pods: PodSink): Promise<void> {
  switch (request.kind) {
    case "add":
      return pods.add(request.pod);
    case "keep":
      return pods.keep(request.uid);
    case "del":
      return pods.remove(request.uid);
    case "snapshot-sent":
      return pods.snapshotSent();
  }
}
