/**
 * Connections of applications that choose the mesh by address instead of being captured: SOCKS5 on 15080, HTTP CONNECT beside it. Off unless
 * asked for, and on the pod's loopback: whoever reaches these ports speaks with the pod's identity. From the request on all is as if the
 * connection had been captured; only that the client is told how it went (the reference says yes before it knows).
 */
import type { Socket } from "node:net";
import { refuse, remoteEnd } from "@fairway/hbone";
import { ipFamily } from "@fairway/model";
import { assertNever, MeshError } from "@fairway/runtime";
import { type AskedDestination, addressAskedFor } from "./asked-destination.ts";
import { ztunnelError } from "./failure.ts";
import { HandshakeReader } from "./handshake-reader.ts";
import { connectFailed, connectSucceeded, readConnectRequest } from "./http-connect.ts";
import type { Outbound } from "./outbound.ts";
import type { PodScope } from "./pod-scope.ts";
import { readSocks5Request, socks5Failed, socks5Succeeded } from "./socks5.ts";
import { reportRefused } from "./telemetry.ts";

/** By which a client says where it wants to go. */
export type AskingProtocol = "socks5" | "http-connect";

/** From the accept to the whole request: a client that only holds its place loses it. */
const requestTimeoutMs = 10_000;

export class ExplicitProxy {
  readonly #scope: PodScope;
  readonly #outbound: Outbound;
  #asking = 0;

  constructor(scope: PodScope, outbound: Outbound) {
    this.#scope = scope;
    this.#outbound = outbound;
  }

  /** Takes sockets of a listener: paused, half-open allowed. Never throws. */
  taker(protocol: AskingProtocol): (socket: Socket) => void {
    return (socket) => {
      const { metrics, tasks, config } = this.#scope;
      if (this.#asking >= config.maxPendingConnections) {
        metrics.overloads.inc({ bound: "pending-explicit" });
        refuse(socket);
        return;
      }
      tasks.run("connection by request", () => this.#serve(socket, protocol));
    };
  }

  async #serve(socket: Socket, protocol: AskingProtocol): Promise<void> {
    const { local, connections, tasks } = this.#scope;
    const source = remoteEnd(socket);
    if (source === undefined) return refuse(socket);
    using _begun = connections.begin();
    let asked: AskedDestination | undefined;
    let destination: Awaited<ReturnType<typeof addressAskedFor>>;
    this.#asking++;
    try {
      asked = await this.#request(socket, protocol);
      const { signal } = tasks;
      const { workload } = await local.fetch({ signal });
      destination = await addressAskedFor(this.#scope, asked, { workload, family: ipFamily(source.ip), signal });
    } catch (thrown) {
      reportRefused(this.#scope, { source, destination: asked?.kind === "address" ? asked.address : undefined, direction: "outbound", error: thrown });
      if (asked !== undefined) socket.write(failed(protocol, MeshError.from(thrown, "ZTUNNEL_ROUTE_REFUSED")));
      // What was said goes out, and then nothing more comes in.
      socket.destroySoon();
      return;
    } finally {
      this.#asking--;
    }
    await this.#outbound.serve(socket, destination, {
      joined: () => void socket.write(protocol === "socks5" ? socks5Succeeded() : connectSucceeded()),
      refused: (error) => {
        if (!socket.destroyed) socket.write(failed(protocol, error));
        socket.destroySoon();
      },
    });
  }

  async #request(socket: Socket, protocol: AskingProtocol): Promise<AskedDestination> {
    const { clock, tasks } = this.#scope;
    const late = new AbortController();
    using _deadline = clock.schedule(requestTimeoutMs, () =>
      late.abort(ztunnelError("ZTUNNEL_BAD_REQUEST", `the client did not say where it wants to go within ${requestTimeoutMs} ms`)),
    );
    const reader = new HandshakeReader(socket, { signal: AbortSignal.any([tasks.signal, late.signal]) });
    try {
      return await readRequest(socket, protocol, reader);
    } finally {
      reader.finish();
    }
  }
}

function readRequest(socket: Socket, protocol: AskingProtocol, reader: HandshakeReader): Promise<AskedDestination> {
  switch (protocol) {
    case "socks5":
      return readSocks5Request(socket, reader);
    case "http-connect":
      return readConnectRequest(socket, reader);
    default:
      return assertNever(protocol);
  }
}

function failed(protocol: AskingProtocol, error: Error): Buffer {
  return protocol === "socks5" ? socks5Failed(error) : connectFailed(error);
}
