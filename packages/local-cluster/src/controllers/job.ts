/** Jobs: pods run until enough of them succeed, or too many fail. */
import { controllerOf, isFinished, type Job, jobs, type Pod, pods } from "../resources.ts";
import { type Controller, type ControllerContext, createSeen, deletePod, writeStatus } from "./context.ts";
import { ownedQueue } from "./owned-queue.ts";
import { podFromTemplate } from "./pod-from-template.ts";

const defaultBackoffLimit = 6;

export function runJobs(context: ControllerContext): Controller {
  const { collections } = context;
  return ownedQueue(context, { name: "job", objects: collections.jobs, owned: [collections.pods], reconcile: (object) => reconcile(context, object) });
}

async function reconcile(context: ControllerContext, object: Job): Promise<void> {
  if (object.status?.conditions?.some(({ type, status }) => (type === "Complete" || type === "Failed") && status === "True") === true) return;
  const { collections, suffix, clock } = context;
  const own = (): Pod[] => [...collections.pods.list()].filter((pod) => controllerOf(pod) === object.metadata.uid);
  const active = own().filter((pod) => !isFinished(pod) && pod.metadata.deletionTimestamp === undefined);
  const succeeded = own().filter((pod) => pod.status?.phase === "Succeeded").length;
  const failed = own().filter((pod) => pod.status?.phase === "Failed").length;
  const completions = object.spec.completions ?? 1;
  const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  const started = object.status?.startTime ?? now;
  const ended = (type: "Complete" | "Failed", reason: string): { type: string; status: string; reason: string; lastTransitionTime: string } => ({
    type,
    status: "True",
    reason,
    lastTransitionTime: now,
  });
  if (succeeded >= completions) {
    const conditions = [ended("Complete", "CompletionsReached")];
    await writeStatus(context, jobs, object, { active: 0, succeeded, failed, startTime: started, completionTime: now, conditions });
    return;
  }
  if (failed > (object.spec.backoffLimit ?? defaultBackoffLimit)) {
    for (const pod of active) await deletePod(context, pod);
    await writeStatus(context, jobs, object, { active: 0, succeeded, failed, startTime: started, conditions: [ended("Failed", "BackoffLimitExceeded")] });
    return;
  }
  const wanted = Math.min(object.spec.parallelism ?? 1, completions - succeeded);
  for (let count = active.length; count < wanted; count += 1) {
    const name = `${object.metadata.name}-${suffix()}`;
    const labels = { "batch.kubernetes.io/job-name": object.metadata.name, "job-name": object.metadata.name };
    await createSeen(
      context,
      pods,
      collections.pods,
      podFromTemplate({ template: object.spec.template, owner: object, apiVersion: "batch/v1", kind: "Job", name, labels }),
    );
  }
  await writeStatus(context, jobs, object, { active: Math.max(active.length, wanted), succeeded, failed, startTime: started });
}
