import test from "ava";
import type { ContainerState, ContainerStatus, Pod } from "../resources.ts";
import { type PodState, podStatus } from "./pod-status.ts";

const container = (name: string, state: ContainerState, extra: Partial<ContainerStatus> = {}): ContainerStatus => ({
  name,
  image: "x",
  imageID: "x",
  ready: state.running !== undefined,
  restartCount: 0,
  state,
  lastState: {},
  ...extra,
});
const pod = (status: Pod["status"] = {}): Pod => ({ metadata: { name: "p", namespace: "default" }, spec: { containers: [{ name: "main" }] }, status });
const state = (extra: Partial<PodState>): PodState => ({
  sandboxReady: true,
  initialized: true,
  podIps: ["10.244.1.2"],
  hostIps: ["172.30.0.11"],
  startTime: "t0",
  init: [],
  main: [container("main", { running: {} })],
  finished: false,
  ...extra,
});
const ready = (status: NonNullable<Pod["status"]>): string | undefined => status.conditions?.find(({ type }) => type === "Ready")?.status;

test("a pod is pending until its containers have run, and ready when all are", (t) => {
  const waiting = podStatus(pod(), state({ initialized: false, main: [container("main", { waiting: {} })] }), "t1");
  t.is(waiting.phase, "Pending");
  t.is(ready(waiting), "False");
  const running = podStatus(pod(), state({}), "t1");
  t.is(running.phase, "Running");
  t.is(ready(running), "True");
  t.deepEqual(running.podIPs, [{ ip: "10.244.1.2" }]);
});

test("a container in back-off leaves the pod running and not ready", (t) => {
  const crashed = podStatus(pod(), state({ main: [container("main", { waiting: { reason: "CrashLoopBackOff" } }, { restartCount: 2, ready: false })] }), "t1");
  t.is(crashed.phase, "Running");
  t.is(ready(crashed), "False");
  t.is(crashed.conditions?.find(({ type }) => type === "Ready")?.message, "containers with unready status: [main]");
});

test("a finished pod succeeded when every container did, and failed otherwise", (t) => {
  const over = (...codes: number[]): string | undefined =>
    podStatus(pod(), state({ finished: true, main: codes.map((exitCode, index) => container(`c${index}`, { terminated: { exitCode } })) }), "t1").phase;
  t.is(over(0, 0), "Succeeded");
  t.is(over(0, 7), "Failed");
  const initFailed = podStatus(
    pod(),
    state({ finished: true, initialized: false, init: [container("i", { terminated: { exitCode: 1 } })], main: [container("main", { waiting: {} })] }),
    "t1",
  );
  t.is(initFailed.phase, "Failed");
});

test("a condition keeps its time while it does not change, and conditions of others stay", (t) => {
  const before = podStatus(pod(), state({}), "t1");
  const foreign = { type: "example.com/gate", status: "False" };
  const after = podStatus(
    pod({ ...before, conditions: [...(before.conditions ?? []), foreign] }),
    state({ main: [container("main", { running: {} }, { ready: false })] }),
    "t2",
  );
  t.is(after.conditions?.find(({ type }) => type === "Initialized")?.lastTransitionTime, "t1");
  t.is(after.conditions?.find(({ type }) => type === "Ready")?.lastTransitionTime, "t2");
  t.deepEqual(after.conditions?.at(-1), foreign);
});

test("a readiness gate that is not true keeps the pod from being ready", (t) => {
  const gated: Pod = { ...pod(), spec: { containers: [{ name: "main" }], readinessGates: [{ conditionType: "g" }] } };
  t.is(ready(podStatus(gated, state({}), "t1")), "False");
  t.is(ready(podStatus({ ...gated, status: { conditions: [{ type: "g", status: "True" }] } }, state({}), "t1")), "True");
});
