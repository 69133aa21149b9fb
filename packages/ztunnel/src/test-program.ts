/** The program as it is shipped, in a namespace of its own, and a node agent's words to it. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { linuxPodNetwork, type PodNetwork, type SeqpacketConnection } from "@fairway/linux";
import { decodeZdsResponse, encodeZdsRequest } from "@fairway/protocol";
import type { ExecutionContext } from "ava";
import type { TestPod } from "./test-pods.ts";

const forever = new AbortController().signal;
const main = fileURLToPath(new URL("./main.js", import.meta.url));

/** Two pods of one node. */
export const twoPodMesh = (a: string, b: string): string => `
workloads:
  - {uid: cluster//Pod/default/a, name: a, namespace: default, serviceAccount: a, workloadName: a, workloadIps: ["${a}"], protocol: HBONE, services: {}}
  - {uid: cluster//Pod/default/b, name: b, namespace: default, serviceAccount: b, workloadName: b, workloadIps: ["${b}"], protocol: HBONE, services: {}}
policies: []
services: []
`;

export interface Running {
  readonly child: ChildProcess;
  readonly output: () => string;
}

/** The program as it is shipped, in a network namespace of its own as on a node. */
export function ztunnel(t: ExecutionContext, namespace: string, env: Record<string, string>): Running {
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, main, "proxy"], { env: { PATH: process.env["PATH"] ?? "", ...env } });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    output += String(chunk);
  });
  t.teardown(() => child.kill("SIGKILL"));
  return { child, output: () => output };
}

/** A network namespace for the program, as a node has one. */
export function nodeNamespace(t: ExecutionContext): string {
  const name = `fwztunnel-node-${process.pid}`;
  execFileSync("ip", ["netns", "add", name]);
  t.teardown(() => execFileSync("ip", ["netns", "delete", name]));
  execFileSync("ip", ["-n", name, "link", "set", "lo", "up"]);
  return name;
}

export async function dismiss(agent: SeqpacketConnection, name: string): Promise<string> {
  await agent.send(encodeZdsRequest({ kind: "del", uid: `uid-${name}` }), [], { signal: forever });
  return decodeZdsResponse((await agent.receive({ signal: forever }))?.bytes ?? new Uint8Array()).error;
}

/** The answer of ztunnel: "" is yes. */
export async function enrol(agent: SeqpacketConnection, name: string, pod: TestPod): Promise<string> {
  using namespace = pod.open();
  const request = encodeZdsRequest({ kind: "add", uid: `uid-${name}`, workload: { namespace: "default", name, serviceAccount: name } });
  await agent.send(request, [namespace.fd], { signal: forever });
  return decodeZdsResponse((await agent.receive({ signal: forever }))?.bytes ?? new Uint8Array()).error;
}

/** What an application in the pod can do. */
export async function inPod(t: ExecutionContext, pod: TestPod): Promise<PodNetwork> {
  const network = linuxPodNetwork(pod.open());
  t.teardown(async () => {
    await network[Symbol.asyncDispose]();
    network.namespace?.[Symbol.dispose]();
  });
  return network;
}
