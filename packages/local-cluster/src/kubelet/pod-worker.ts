/**
 * One pod on one node, from binding to removal: volumes, network, init containers, containers, and the way back. It reports by status
 * patches, merged when they come quickly; the last one before the pod leaves the API is waited for.
 */
import { type KubeClient, objectKey } from "@fairway/kube";
import { errorCode, MeshError, messageOf, TaskGroup } from "@fairway/runtime";
import { type Container, type LifecycleHandler, type Pod, type PodStatus, pods } from "../resources.ts";
import { type ContainerEnvironment, ContainerRunner } from "./container-runner.ts";
import { podDirectory, startContainer } from "./container-start.ts";
import type { EventRecorder } from "./events.ts";
import { hostIps, type NodeContext } from "./node.ts";
import { type PodState, podStatus } from "./pod-status.ts";
import { attemptProbe } from "./probe-action.ts";
import type { ProbeResult } from "./probe-loop.ts";
import { type FileSources, tokenWishes } from "./projected-files.ts";
import { createSandbox, type Sandbox } from "./sandbox.ts";
import { PodTokens } from "./tokens.ts";
import { PodVolumes } from "./volumes.ts";

const statusDelayMs = 30;
/** Pauses between attempts of what waits for others: a missing ConfigMap, a CNI plugin whose agent is not up yet. */
const retryMs = { first: 200, max: 2_000 };
/** Volumes are compared with their objects, and tokens with their age, this often. */
const volumeRefreshMs = 5_000;
const defaultGraceSeconds = 30;
/** For a pod that was removed from the API without grace. */
const forcedGraceMs = 1_000;
const maxOutput = 4_096;

export class PodWorker {
  #pod: Pod;
  readonly #node: NodeContext;
  readonly #events: EventRecorder;
  readonly #client: KubeClient;
  readonly #volumes: PodVolumes;
  readonly #tokens: PodTokens;
  readonly #tasks: TaskGroup;
  readonly #stopping = new AbortController();
  readonly #startTime: string;
  readonly #init: { runner: ContainerRunner; sidecar: boolean }[];
  readonly #main: ContainerRunner[];
  #sandbox: Sandbox | undefined;
  #ips: readonly string[] = [];
  #initialized = false;
  #finished = false;
  #lastStatus = "";
  #statusTimer: Disposable | undefined;
  #publishing: Promise<void> = Promise.resolve();
  #termination: Promise<void> | undefined;
  #removed = false;

  constructor(node: NodeContext, pod: Pod, events: EventRecorder) {
    this.#node = node;
    this.#pod = pod;
    this.#events = events;
    this.#client = node.client;
    this.#volumes = new PodVolumes(podDirectory(node, pod), node.paths, pod);
    this.#tokens = new PodTokens(node.client, pod, node.clock);
    this.#tasks = new TaskGroup(node.log);
    this.#startTime = new Date(node.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    const policy = pod.spec.restartPolicy === "Never" || pod.spec.restartPolicy === "OnFailure" ? pod.spec.restartPolicy : "Always";
    this.#init = (pod.spec.initContainers ?? []).map((container) => {
      const sidecar = container.restartPolicy === "Always";
      const runner = new ContainerRunner(container, sidecar ? "Always" : policy === "Never" ? "Never" : "OnFailure", this.#environment());
      return { runner, sidecar };
    });
    this.#main = pod.spec.containers.map((container) => new ContainerRunner(container, policy, this.#environment()));
  }

  get pod(): Pod {
    return this.#pod;
  }

  get sandbox(): Sandbox | undefined {
    return this.#sandbox;
  }

  /** A container by name; without a name, the first. Throws LOCAL_CLUSTER_NO_SUCH_CONTAINER. */
  container(name: string | undefined): ContainerRunner {
    const all = [...this.#main, ...this.#init.map(({ runner }) => runner)];
    const found = name === undefined ? all[0] : all.find(({ spec }) => spec.name === name);
    if (found === undefined) throw new MeshError("LOCAL_CLUSTER_NO_SUCH_CONTAINER", `pod ${objectKey(this.#pod)} has no container "${name ?? ""}"`);
    return found;
  }

  start(): void {
    this.#tasks.run(`pod ${objectKey(this.#pod)}`, () => this.#run());
    this.#tasks.run(`volumes of pod ${objectKey(this.#pod)}`, () => this.#keepVolumes());
  }

  /** A newer version of the object. */
  update(pod: Pod): void {
    this.#pod = pod;
  }

  /** Its object is leaving, or has left: ends everything. Resolves when nothing of the pod is on the machine; the same end for every caller. */
  terminate(options: { removed: boolean }): Promise<void> {
    if (options.removed) this.#removed = true;
    this.#termination ??= this.#terminate();
    return this.#termination;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    this.#changed();
    await this.#untilDone("FailedMount", () => this.#prepareVolumes());
    if (signal.aborted) return;
    this.#sandbox = await this.#untilDone("FailedCreatePodSandBox", () => createSandbox(this.#node, this.#pod, signal));
    if (signal.aborted || this.#sandbox === undefined) return;
    this.#ips = this.#sandbox.ips;
    this.#changed();
    if (!(await this.#runInit(signal))) return;
    this.#initialized = true;
    this.#changed();
    await Promise.all(this.#main.map((runner) => runner.run(signal)));
    if (signal.aborted) return;
    await Promise.all(this.#init.filter(({ sidecar }) => sidecar).map(({ runner }) => runner.stop(this.#graceMs())));
    await this.#finish();
  }

  /** Init containers one after the other; sidecars stay. False when the pod failed or was stopped. */
  async #runInit(signal: AbortSignal): Promise<boolean> {
    for (const { runner, sidecar } of this.#init) {
      if (sidecar) {
        this.#tasks.run(`sidecar ${runner.spec.name}`, () => runner.run(signal));
        await runner.untilStarted(signal);
      } else {
        await runner.run(signal);
        if (!signal.aborted && runner.exitCode !== 0) {
          await this.#finish();
          return false;
        }
      }
      if (signal.aborted) return false;
    }
    return true;
  }

  /** Every container is over and stays over: the network is taken down, the status and the logs stay. */
  async #finish(): Promise<void> {
    this.#finished = true;
    await this.#removeSandbox();
    this.#changed();
  }

  async #terminate(): Promise<void> {
    const graceMs = this.#graceMs();
    this.#stopping.abort(new MeshError("LOCAL_CLUSTER_POD_STOPPED", "the pod is being stopped"));
    if (!this.#finished) this.#event("Normal", "Killing", `Stopping ${this.#main.map(({ spec }) => `container ${spec.name}`).join(", ")}`);
    await Promise.all(this.#main.map((runner) => runner.stop(graceMs)));
    for (const { runner } of this.#init.toReversed()) await runner.stop(graceMs);
    await this.#tasks[Symbol.asyncDispose]();
    await this.#removeSandbox();
    this.#statusTimer?.[Symbol.dispose]();
    this.#finished = true;
    if (!this.#removed) await this.#publish();
    this.#volumes.remove();
    this.#node.cgroups.removePod(this.#pod.metadata.uid ?? "");
  }

  #graceMs(): number {
    if (this.#removed) return forcedGraceMs;
    const { metadata, spec } = this.#pod;
    const asked =
      "deletionGracePeriodSeconds" in metadata && typeof metadata.deletionGracePeriodSeconds === "number" ? metadata.deletionGracePeriodSeconds : undefined;
    return (asked ?? spec.terminationGracePeriodSeconds ?? defaultGraceSeconds) * 1000;
  }

  async #removeSandbox(): Promise<void> {
    const sandbox = this.#sandbox;
    this.#sandbox = undefined;
    if (sandbox === undefined) return;
    try {
      // Its own deadline: the pod's signal is already over here.
      for (const problem of await sandbox.remove(AbortSignal.timeout(sandboxRemovalMs))) this.#event("Warning", "FailedKillPod", problem);
    } catch (thrown) {
      this.#event("Warning", "FailedKillPod", messageOf(thrown));
    }
  }

  async #prepareVolumes(): Promise<void> {
    await this.#tokens.ensure((this.#pod.spec.volumes ?? []).flatMap(tokenWishes));
    this.#volumes.refresh(this.#fileSources());
  }

  /** While the pod runs its files follow their objects, and its tokens are renewed. */
  async #keepVolumes(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#node.clock.sleep(volumeRefreshMs, { signal }).catch(() => undefined);
      if (signal.aborted || this.#finished || this.#sandbox === undefined) continue;
      try {
        await this.#prepareVolumes();
      } catch (thrown) {
        this.#event("Warning", "FailedMount", messageOf(thrown));
      }
    }
  }

  /** Tries until it works or the pod is stopped, and says why it waits. */
  async #untilDone<T>(reason: string, attempt: () => Promise<T>): Promise<T | undefined> {
    const { signal } = this.#stopping;
    let pauseMs = retryMs.first;
    while (!signal.aborted) {
      try {
        return await attempt();
      } catch (thrown) {
        if (signal.aborted) return undefined;
        this.#event("Warning", reason, messageOf(thrown));
        await this.#node.clock.sleep(pauseMs, { signal }).catch(() => undefined);
        pauseMs = Math.min(retryMs.max, pauseMs * 2);
      }
    }
    return undefined;
  }

  #environment(): ContainerEnvironment {
    return {
      clock: this.#node.clock,
      start: (container, restart) => {
        if (this.#sandbox === undefined) return Promise.reject(new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", "the pod has no network yet"));
        return startContainer(this.#node, { pod: this.#pod, container, restart, sandbox: this.#sandbox, volumes: this.#volumes });
      },
      probe: (container, kind, timeoutMs, signal) => this.#attempt(container, container[kind] ?? {}, timeoutMs, signal),
      hook: (container, hook, timeoutMs, signal) => this.#hook(container, hook, timeoutMs, signal),
      event: (type, reason, message) => this.#event(type, reason, message),
      changed: () => this.#changed(),
    };
  }

  #attempt(container: Container, probe: NonNullable<Container["livenessProbe"]>, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult> {
    const { network } = this.#node;
    const target = {
      network,
      podIp: this.#ips[0] ?? "",
      container,
      exec: (argv: readonly string[], limitMs: number, limit: AbortSignal) => this.#exec(container, argv, limitMs, limit),
    };
    return attemptProbe(probe, target, timeoutMs, signal);
  }

  async #hook(container: Container, hook: LifecycleHandler, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult> {
    if (hook.sleep !== undefined) {
      await this.#node.clock.sleep(Math.min(timeoutMs, hook.sleep.seconds * 1000), { signal }).catch(() => undefined);
      return { ok: true, message: "" };
    }
    return await this.#attempt(container, hook, timeoutMs, signal);
  }

  async #exec(container: Container, argv: readonly string[], _limitMs: number, signal: AbortSignal): Promise<{ code: number; output: string }> {
    const run = this.container(container.name).running;
    if (run === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", "the container is not running");
    const child = run.process.exec(argv);
    child.stdin.end();
    let output = "";
    const collect = (chunk: Buffer): void => {
      if (output.length < maxOutput) output += chunk.toString("utf8");
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    signal.addEventListener("abort", child.kill, { once: true });
    if (signal.aborted) child.kill();
    try {
      const { code } = await child.exit;
      return { code, output };
    } finally {
      signal.removeEventListener("abort", child.kill);
    }
  }

  #fileSources(): FileSources {
    const namespace = this.#pod.metadata.namespace ?? "default";
    return {
      pod: this.#pod,
      podIps: this.#ips,
      hostIps: hostIps(this.#node),
      configMap: (name) => this.#node.configMaps.get(`${namespace}/${name}`),
      secret: (name) => this.#node.secrets.get(`${namespace}/${name}`),
      token: (wish) => this.#tokens.current(wish),
    };
  }

  #event(type: "Normal" | "Warning", reason: string, message: string): void {
    this.#events.record(this.#pod, "Pod", type, reason, message);
  }

  /** Several changes in one moment make one patch. */
  #changed(): void {
    this.#statusTimer ??= this.#node.clock.schedule(statusDelayMs, () => {
      this.#statusTimer = undefined;
      this.#tasks.run(`status of pod ${objectKey(this.#pod)}`, () => this.#publish());
    });
  }

  #publish(): Promise<void> {
    this.#publishing = this.#publishing.then(() => this.#patchStatus());
    return this.#publishing;
  }

  async #patchStatus(): Promise<void> {
    const { name, namespace } = this.#pod.metadata;
    // The cached object knows conditions that others wrote.
    const known = this.#node.pods.get(objectKey(this.#pod)) ?? this.#pod;
    const status = podStatus(known, this.#state(), new Date(this.#node.clock.now()).toISOString().replace(/\.\d+Z$/, "Z"));
    const text = JSON.stringify(status);
    if (text === this.#lastStatus || known.metadata.uid !== this.#pod.metadata.uid) return;
    try {
      await this.#client.mergePatch<Pod>(pods, name, namespace, { status: replaced(status) }, { subresource: "status" });
      this.#lastStatus = text;
    } catch (thrown) {
      if (errorCode(thrown) === "KUBE_NOT_FOUND") return;
      this.#node.log.warn("pod status was not accepted", { pod: objectKey(this.#pod), error: messageOf(thrown) });
      if (!this.#stopping.signal.aborted) {
        await this.#node.clock.sleep(retryMs.first, { signal: this.#stopping.signal }).catch(() => undefined);
        this.#changed();
      }
    }
  }

  #state(): PodState {
    return {
      sandboxReady: this.#sandbox !== undefined,
      initialized: this.#initialized,
      podIps: this.#ips,
      hostIps: hostIps(this.#node),
      startTime: this.#startTime,
      init: this.#init.map(({ runner }) => runner.status()),
      main: this.#main.map((runner) => runner.status()),
      finished: this.#finished,
    };
  }
}

const sandboxRemovalMs = 15_000;

/** A merge patch keeps what it does not name: a reason that no longer holds must be named to go. */
function replaced(status: PodStatus): Record<string, unknown> {
  return { reason: null, message: null, ...status };
}
