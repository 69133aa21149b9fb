/** The ways from the load generator to the application. Each can be started afresh, so that no measurement of memory sees what another left. */
import type { EngineName } from "@fairway/hbone";
import type { AuthorityPem } from "@fairway/pki";
import { type Child, startProgram } from "./child.ts";
import type { Ports } from "./measures.ts";
import type { TunnelsLost } from "./outbound-hop.ts";
import { type Peer, startPeerPair } from "./peer-pair.ts";
import type { Wire } from "./wire.ts";

export interface Arm {
  readonly name: string;
  /** Where the load generator connects to. */
  readonly host: string;
  readonly ports: Ports;
  /** The proxies whose cost is counted. */
  readonly hops: readonly number[];
  /** Tunnels that ended with an error since the last call; only of our pair. */
  readonly tunnelsLost?: () => Promise<number>;
  stop(): Promise<void>;
}

export interface ArmMaker {
  /** For --arms. */
  readonly key: string;
  readonly name: string;
  start(): Promise<Arm>;
}

/** What all arms of a run have in common. */
export interface Scene {
  readonly backends: Ports;
  readonly authority: AuthorityPem;
  readonly wire: Wire;
  /** Connections a hop must be able to hold. */
  readonly connections: number;
}

export const names = { direct: "direct", plain: "plain TCP proxy", hbone: "HBONE pair", haproxy: "haproxy mTLS pair" } as const;

/** The first hop of a pair; the second hop. */
const cores = { first: 0, second: 1 } as const;
const loopbackHost = "127.0.0.1";
/** As a thread of ztunnel has it: young objects are collected by the bytes that were moved, in a semi-space that does not grow. */
const flags: readonly string[] = ["--expose-gc", "--max-semi-space-size=4"];

export function directArm({ backends, wire }: Scene): ArmMaker {
  const arm: Arm = { name: names.direct, host: wire.far, ports: { ...backends, fresh: backends.echo }, hops: [], stop: async () => {} };
  return { key: "direct", name: names.direct, start: async () => arm };
}

export function plainArm({ backends, wire: { near, far } }: Scene): ArmMaker {
  const start = async (): Promise<Arm> => {
    const { child, answer } = await startProgram("./plain-hop.js", cores.first, { backends, far }, { flags, namespace: near });
    return arm(names.plain, answer as Ports, [child]);
  };
  return { key: "plain", name: names.plain, start };
}

export function hboneArm({ backends, authority, wire: { near, farSide, far } }: Scene, engine: EngineName): ArmMaker {
  const start = async (): Promise<Arm> => {
    const inbound = await startProgram("./inbound-hop.js", cores.second, { authority, engine, far }, { profile: true, flags, namespace: farSide });
    try {
      const { port: tunnelPort } = inbound.answer as { port: number };
      const setup = { authority, engine, far, tunnelPort, backends };
      const outbound = await startProgram("./outbound-hop.js", cores.first, setup, { profile: true, flags, namespace: near });
      const tunnelsLost = async (): Promise<number> => ((await outbound.child.ask("tunnels lost")) as TunnelsLost).lost;
      return { ...arm(names.hbone, outbound.answer as Ports, [outbound.child, inbound.child]), tunnelsLost };
    } catch (thrown) {
      await inbound.child[Symbol.asyncDispose]();
      throw thrown;
    }
  };
  return { key: "hbone", name: names.hbone, start };
}

export function peerArm(peer: Peer, { backends, authority, wire, connections }: Scene): ArmMaker {
  const start = async (): Promise<Arm> => {
    const pair = await startPeerPair(peer, { authority, backends, wire, cores: [cores.first, cores.second], connections });
    return { name: peer.name, host: loopbackHost, ports: pair.ports, hops: pair.hops.map(({ pid }) => pid), stop: () => pair.stop() };
  };
  return { key: peer.key, name: peer.name, start };
}

function arm(name: string, ports: Ports, children: readonly Child[]): Arm {
  return {
    name,
    host: loopbackHost,
    ports,
    hops: children.map(({ pid }) => pid),
    stop: async () => {
      await Promise.all(children.map((child) => child[Symbol.asyncDispose]()));
    },
  };
}
