/**
 * What the API server asks of the kubelets behind it: the three things that end at a container, not in storage.
 * The cluster implements it; the API server has already authenticated, authorized and found the pod.
 */
import type { Duplex, Readable, Writable } from "node:stream";

/** One container of one pod that exists in storage. */
export interface ContainerRef {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
}

/** `kubectl logs`, with the query parameters already parsed and bounded. */
export interface LogRequest extends ContainerRef {
  /** Keep sending what the container writes until the signal aborts or the container ends. */
  readonly follow: boolean;
  /** The log of the container's previous run. */
  readonly previous: boolean;
  /** Each line starts with its RFC 3339 time and a space. */
  readonly timestamps: boolean;
  readonly tailLines?: number;
  readonly sinceSeconds?: number;
  readonly limitBytes?: number;
}

/** `kubectl exec`. */
export interface ExecRequest extends ContainerRef {
  readonly command: readonly string[];
  /** Whether the client sends anything to stdin; otherwise the gateway may leave it closed. */
  readonly stdin: boolean;
  readonly tty: boolean;
}

/** A process started in a container. The API server ends `stdin` when the client does, and reads both outputs to their end. */
export interface ExecSession {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** The exit code; rejects when the process could not be started or was lost. */
  readonly exit: Promise<number>;
}

/** `kubectl port-forward`: one connection to a port inside the pod. */
export interface DialRequest {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
}

/** Every method throws a MeshError when the pod is not running here; the client is told its message. */
export interface KubeletGateway {
  /** Yields log bytes as they are; ends at the end of the log, or when the signal aborts. */
  logs(request: LogRequest, options: { signal: AbortSignal }): AsyncIterable<Uint8Array>;
  /** Starts a process; the abort of the signal kills it. */
  exec(request: ExecRequest, options: { signal: AbortSignal }): Promise<ExecSession>;
  /** Connects to `127.0.0.1:port` inside the pod's network namespace. The connection may arrive paused. */
  dial(request: DialRequest, options: { signal: AbortSignal }): Promise<Duplex>;
}
