/** A pair of haproxies that speak mutual TLS to each other: the native measure beside ours. One process and one thread each. */
import { existsSync } from "node:fs";
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

const candidates = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];

export function findHaproxy(): string | undefined {
  return candidates.find((path) => existsSync(path));
}

export interface HaproxyPair {
  readonly ports: Ports;
  readonly hops: readonly Child[];
  stop(): Promise<void>;
}

export async function startHaproxyPair(haproxy: string, authority: AuthorityPem, backends: Ports, cores: readonly [number, number]): Promise<HaproxyPair> {
  const folder = await mkdtemp(join(tmpdir(), "fairway-bench-"));
  const hops: Child[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(hops.map((hop) => hop[Symbol.asyncDispose]()));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await writeFile(join(folder, "ca.pem"), authority.rootCert || authority.caCert);
    await writeFile(join(folder, "client.pem"), keyAndChain(authority, clientIdentity), { mode: 0o600 });
    await writeFile(join(folder, "server.pem"), keyAndChain(authority, serverIdentity), { mode: 0o600 });
    const [echo, sink, source, innerEcho, innerSink, innerSource] = await freePorts(6);
    if (echo === undefined || sink === undefined || source === undefined) throw new Error("no free ports");
    const inner = [innerEcho, innerSink, innerSource];
    const outer = [echo, sink, source];
    const toServer = `ssl verify required ca-file ${folder}/ca.pem crt ${folder}/client.pem`;
    const fromClient = `ssl crt ${folder}/server.pem ca-file ${folder}/ca.pem verify required`;
    const listeners = (from: readonly (number | undefined)[], to: readonly (number | undefined)[], bind: string, server: string): string =>
      from.map((port, index) => `listen l${index}\n  bind 127.0.0.1:${port} ${bind}\n  server s 127.0.0.1:${to[index]} ${server}\n`).join("");
    await writeFile(join(folder, "out.cfg"), `${preamble}${listeners(outer, inner, "", toServer)}`);
    await writeFile(join(folder, "in.cfg"), `${preamble}${listeners(inner, [backends.echo, backends.sink, backends.source], fromClient, "")}`);
    hops.push(startCommand(haproxy, ["-db", "-f", join(folder, "out.cfg")], cores[0]), startCommand(haproxy, ["-db", "-f", join(folder, "in.cfg")], cores[1]));
    return { ports: { echo, sink, source }, hops, stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

const preamble = `global
  nbthread 1
  maxconn 4000
  ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  maxconn 4000
  timeout connect 5s
  timeout client 60s
  timeout server 60s
`;

function keyAndChain(authority: AuthorityPem, identity: SpiffeId): string {
  const { privateKey, publicKey } = generateKeyPair();
  const chain = Authority.load(authority, systemClock).sign({ publicKey, identity, ttlMs: 0 }).slice(0, -1);
  return [...chain, privateKey.export({ type: "pkcs8", format: "pem" }).toString()].join("\n");
}
