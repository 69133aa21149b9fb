/** For the tests of the DNS proxy: messages made by hand, a client of datagrams, and a resolver that says what it is told to. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { parseIp, type SocketAddress } from "@fairway/model";
import type { ExecutionContext } from "ava";
import type { DnsConfig } from "./config.ts";
import { DnsFrames, dnsFrame } from "./dns-frames.ts";

export const typeNumbers = { a: 1, txt: 16, aaaa: 28, unheardOf: 65_280 } as const;

/** A query with one question, recursion desired. */
export function question(name: string, type: number = typeNumbers.a, id = 0x2a2a): Buffer {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label, "latin1")]);
  return Buffer.from([id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, type >> 8, type & 0xff, 0, 1]);
}

/** The response to `query` with the code and the raw records given. */
export function response(
  query: Uint8Array,
  { code = 0, records = [], flags = 0x8580 }: { code?: number; records?: readonly Uint8Array[]; flags?: number },
): Buffer {
  const answer = Buffer.concat([query, ...records]);
  answer.writeUInt16BE(flags | code, 2);
  answer.writeUInt16BE(records.length, 6);
  return answer;
}

/** A record of the name that was asked for. */
export function recordOf(type: number, data: Uint8Array): Buffer {
  return Buffer.from([0xc0, 12, type >> 8, type & 0xff, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 0xff, ...data]);
}

export function codeOf(message: Uint8Array): number {
  return Buffer.from(message).readUInt16BE(2) & 0xf;
}

export function addressCount(message: Uint8Array): number {
  return Buffer.from(message).readUInt16BE(6);
}

export function dnsConfig(host: string, upstreams: readonly SocketAddress[], more: Partial<DnsConfig> = {}): DnsConfig {
  return {
    listen: [{ host, port: 0 }],
    clusterDomain: "cluster.local",
    searchDomains: undefined,
    preferredNamespace: undefined,
    upstreams,
    ipv6: true,
    ...more,
  };
}

/** Sends one datagram and gives the first that comes back from there. */
export async function askUdp(t: ExecutionContext, host: string, port: number, message: Uint8Array): Promise<Buffer> {
  const socket = createSocket("udp4");
  t.teardown(() => socket.close());
  const answered = once(socket, "message");
  socket.send(message, port, host);
  const [answer]: unknown[] = await answered;
  return Buffer.isBuffer(answer) ? answer : Buffer.alloc(0);
}

/** A TCP connection of a DNS client. */
export class DnsClient {
  readonly socket: Socket;
  /** Resolves when the connection is gone, however it went. */
  readonly closed: Promise<void>;
  readonly #frames = new DnsFrames();
  readonly #answers: Uint8Array[] = [];

  constructor(t: ExecutionContext, host: string, port: number) {
    this.socket = connect({ host, port, allowHalfOpen: true });
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => this.socket.once("close", () => resolve()));
    this.socket.on("data", (chunk) => {
      this.#frames.feed(chunk);
      for (let answer = this.#frames.next(); answer !== undefined; answer = this.#frames.next()) this.#answers.push(answer);
      this.socket.emit("answer");
    });
    t.teardown(() => this.socket.destroy());
  }

  send(...messages: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(messages.map(dnsFrame)));
  }

  async answers(count: number): Promise<readonly Uint8Array[]> {
    while (this.#answers.length < count) await once(this.socket, "answer");
    return this.#answers.splice(0, count);
  }
}

export interface Asked {
  readonly message: Buffer;
  readonly protocol: "udp" | "tcp";
  readonly port: number;
  readonly reply: (message: Uint8Array) => void;
}

/** A resolver on UDP and TCP; `onQuestion` replies, or does not. */
export async function resolver(t: ExecutionContext, host: string, onQuestion: (asked: Asked) => void): Promise<SocketAddress> {
  const tcp = createServer((socket) => {
    const frames = new DnsFrames();
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      frames.feed(chunk);
      const message = frames.next();
      if (message === undefined) return;
      onQuestion({ message: Buffer.from(message), protocol: "tcp", port: socket.remotePort ?? 0, reply: (answer) => void socket.write(dnsFrame(answer)) });
    });
  });
  tcp.listen(0, host);
  await once(tcp, "listening");
  const address = tcp.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const udp = createSocket("udp4");
  udp.on("error", () => {});
  udp.on("message", (message, from) => {
    onQuestion({ message, protocol: "udp", port: from.port, reply: (answer) => udp.send(answer, from.port, from.address) });
  });
  udp.bind(port, host);
  await once(udp, "listening");
  t.teardown(() => {
    udp.close();
    tcp.close();
  });
  return { ip: parseIp(host), port };
}
