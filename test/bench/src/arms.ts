/** The four ways from the load generator to the application. */
import type { EngineName } from "@fairway/hbone";
import type { AuthorityPem } from "@fairway/pki";
import { type Child, startProgram } from "./child.ts";
import { findHaproxy, startHaproxyPair } from "./haproxy.ts";
import type { Ports } from "./measures.ts";

export type ArmName = "direct" | "plain TCP proxy" | "HBONE pair" | "haproxy mTLS pair";

export interface Arm {
  readonly name: ArmName;
  readonly ports: Ports;
  /** The proxies whose cost is counted. */
  readonly hops: readonly number[];
  stop(): Promise<void>;
}

/** The first hop of a pair and the load generator; the second hop and the application. */
export const cores = { first: 0, second: 1 } as const;

export function directArm(backends: Ports): Arm {
  return { name: "direct", ports: backends, hops: [], stop: async () => {} };
}

export async function plainArm(backends: Ports): Promise<Arm> {
  const { child, answer } = await startProgram("./plain-hop.js", cores.first, { backends });
  return arm("plain TCP proxy", answer as Ports, [child]);
}

export async function hboneArm(backends: Ports, authority: AuthorityPem, engine: EngineName): Promise<Arm> {
  const inbound = await startProgram("./inbound-hop.js", cores.second, { authority, engine }, { profile: true });
  try {
    const { port: tunnelPort } = inbound.answer as { port: number };
    const outbound = await startProgram("./outbound-hop.js", cores.first, { authority, engine, tunnelPort, backends }, { profile: true });
    return arm("HBONE pair", outbound.answer as Ports, [outbound.child, inbound.child]);
  } catch (thrown) {
    await inbound.child[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** Undefined when haproxy is not on this machine. */
export async function haproxyArm(backends: Ports, authority: AuthorityPem): Promise<Arm | undefined> {
  const haproxy = findHaproxy();
  if (haproxy === undefined) return undefined;
  const pair = await startHaproxyPair(haproxy, authority, backends, [cores.first, cores.second]);
  return { name: "haproxy mTLS pair", ports: pair.ports, hops: pair.hops.map(({ pid }) => pid), stop: () => pair.stop() };
}

function arm(name: ArmName, ports: Ports, children: readonly Child[]): Arm {
  return {
    name,
    ports,
    hops: children.map(({ pid }) => pid),
    stop: async () => {
      await Promise.all(children.map((child) => child[Symbol.asyncDispose]()));
    },
  };
}
