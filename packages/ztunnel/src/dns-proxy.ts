/**
 * The DNS of one pod (ztunnel contract 8): what its applications ask on port 53, of whomever, arrives here, on UDP and TCP. The kernel
 * gives each reply the address that was asked; for that it has to leave from the very address it came to, so nothing binds a wildcard.
 */
import type { Socket as UdpSocket } from "node:dgram";
import type { Socket } from "node:net";
import { refuse } from "@fairway/hbone";
import { hasIpv6, type Listener, leavePort } from "@fairway/linux";
import { isLoopback, tryParseIp } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import type { DnsConfig } from "./config.ts";
import { DnsConnection } from "./dns-connection.ts";
import { DnsResponder, type DnsScope } from "./dns-responder.ts";

/** Datagrams of one pod that are not answered yet, those that wait for a resolver or for the mesh among them. Past it they are dropped. */
const maxPendingDatagrams = 1_024;
const maxDnsConnections = 256;
const backlog = 128;
/** One may have looked at the sockets before the last datagram came. */
const turnsToRead = 2;

export class DnsProxy implements AsyncDisposable {
  readonly #scope: DnsScope;
  readonly #responder: DnsResponder;
  readonly #listeners: Listener[] = [];
  readonly #sockets: UdpSocket[] = [];
  readonly #connections = new Map<Socket, DnsConnection>();
  readonly #idle = new Set<() => void>();
  #pending = 0;
  #received = 0;
  #closed = false;

  private constructor(scope: DnsScope, config: DnsConfig) {
    this.#scope = scope;
    this.#responder = new DnsResponder(scope, config);
  }

  /** Listens at every address that the pod has a family for, or at none: throws LINUX_LISTEN_FAILED with all closed again. */
  static async open(scope: DnsScope, config: DnsConfig): Promise<DnsProxy> {
    const proxy = new DnsProxy(scope, config);
    try {
      const ipv6 = hasIpv6(scope.network.namespace);
      for (const { host, port } of config.listen) if (ipv6 || !host.includes(":")) await proxy.#listen(host, port);
    } catch (thrown) {
      await proxy[Symbol.asyncDispose]();
      throw thrown;
    }
    return proxy;
  }

  /** The port of its first address, for those who asked for any. */
  get port(): number | undefined {
    return this.#listeners[0]?.port;
  }

  /** Takes nothing new: what comes goes to others of the port. Resolves when everything that has come is answered, or when `signal` aborts. */
  async drain({ signal }: { signal: AbortSignal }): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    for (const connection of this.#connections.values()) connection.drain();
    for (const socket of this.#sockets) this.#leave(socket);
    // What the kernel holds for these sockets is read before they close.
    for (let seen = -1; seen !== this.#received; ) {
      seen = this.#received;
      for (let turn = 0; turn < turnsToRead; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
    while (!signal.aborted && !this.#closed && (this.#pending > 0 || this.#connections.size > 0)) await this.#settled(signal);
    this.#close();
  }

  #leave(socket: UdpSocket): void {
    try {
      leavePort(socket);
    } catch (error) {
      this.#scope.log.warn("a DNS socket goes on receiving until it closes", { error: MeshError.from(error, "LINUX_SYSTEM_CALL_FAILED") });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }

  #close(): void {
    this.#closed = true;
    for (const listener of this.#listeners) listener.close();
    for (const socket of this.#sockets.splice(0)) socket.close();
    for (const socket of this.#connections.keys()) socket.destroy();
    this.#wake();
  }

  /** Resolves at the next answer or closed connection, or when the signal aborts. */
  #settled(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#idle.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#idle.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  async #listen(host: string, port: number): Promise<void> {
    const { network, config } = this.#scope;
    const { mark, reusePort } = config;
    const listener = await network.listen({ host, port, mark, reusePort, transparent: false, backlog, onConnection: (socket) => this.#accept(socket) });
    this.#listeners.push(listener);
    const socket = await network.datagrams({ host, port: listener.port, mark, reusePort });
    this.#sockets.push(socket);
    socket.on("message", (bytes, from) => this.#receive(socket, listener.port, bytes, from));
  }

  #accept(socket: Socket): void {
    const { tasks, clock, metrics } = this.#scope;
    if (this.#connections.size >= maxDnsConnections) {
      metrics.overloads.inc({ bound: "dns-connections" });
      refuse(socket);
      return;
    }
    const connection = new DnsConnection(socket, { tasks, clock, respond: (message) => this.#responder.respond(message, "tcp") });
    this.#connections.set(socket, connection);
    socket.once("close", () => {
      this.#connections.delete(socket);
      this.#wake();
    });
  }

  #receive(socket: UdpSocket, ownPort: number, bytes: Uint8Array, from: { address: string; port: number }): void {
    const { tasks, metrics } = this.#scope;
    this.#received += 1;
    const source = tryParseIp(from.address);
    // A reply to ourselves would be answered, and so would that answer, for ever.
    if (source === undefined || from.port === 0 || (from.port === ownPort && isLoopback(source))) return;
    if (this.#pending >= maxPendingDatagrams) {
      metrics.overloads.inc({ bound: "dns-datagrams" });
      return;
    }
    this.#pending += 1;
    tasks.run("DNS question", async () => {
      let answer: Uint8Array | undefined;
      try {
        answer = await this.#responder.respond(bytes, "udp");
      } finally {
        // Closed while the question waited: the client asks again.
        if (answer === undefined || this.#closed) this.#answered();
        else socket.send(answer, from.port, from.address, () => this.#answered());
      }
    });
  }

  /** Only when the kernel has the answer: closing a socket throws away what it has not. */
  #answered(): void {
    this.#pending -= 1;
    this.#wake();
  }

  #wake(): void {
    for (const done of [...this.#idle]) done();
  }
}
