/** What a pod's status says, from the states of its containers. Pure. */
import type { Condition, ContainerStatus, Pod, PodStatus } from "../resources.ts";

export interface PodState {
  readonly sandboxReady: boolean;
  readonly initialized: boolean;
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
  readonly startTime: string;
  readonly init: readonly ContainerStatus[];
  readonly main: readonly ContainerStatus[];
  /** The pod is over: no container will run again. */
  readonly finished: boolean;
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
}

/** The whole status; `now` stamps conditions that changed, others keep their time and foreign conditions stay. */
export function podStatus(pod: Pod, state: PodState, now: string): PodStatus {
  const previous = pod.status?.conditions ?? [];
  const condition = (type: string, status: boolean, reason?: string, message?: string): Condition => {
    const old = previous.find((candidate) => candidate.type === type);
    const text = status ? "True" : "False";
    const lastTransitionTime = old?.status === text && old.lastTransitionTime !== undefined ? old.lastTransitionTime : now;
    return { type, status: text, lastTransitionTime, ...(reason === undefined ? {} : { reason }), ...(message === undefined ? {} : { message }) };
  };
  const phase = podPhase(pod, state);
  const over = phase === "Succeeded" || phase === "Failed";
  const unready = state.main.filter(({ ready }) => !ready).map(({ name }) => name);
  const containersReady = !over && unready.length === 0 && state.initialized;
  const gates = (pod.spec.readinessGates ?? []).filter(({ conditionType }) => previous.find(({ type }) => type === conditionType)?.status !== "True");
  const why: [string, string] | [] = containersReady
    ? []
    : over
      ? ["PodCompleted", ""]
      : ["ContainersNotReady", `containers with unready status: [${unready.join(" ")}]`];
  const own: Condition[] = [
    condition("PodReadyToStartContainers", state.sandboxReady && !over),
    condition("Initialized", state.initialized || phase === "Succeeded", ...(state.initialized ? [] : ["ContainersNotInitialized"])),
    condition("Ready", containersReady && gates.length === 0, ...(containersReady && gates.length > 0 ? ["ReadinessGatesNotReady"] : why)),
    condition("ContainersReady", containersReady, ...why),
    condition("PodScheduled", true),
  ];
  const foreign = previous.filter(({ type }) => !own.some((mine) => mine.type === type));
  return {
    phase,
    ...(state.reason === undefined ? {} : { reason: state.reason }),
    ...(state.message === undefined ? {} : { message: state.message }),
    ...(state.hostIps[0] === undefined ? {} : { hostIP: state.hostIps[0], hostIPs: state.hostIps.map((ip) => ({ ip })) }),
    ...(state.podIps[0] === undefined ? {} : { podIP: state.podIps[0], podIPs: state.podIps.map((ip) => ({ ip })) }),
    startTime: state.startTime,
    qosClass: "BestEffort",
    conditions: [...own, ...foreign],
    ...(state.init.length === 0 ? {} : { initContainerStatuses: [...state.init] }),
    containerStatuses: [...state.main],
  };
}

/** Pending until every container has run, then Running; Succeeded or Failed once nothing will run again. */
function podPhase(pod: Pod, { initialized, init, main, finished }: PodState): "Pending" | "Running" | "Succeeded" | "Failed" {
  if (finished) {
    const failed = [...main, ...(initialized ? [] : init)].some(({ state }) => state.terminated === undefined || state.terminated.exitCode !== 0);
    return failed ? "Failed" : "Succeeded";
  }
  if (!initialized) return "Pending";
  const begun = main.every(({ state, restartCount }) => state.running !== undefined || state.terminated !== undefined || restartCount > 0);
  return begun && pod.spec.containers.length > 0 ? "Running" : "Pending";
}
