/** The shop from the outside: its pods, and requests made from inside them. */
import type { KubeClient, KubeObject, ResourceType } from "@fairway/kube";
import { type Cluster, visitorCommand } from "@fairway/local-cluster";
import { MeshError } from "@fairway/runtime";
import { eventually } from "../eventually.ts";

export interface Pod extends KubeObject {
  spec: { nodeName?: string; serviceAccountName?: string };
  status?: {
    phase?: string;
    podIP?: string;
    podIPs?: { ip: string }[];
    conditions?: { type: string; status: string }[];
    containerStatuses?: { restartCount: number }[];
  };
}

export const pods: ResourceType<Pod> = { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };

export interface Answer {
  readonly at: number;
  /** 0: no HTTP answer arrived. */
  readonly status: number;
  readonly ms: number;
  readonly body?: string;
  readonly error?: string;
}

export function isReady(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp === undefined && pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") === true;
}

/** The one ready pod of an app, when exactly one is. */
export async function readyPod(client: KubeClient, namespace: string, app: string): Promise<Pod | undefined> {
  const found = (await client.list(pods, { namespace, labelSelector: `app=${app}` })).filter((pod) => pod.metadata.deletionTimestamp === undefined);
  return found.length === 1 && found[0] !== undefined && isReady(found[0]) ? found[0] : undefined;
}

/** One request from inside a visitor's pod, on a connection of its own. */
export async function requestFrom(cluster: Cluster, namespace: string, url: string): Promise<Answer> {
  const { stdout, stderr, code } = await cluster.exec(await visitor(cluster, namespace), [...visitorCommand, "get", url], { timeoutMs: 20_000 });
  if (code !== 0) throw new MeshError("CLI_EXEC_FAILED", `the visitor in ${namespace} could not ask ${url}: ${stderr}`);
  return JSON.parse(stdout) as Answer;
}

export async function requestsFrom(cluster: Cluster, namespace: string, url: string, count: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let index = 0; index < count; index++) answers.push(await requestFrom(cluster, namespace, url));
  return answers;
}

/** A long-running action of a visitor whose lines arrive as they are printed. */
export async function visitorLines<T>(cluster: Cluster, namespace: string, args: readonly string[]): Promise<{ lines: T[]; stop: () => Promise<void> }> {
  const lines: T[] = [];
  const child = cluster.spawnIn(await visitor(cluster, namespace), [...visitorCommand, ...args]);
  let pending = "";
  child.stdout.on("data", (chunk: Buffer) => {
    pending += chunk.toString();
    const whole = pending.split("\n");
    pending = whole.pop() ?? "";
    for (const line of whole) if (line !== "") lines.push(JSON.parse(line) as T);
  });
  return {
    lines,
    stop: async () => {
      child.kill();
      await child.exit;
    },
  };
}

async function visitor(cluster: Cluster, namespace: string): Promise<{ namespace: string; name: string }> {
  const pod = await eventually(`a ready visitor in ${namespace}`, () => readyPod(cluster.client, namespace, "visitor"));
  return { namespace, name: pod.metadata.name };
}

/** `n/m` of answers with a status, for the table. */
export function tally(answers: readonly Answer[], status: number): string {
  return `${answers.filter((answer) => answer.status === status).length}/${answers.length} answered ${status}`;
}
