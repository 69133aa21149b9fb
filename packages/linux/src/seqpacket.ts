/** SOCK_SEQPACKET sockets on the file system: a server, and the client that connects to one. */
import { chmodSync, lstatSync, rmSync } from "node:fs";
import { type Clock, MeshError, messageOf, systemClock } from "@fairway/runtime";
import { DescriptorPoll } from "./descriptor-poll.ts";
import { SeqpacketConnection, type SeqpacketOptions } from "./seqpacket-connection.ts";
import { encodeUnixAddress } from "./socket-address.ts";
import { AF_UNIX, acceptSocket, bindSocket, closeDescriptor, connectSocket, errnoOf, listenSocket, openSocket, SOCK_SEQPACKET } from "./system-calls.ts";

const backlog = 16;
/** After an accept that failed for want of descriptors or memory. */
const acceptRetryMs = 1_000;

export interface SeqpacketServerOptions extends SeqpacketOptions {
  /** The least time between two accepts; 0, no limit, unless told. */
  readonly acceptIntervalMs?: number;
  /** Permission bits of the socket file; 0o600 unless told. */
  readonly mode?: number;
  readonly clock?: Clock;
}

export class SeqpacketServer implements AsyncDisposable {
  readonly path: string;
  readonly #fd: number;
  readonly #inode: bigint;
  readonly #poll: DescriptorPoll;
  readonly #onConnection: (connection: SeqpacketConnection) => void;
  readonly #options: SeqpacketServerOptions;
  #pause: Disposable | undefined;
  #open = true;

  private constructor(path: string, fd: number, onConnection: (connection: SeqpacketConnection) => void, options: SeqpacketServerOptions) {
    this.path = path;
    this.#fd = fd;
    this.#inode = lstatSync(path, { bigint: true }).ino;
    this.#onConnection = onConnection;
    this.#options = options;
    this.#poll = new DescriptorPoll(fd, { readable: true, writable: false }, () => this.#accept());
  }

  /**
   * Listens at `path`, in the place of a socket file that a dead process left behind.
   * Throws LINUX_SOCKET_IN_USE when something answers there, LINUX_LISTEN_FAILED for the rest.
   */
  static async listen(path: string, onConnection: (connection: SeqpacketConnection) => void, options: SeqpacketServerOptions = {}): Promise<SeqpacketServer> {
    removeStale(path);
    const fd = openSocket(AF_UNIX, SOCK_SEQPACKET);
    try {
      bindSocket(fd, encodeUnixAddress(path));
      // Before listening: until then nobody can connect, whatever the file's mode is.
      chmodSync(path, options.mode ?? 0o600);
      listenSocket(fd, backlog);
      return new SeqpacketServer(path, fd, onConnection, options);
    } catch (cause) {
      closeDescriptor(fd);
      throw new MeshError("LINUX_LISTEN_FAILED", `cannot listen at ${path}: ${messageOf(cause)}`, { cause, details: { errno: errnoOf(cause) } });
    }
  }

  /** Stops accepting and removes the socket file, if it is still this server's. Connections live on. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#pause?.[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
    closeDescriptor(this.#fd);
    if (inodeOf(this.path) === this.#inode) rmSync(this.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #accept(): void {
    const { acceptIntervalMs = 0 } = this.#options;
    try {
      for (let fd = acceptSocket(this.#fd); fd !== undefined; fd = acceptSocket(this.#fd)) {
        this.#greet(fd);
        if (acceptIntervalMs > 0 || !this.#open) break;
      }
    } catch (thrown) {
      process.emitWarning(MeshError.from(thrown, "LINUX_ACCEPT_FAILED"));
      this.#waitBeforeNext(acceptRetryMs);
      return;
    }
    if (acceptIntervalMs > 0) this.#waitBeforeNext(acceptIntervalMs);
  }

  #greet(fd: number): void {
    let connection: SeqpacketConnection | undefined;
    try {
      connection = new SeqpacketConnection(fd, this.#options);
      this.#onConnection(connection);
    } catch (thrown) {
      process.emitWarning(MeshError.from(thrown, "LINUX_CONNECTION_HANDLER_FAILED"));
      if (connection === undefined) closeDescriptor(fd);
      else connection.close();
    }
  }

  #waitBeforeNext(delayMs: number): void {
    if (!this.#open) return;
    this.#poll.set({ readable: false, writable: false });
    this.#pause = (this.#options.clock ?? systemClock).schedule(delayMs, () => this.#poll.set({ readable: true, writable: false }));
  }
}

/** Connects to a server at `path`. Throws LINUX_SEQPACKET_CONNECT_FAILED. */
export async function connectSeqpacket(path: string, options: SeqpacketOptions = {}): Promise<SeqpacketConnection> {
  const fd = openSocket(AF_UNIX, SOCK_SEQPACKET);
  try {
    connectSocket(fd, encodeUnixAddress(path));
    return new SeqpacketConnection(fd, options);
  } catch (cause) {
    closeDescriptor(fd);
    throw new MeshError("LINUX_SEQPACKET_CONNECT_FAILED", `cannot connect to ${path}: ${messageOf(cause)}; does a server listen there?`, {
      cause,
      details: { errno: errnoOf(cause) },
    });
  }
}

/** Removes the file of a server that died: a socket that refuses connections. Anything else at the path stays. */
function removeStale(path: string): void {
  if (inodeOf(path) === undefined) return;
  const fd = openSocket(AF_UNIX, SOCK_SEQPACKET);
  try {
    connectSocket(fd, encodeUnixAddress(path));
  } catch (thrown) {
    if (errnoOf(thrown) === "ECONNREFUSED" && lstatSync(path).isSocket()) rmSync(path, { force: true });
    return;
  } finally {
    closeDescriptor(fd);
  }
  throw new MeshError("LINUX_SOCKET_IN_USE", `another process serves ${path}; is a second copy of this program running?`);
}

function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}
