/** The sockets of the cluster's DNS: UDP and TCP on one port. What is not the cluster's goes to the upstream, if there is one. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { type Logger, MeshError } from "@fairway/runtime";
import { replyTo } from "./message.ts";
import type { DnsSources } from "./records.ts";

export interface DnsServerOptions {
  readonly host: string;
  readonly port: number;
  readonly sources: DnsSources;
  /** An address to ask for foreign names, over UDP. */
  readonly upstream?: string | undefined;
  readonly log: Logger;
}

export interface DnsServer extends AsyncDisposable {
  readonly port: number;
}

const maxTcpConnections = 200;
const tcpIdleMs = 10_000;
const upstreamTimeoutMs = 2_000;
const upstreamPort = 53;
/** Answers waiting for a client that asks and does not read. */
const maxUnreadBytes = 256 * 1024;
const maxForwarding = 200;
const maxPortAttempts = 5;

/** Port 0 takes any that is free for both. Throws LOCAL_CLUSTER_DNS_LISTEN_FAILED. */
export async function serveDns(options: DnsServerOptions): Promise<DnsServer> {
  const tcp = createServer({ noDelay: true }, (socket) => serveConnection(socket, options));
  tcp.maxConnections = maxTcpConnections;
  const udp = await listenOnBoth(tcp, options);
  const forwarder = new Forwarder(options.upstream);
  udp.on("message", (query, from) => answerDatagram(udp, query, from, options, forwarder));
  udp.on("error", (error) => options.log.warn("DNS socket failed", { error }));
  tcp.on("error", (error) => options.log.warn("DNS listener failed", { error }));
  return { port: udp.address().port, [Symbol.asyncDispose]: () => close(udp, tcp) };
}

/**
 * The kernel chooses among the ports that are free for TCP, where every connection that ended a minute ago still has one; among those of UDP it
 * is the exception that one is taken, and then another one is tried.
 */
async function listenOnBoth(tcp: Server, { host, port }: DnsServerOptions): Promise<UdpSocket> {
  for (let attempt = 1; ; attempt++) {
    const udp = createSocket({ type: host.includes(":") ? "udp6" : "udp4", reuseAddr: true });
    try {
      tcp.listen(port, host);
      await once(tcp, "listening");
      udp.bind(portOf(tcp), host);
      await once(udp, "listening");
      return udp;
    } catch (cause) {
      udp.close();
      if (tcp.listening) await new Promise((resolve) => tcp.close(resolve));
      if (port === 0 && attempt < maxPortAttempts) continue;
      throw new MeshError("LOCAL_CLUSTER_DNS_LISTEN_FAILED", `cannot serve DNS on ${host}:${port}; is the port taken?`, { cause });
    }
  }
}

function portOf(tcp: Server): number {
  const address = tcp.address();
  return address !== null && typeof address === "object" ? address.port : 0;
}

function answerDatagram(udp: UdpSocket, query: Buffer, from: RemoteInfo, { sources, upstream, log }: DnsServerOptions, forwarder: Forwarder): void {
  const send = (bytes: Uint8Array): void => {
    udp.send(bytes, from.port, from.address, (error) => {
      if (error !== null) log.debug("a DNS answer was not sent", { error });
    });
  };
  const reply = replyTo(query, "udp", sources);
  if (reply === undefined) return;
  if (reply.foreign && upstream !== undefined) forwarder.ask(query, send);
  else send(reply.bytes);
}

function serveConnection(socket: Socket, { sources, log }: DnsServerOptions): void {
  let pending = Buffer.alloc(0);
  socket.setTimeout(tcpIdleMs, () => socket.destroy());
  socket.on("error", (error) => log.debug("DNS connection failed", { error }));
  socket.on("data", (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      const reply = replyTo(pending.subarray(2, end), "tcp", sources);
      pending = pending.subarray(end);
      if (reply === undefined || socket.writableLength > maxUnreadBytes) {
        socket.destroy();
        return;
      }
      socket.write(reply.bytes);
    }
  });
}

/** One upstream socket per question: the answer's port then proves whom it is for. */
class Forwarder {
  readonly #upstream: string | undefined;
  #open = 0;

  constructor(upstream: string | undefined) {
    this.#upstream = upstream;
  }

  ask(query: Uint8Array, answer: (bytes: Uint8Array) => void): void {
    if (this.#upstream === undefined || this.#open >= maxForwarding) return;
    const socket = createSocket(this.#upstream.includes(":") ? "udp6" : "udp4");
    this.#open += 1;
    let open = true;
    // Whichever comes first: closing a datagram socket twice throws.
    const done = (): void => {
      if (!open) return;
      open = false;
      clearTimeout(timer);
      this.#open -= 1;
      socket.close();
    };
    const timer = setTimeout(done, upstreamTimeoutMs);
    socket.on("error", done);
    socket.once("message", (bytes) => {
      if (open) answer(bytes);
      done();
    });
    socket.send(query, upstreamPort, this.#upstream);
  }
}

async function close(udp: UdpSocket, tcp: Server): Promise<void> {
  await Promise.all([new Promise<void>((resolve) => udp.close(() => resolve())), new Promise<void>((resolve) => tcp.close(() => resolve()))]);
}
