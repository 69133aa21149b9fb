/** The scheduler: binds each pod to the fitting node that it wants most apart from, with the fewest of its kind, then with the fewest pods. */
import { objectKey, WorkQueue } from "@fairway/kube";
import { errorCode } from "@fairway/runtime";
import { controllerOf, isFinished, type NodeObject, type Pod } from "../resources.ts";
import { type Controller, type ControllerContext, untilVisible } from "./context.ts";
import { fits } from "./node-fit.ts";
import { mayShare, reluctance } from "./pod-distance.ts";

const retry = { initialMs: 200, maxMs: 5_000 };

export function runScheduler(context: ControllerContext): Controller {
  const { collections, clock, log } = context;
  // One at a time: each choice counts the pods that the ones before it placed.
  const queue = new WorkQueue({ name: "scheduler", log, clock, retry, concurrency: 1, handle: (key) => schedule(context, key) });
  const waiting = (pod: Pod): boolean => (pod.spec.nodeName ?? "") === "" && pod.metadata.deletionTimestamp === undefined && !isFinished(pod);
  const wakeAll = (): void => {
    for (const pod of collections.pods.list()) if (waiting(pod)) queue.add(objectKey(pod));
  };
  const subscriptions = [
    collections.pods.subscribe((events) => {
      for (const { type, object } of events) if (type !== "deleted" && waiting(object)) queue.add(objectKey(object));
    }),
    collections.nodes.subscribe(wakeAll),
  ];
  wakeAll();
  return {
    async [Symbol.asyncDispose]() {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
      await queue[Symbol.asyncDispose]();
    },
  };
}

async function schedule(context: ControllerContext, key: string): Promise<void> {
  const { collections, client, events } = context;
  const pod = collections.pods.get(key);
  if (pod === undefined || (pod.spec.nodeName ?? "") !== "" || pod.metadata.deletionTimestamp !== undefined) return;
  const nodes = [...collections.nodes.list()];
  const node = chooseNode(pod, nodes, [...collections.pods.list()]);
  if (node === undefined) {
    events.record(
      pod,
      "Pod",
      "Warning",
      "FailedScheduling",
      `0/${nodes.length} nodes are available: none matches the pod's node selector, affinity and anti-affinity`,
    );
    return;
  }
  const { name, namespace, uid } = pod.metadata;
  try {
    await client.request("POST", `/api/v1/namespaces/${namespace}/pods/${name}/binding`, {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name, namespace, uid },
      target: { apiVersion: "v1", kind: "Node", name: node },
    });
  } catch (thrown) {
    if (errorCode(thrown) === "KUBE_NOT_FOUND" || errorCode(thrown) === "KUBE_CONFLICT") return;
    throw thrown;
  }
  events.record(pod, "Pod", "Normal", "Scheduled", `Successfully assigned ${key} to ${node}`);
  await untilVisible(context, collections.pods, key, (seen) => seen?.metadata.uid !== uid || seen?.spec.nodeName === node);
}

/** The node for a pod, or undefined when none fits. Pure. */
export function chooseNode(pod: Pod, nodes: readonly NodeObject[], pods: readonly Pod[]): string | undefined {
  const living = pods.filter((other) => !isFinished(other) && other.metadata.deletionTimestamp === undefined);
  const kind = groupOf(pod);
  const score = (node: NodeObject): [number, number, number] => {
    const here = living.filter((other) => other.spec.nodeName === node.metadata.name);
    return [reluctance(pod, node, nodes, living), here.filter((other) => kind !== undefined && groupOf(other) === kind).length, here.length];
  };
  return nodes
    .filter((node) => node.spec?.unschedulable !== true && fits(node, pod.spec) && mayShare(pod, node, nodes, living))
    .map((node) => ({ name: node.metadata.name, score: score(node) }))
    .sort((a, b) => a.score[0] - b.score[0] || a.score[1] - b.score[1] || a.score[2] - b.score[2] || a.name.localeCompare(b.name, "en", { numeric: true }))[0]
    ?.name;
}

function groupOf(pod: Pod): string | undefined {
  return controllerOf(pod);
}
