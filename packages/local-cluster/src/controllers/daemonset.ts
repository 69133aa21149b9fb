/** DaemonSets: one pod on every fitting node, replaced node by node; with `maxSurge` the new pod is ready before the old one goes. */
import { controllerOf, type DaemonSet, daemonSets, isFinished, isReady, type Pod, pods } from "../resources.ts";
import { type Controller, type ControllerContext, countOf, createSeen, deletePod, revisionHash, writeStatus } from "./context.ts";
import { fits } from "./node-fit.ts";
import { ownedQueue } from "./owned-queue.ts";
import { podFromTemplate } from "./pod-from-template.ts";

const revisionLabel = "controller-revision-hash";

export function runDaemonSets(context: ControllerContext): Controller {
  const { collections } = context;
  return ownedQueue(context, {
    name: "daemonset",
    objects: collections.daemonSets,
    owned: [collections.pods],
    others: [collections.nodes],
    reconcile: (object) => reconcile(context, object),
  });
}

async function reconcile(context: ControllerContext, object: DaemonSet): Promise<void> {
  const { collections, suffix } = context;
  const hash = revisionHash(object.spec.template);
  const nodes = [...collections.nodes.list()].filter((node) => fits(node, object.spec.template.spec)).map(({ metadata }) => metadata.name);
  for (const pod of ownPods(context, object)) {
    if (isFinished(pod) || !nodes.includes(pod.spec.nodeName ?? "")) await deletePod(context, pod);
  }
  const byNode = new Map(
    nodes.map((node) => [node, ownPods(context, object).filter((pod) => pod.spec.nodeName === node && pod.metadata.deletionTimestamp === undefined)]),
  );
  const { create, remove } = daemonStep(byNode, hash, limitsOf(object, nodes.length));
  // A node whose old pod is still ending waits: host ports and host paths are exclusive.
  const busy = new Set(ownPods(context, object).flatMap((pod) => (pod.metadata.deletionTimestamp === undefined ? [] : [pod.spec.nodeName])));
  for (const pod of remove) await deletePod(context, pod);
  for (const node of create.filter((name) => !busy.has(name))) {
    const pod = podFromTemplate({
      template: object.spec.template,
      owner: object,
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      name: `${object.metadata.name}-${suffix()}`,
      labels: { [revisionLabel]: hash },
      nodeName: node,
    });
    await createSeen(context, pods, collections.pods, pod);
  }
  await report(context, object, nodes, hash);
}

export interface DaemonLimits {
  readonly onDelete: boolean;
  readonly maxSurge: number;
  readonly maxUnavailable: number;
}

/** What to do now, from the living pods of each node. Pure. */
export function daemonStep(byNode: ReadonlyMap<string, readonly Pod[]>, hash: string, limits: DaemonLimits): { create: string[]; remove: Pod[] } {
  const isNew = (pod: Pod): boolean => pod.metadata.labels?.[revisionLabel] === hash;
  const create: string[] = [];
  const remove: Pod[] = [];
  let unavailable = [...byNode.values()].filter((own) => !own.some(isReady)).length;
  let surging = [...byNode.values()].filter((own) => own.length > 1).length;
  for (const [node, own] of byNode) {
    const fresh = own.filter(isNew);
    const stale = own.filter((pod) => !isNew(pod));
    if (own.length === 0) create.push(node);
    else if (fresh.length > 0 && stale.length > 0) {
      if (fresh.some(isReady) || !stale.some(isReady)) remove.push(...stale);
    } else if (stale.length > 0 && !limits.onDelete) {
      if (!stale.some(isReady)) remove.push(...stale);
      else if (limits.maxSurge > 0) {
        if (surging < limits.maxSurge) {
          create.push(node);
          surging += 1;
        }
      } else if (unavailable < limits.maxUnavailable) {
        remove.push(...stale);
        unavailable += 1;
      }
    }
    if (fresh.length > 1) remove.push(...fresh.slice(1));
  }
  return { create, remove };
}

function limitsOf({ spec }: DaemonSet, nodes: number): DaemonLimits {
  const { type, rollingUpdate = {} } = spec.updateStrategy ?? {};
  const maxSurge = countOf(rollingUpdate.maxSurge, nodes, 0, "up");
  const maxUnavailable = countOf(rollingUpdate.maxUnavailable, nodes, 1, "up");
  return { onDelete: type === "OnDelete", maxSurge, maxUnavailable: maxSurge === 0 ? Math.max(1, maxUnavailable) : maxUnavailable };
}

async function report(context: ControllerContext, object: DaemonSet, nodes: readonly string[], hash: string): Promise<void> {
  const own = ownPods(context, object).filter((pod) => pod.metadata.deletionTimestamp === undefined);
  const on = (accept: (pod: Pod) => boolean): number => nodes.filter((node) => own.some((pod) => pod.spec.nodeName === node && accept(pod))).length;
  const ready = on(isReady);
  await writeStatus(context, daemonSets, object, {
    observedGeneration: object.metadata.generation ?? 1,
    desiredNumberScheduled: nodes.length,
    currentNumberScheduled: on(() => true),
    updatedNumberScheduled: on((pod) => pod.metadata.labels?.[revisionLabel] === hash),
    numberReady: ready,
    numberAvailable: ready,
    numberUnavailable: nodes.length - ready,
    numberMisscheduled: 0,
  });
}

function ownPods({ collections }: ControllerContext, object: DaemonSet): Pod[] {
  return [...collections.pods.list()].filter((pod) => controllerOf(pod) === object.metadata.uid);
}
