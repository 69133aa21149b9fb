/** Two processes of a program of others that speak mutual TLS to each other: plain TCP in at the first, plain TCP out at the second. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SpiffeId } from "@fairway/model";
import { Authority, type AuthorityPem, generateKeyPair } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import { type Child, startCommand } from "./child.ts";
import { freePorts } from "./free-ports.ts";
import { clientIdentity, serverIdentity } from "./identities.ts";
import type { Ports } from "./measures.ts";
import type { Wire } from "./wire.ts";

export type Service = "echo" | "sink" | "source" | "fresh";
export const services: readonly Service[] = ["echo", "sink", "source", "fresh"];

/** What one process of a pair must know. */
export interface PeerHop {
  /** `first`: plain TCP in, TLS out; `second`: TLS in, plain TCP out. */
  readonly side: "first" | "second";
  readonly listen: { readonly host: string; readonly ports: Readonly<Record<Service, number>> };
  readonly to: { readonly host: string; readonly ports: Readonly<Record<Service, number>> };
  /** Own files of this process; the configuration is written there. */
  readonly folder: string;
  /** PEM files: the trusted root, the own chain, its key, and chain and key in one. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string; readonly pem: string };
  /** Connections it must hold at once. */
  readonly connections: number;
}

export interface Peer {
  /** For --arms. */
  readonly key: string;
  readonly name: string;
  /** Whether `fresh` makes a full handshake for each connection. */
  readonly fresh: boolean;
  /** What to run; `config` is written to `<folder>/config` first. */
  command(hop: PeerHop): { readonly program: string; readonly args: readonly string[]; readonly config?: string };
}

export interface PeerPair {
  readonly ports: Ports;
  readonly hops: readonly Child[];
  stop(): Promise<void>;
}

export interface PeerSetup {
  readonly authority: AuthorityPem;
  readonly backends: Ports;
  readonly wire: Wire;
  readonly cores: readonly [number, number];
  readonly connections: number;
}

const loopbackHost = "127.0.0.1";

export async function startPeerPair(peer: Peer, { authority, backends, wire, cores, connections }: PeerSetup): Promise<PeerPair> {
  const folder = await mkdtemp(join(tmpdir(), "fairway-bench-"));
  const hops: Child[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(hops.map((hop) => hop[Symbol.asyncDispose]()));
    await rm(folder, { recursive: true, force: true });
  };
  const start = async (hop: Omit<PeerHop, "folder" | "files" | "connections">, identity: SpiffeId, core: number, namespace?: string): Promise<void> => {
    const own = await mkdtemp(join(folder, `${hop.side}-`));
    const { program, args, config } = peer.command({ ...hop, folder: own, files: await certificateFiles(own, authority, identity), connections });
    if (config !== undefined) await writeFile(join(own, "config"), config);
    hops.push(startCommand(program, args, core, { namespace }));
  };
  try {
    const numbers = await freePorts(2 * services.length);
    const outer = { host: loopbackHost, ports: named(numbers) };
    const inner = { host: wire.far, ports: named(numbers.slice(services.length)) };
    const app = { host: wire.far, ports: { ...backends, fresh: backends.echo } };
    await start({ side: "second", listen: inner, to: app }, serverIdentity, cores[1], wire.farSide);
    await start({ side: "first", listen: outer, to: inner }, clientIdentity, cores[0], wire.near);
    const { fresh, ...ports } = outer.ports;
    return { ports: peer.fresh ? { ...ports, fresh } : ports, hops, stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

function named(ports: readonly number[]): Record<Service, number> {
  const [echo, sink, source, fresh] = ports;
  if (echo === undefined || sink === undefined || source === undefined || fresh === undefined) throw new Error("no free ports");
  return { echo, sink, source, fresh };
}

async function certificateFiles(folder: string, authority: AuthorityPem, identity: SpiffeId): Promise<PeerHop["files"]> {
  const { privateKey, publicKey } = generateKeyPair();
  const chain = Authority.load(authority, systemClock).sign({ publicKey, identity, ttlMs: 0 }).slice(0, -1).join("\n");
  const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const files = { ca: join(folder, "ca.pem"), cert: join(folder, "cert.pem"), key: join(folder, "key.pem"), pem: join(folder, "both.pem") };
  await writeFile(files.ca, authority.rootCert || authority.caCert);
  await writeFile(files.cert, chain);
  await writeFile(files.key, key, { mode: 0o600 });
  await writeFile(files.pem, `${chain}\n${key}`, { mode: 0o600 });
  return files;
}
