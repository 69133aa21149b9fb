/**
 * `pods/exec` over WebSocket, remotecommand v4 and v5: every message starts with its channel (0 stdin, 1 stdout, 2 stderr,
 * 3 the final status, 4 resize); v5 adds 255, which closes a channel, so that stdin can end.
 */
import { once } from "node:events";
import type { Readable } from "node:stream";
import { MeshError, messageOf } from "@fairway/runtime";
import type { WebSocket } from "ws";
import type { KubeObject } from "./kube-object.ts";
import type { KubeletGateway } from "./kubelet-gateway.ts";
import { containerOf, flag } from "./log-handler.ts";
import type { ResourceRequest } from "./request-info.ts";

export interface SessionOptions {
  readonly client: WebSocket;
  /** The subprotocol both sides agreed on. */
  readonly protocol: string;
  readonly info: ResourceRequest;
  readonly pod: KubeObject;
  readonly gateway: KubeletGateway;
  readonly signal: AbortSignal;
}

export const execProtocols: readonly string[] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const channels = { stdin: 0, stdout: 1, stderr: 2, status: 3, close: 255 } as const;
/** Output waiting for a slow client; beyond it the process waits. */
const maxUnsentBytes = 1024 * 1024;

/** Runs the command and closes the socket with its status; resolves when all of it is over. */
export async function runExec({ client, info, pod, gateway, signal }: SessionOptions): Promise<void> {
  const gone = new AbortController();
  client.once("close", () => gone.abort(new MeshError("LOCAL_CLUSTER_API_CLIENT_GONE", "the client closed the connection")));
  // The stream pauses until the process exists, so nothing the client sends early is lost.
  client.pause();
  const ending = AbortSignal.any([signal, gone.signal]);
  let status: unknown;
  try {
    const session = await gateway.exec(
      {
        namespace: info.namespace,
        pod: info.name,
        container: containerOf(pod, info.query.get("container")),
        command: info.query.getAll("command"),
        stdin: flag(info.query, "stdin"),
        tty: flag(info.query, "tty"),
      },
      { signal: ending },
    );
    const { stdin, stdout, stderr, exit } = session;
    for (const stream of [stdin, stdout, stderr]) {
      stream.on("error", () => undefined);
      // Whoever waits for the streams must not wait for ever when the client or the server is gone.
      ending.addEventListener("abort", () => stream.destroy(), { once: true });
      if (ending.aborted) stream.destroy();
    }
    client.on("message", (data, binary) => {
      const message = Buffer.isBuffer(data) ? data : Buffer.from(data instanceof ArrayBuffer ? new Uint8Array(data) : Buffer.concat(data));
      if (!binary || message.length === 0 || stdin.destroyed || stdin.writableEnded) return;
      if (message[0] === channels.close && message[1] === channels.stdin) stdin.end();
      else if (message[0] === channels.stdin && message.length > 1 && !stdin.write(message.subarray(1))) {
        client.pause();
        stdin.once("drain", () => client.resume());
        stdin.once("close", () => client.resume());
      }
    });
    client.resume();
    if (!flag(info.query, "stdin")) stdin.end();
    const copied = Promise.all([copy(stdout, channels.stdout, client, ending), copy(stderr, channels.stderr, client, ending)]);
    const code = await Promise.race([exit, aborted(ending)]);
    await copied;
    status = code === 0 ? { metadata: {}, status: "Success" } : nonZero(code);
  } catch (thrown) {
    status = { metadata: {}, status: "Failure", reason: "InternalError", message: messageOf(thrown), code: 500 };
  }
  if (client.readyState !== client.OPEN) return;
  client.resume();
  client.send(Buffer.concat([Buffer.from([channels.status]), Buffer.from(JSON.stringify(status))]));
  client.close(1000);
}

function nonZero(code: number): unknown {
  return {
    metadata: {},
    status: "Failure",
    reason: "NonZeroExitCode",
    message: `command terminated with non-zero exit code: exit status ${code}`,
    details: { causes: [{ reason: "ExitCode", message: String(code) }] },
  };
}

async function copy(stream: Readable, channel: number, client: WebSocket, signal: AbortSignal): Promise<void> {
  try {
    for await (const chunk of stream) {
      if (client.readyState !== client.OPEN || signal.aborted) return;
      const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
      client.send(Buffer.concat([Buffer.from([channel]), bytes]));
      while (client.bufferedAmount > maxUnsentBytes && !signal.aborted) await flushed(client);
    }
  } catch {
    // A stream that breaks ends here; the exit status tells the rest.
  }
}

/** Resolves when what was sent so far is written: a ping is answered in order by the socket's own queue. */
function flushed(client: WebSocket): Promise<void> {
  return new Promise((resolve) => client.ping(undefined, false, () => resolve()));
}

async function aborted(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort");
  throw signal.reason;
}
