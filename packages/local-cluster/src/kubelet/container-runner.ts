/**
 * One container of a pod over all its runs: waiting → running → terminated, and again as the restart policy says, with a growing pause
 * between restarts. Probes live as long as a run. Everything that looks at it reads `status()`.
 */
import { type Clock, MeshError, messageOf } from "@fairway/runtime";
import type { ContainerLog } from "../container/log-file.ts";
import { type ContainerProcess, handlesTermination, type ProcessExit } from "../container/process.ts";
import type { Container, ContainerState, ContainerStatus, LifecycleHandler } from "../resources.ts";
import { type ProbeResult, probeLoop } from "./probe-loop.ts";

export interface ContainerRun {
  readonly id: string;
  readonly process: ContainerProcess;
  readonly log: ContainerLog;
}

export interface ContainerEnvironment {
  readonly clock: Clock;
  /** Starts a run. Throws LOCAL_CLUSTER_CONTAINER_CONFIG or LOCAL_CLUSTER_IMAGE_NOT_FOUND for what waiting may cure. */
  readonly start: (container: Container, restart: number) => Promise<ContainerRun>;
  readonly probe: (
    container: Container,
    kind: "livenessProbe" | "readinessProbe" | "startupProbe",
    timeoutMs: number,
    signal: AbortSignal,
  ) => Promise<ProbeResult>;
  readonly hook: (container: Container, hook: LifecycleHandler, timeoutMs: number, signal: AbortSignal) => Promise<ProbeResult>;
  readonly event: (type: "Normal" | "Warning", reason: string, message: string) => void;
  readonly changed: () => void;
}

/** Restarts wait this long at first and at most; a real cluster goes from 10 s to 5 min, too long for a desk. */
const firstBackoffMs = 500;
const maxBackoffMs = 10_000;
/** A run of this length forgives the ones before it. */
const forgivenAfterMs = 30_000;
/** How long a missing object or image is waited for before it is looked for again. */
const configRetryMs = 500;

export class ContainerRunner {
  readonly spec: Container;
  readonly #environment: ContainerEnvironment;
  readonly #restart: "Always" | "OnFailure" | "Never";
  readonly #stopping = new AbortController();
  #state: ContainerState = { waiting: { reason: "PodInitializing" } };
  #lastState: ContainerState = {};
  #restarts = 0;
  #ready = false;
  #started = false;
  #run: ContainerRun | undefined;
  #previousRun: ContainerRun | undefined;
  #waiters: (() => void)[] = [];

  constructor(spec: Container, restart: "Always" | "OnFailure" | "Never", environment: ContainerEnvironment) {
    this.spec = spec;
    this.#restart = restart;
    this.#environment = environment;
  }

  get running(): ContainerRun | undefined {
    return this.#state.running === undefined ? undefined : this.#run;
  }

  /** The latest run, and the one before it, for their logs. */
  get runs(): { current: ContainerRun | undefined; previous: ContainerRun | undefined } {
    return { current: this.#run, previous: this.#previousRun };
  }

  get started(): boolean {
    return this.#started;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get exitCode(): number | undefined {
    return this.#state.terminated?.exitCode;
  }

  status(): ContainerStatus {
    const { name, image = "" } = this.spec;
    const id = this.#run?.id;
    return {
      name,
      image,
      imageID: image,
      ...(id === undefined ? {} : { containerID: `fairway://${id}` }),
      ready: this.#ready,
      started: this.#started,
      restartCount: this.#restarts,
      state: this.#state,
      lastState: this.#lastState,
    };
  }

  /** Runs until the container is not to run again. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, this.#stopping.signal]);
    let backoffMs = 0;
    while (!stop.aborted) {
      const run = await this.#start(stop);
      if (run === undefined) return;
      const startedAt = this.#environment.clock.monotonic();
      const exit = await this.#supervise(run, stop);
      this.#terminated(exit);
      if (stop.aborted || this.#restart === "Never" || (this.#restart === "OnFailure" && exit.code === 0)) return;
      if (this.#environment.clock.monotonic() - startedAt > forgivenAfterMs) backoffMs = 0;
      await this.#backOff(backoffMs, stop);
      backoffMs = Math.min(maxBackoffMs, backoffMs === 0 ? firstBackoffMs : backoffMs * 2);
    }
  }

  /** Ends the container for good: preStop, SIGTERM, and SIGKILL when `graceMs` is over. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort(new MeshError("LOCAL_CLUSTER_POD_STOPPED", "the pod is being stopped"));
    const run = this.running;
    if (run !== undefined) await this.#kill(run, graceMs);
    this.#wake();
  }

  /** Resolves when the container has started in the sense of its startup probe, or will not run. */
  async untilStarted(signal: AbortSignal): Promise<void> {
    while (!this.#started && !signal.aborted && !this.#stopping.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  /** Tries until the program runs; undefined when stopped before. */
  async #start(signal: AbortSignal): Promise<ContainerRun | undefined> {
    let said = "";
    while (!signal.aborted) {
      try {
        const run = await this.#environment.start(this.spec, this.#restarts);
        this.#previousRun = this.#run;
        this.#run = run;
        this.#started = this.spec.startupProbe === undefined;
        this.#ready = this.#started && this.spec.readinessProbe === undefined;
        this.#set({ running: { startedAt: this.#now() } });
        this.#environment.event("Normal", "Started", `Started container ${this.spec.name}`);
        return run;
      } catch (thrown) {
        const { reason, message } = waitingReason(thrown, said !== "");
        if (said !== message) this.#environment.event("Warning", reason === "ImagePullBackOff" || reason === "ErrImagePull" ? "Failed" : reason, message);
        said = message;
        this.#set({ waiting: { reason, message } });
        await this.#environment.clock.sleep(configRetryMs, { signal }).catch(() => undefined);
      }
    }
    return undefined;
  }

  /** Probes and hooks around one run; resolves with its end. */
  async #supervise(run: ContainerRun, stop: AbortSignal): Promise<ProcessExit> {
    const over = new AbortController();
    const probes = this.#probe(run, AbortSignal.any([stop, over.signal]));
    const { postStart } = this.spec.lifecycle ?? {};
    const started =
      postStart === undefined
        ? Promise.resolve()
        : this.#environment.hook(this.spec, postStart, hookTimeoutMs, AbortSignal.any([stop, over.signal])).then(async ({ ok, message }) => {
            if (ok || stop.aborted) return;
            this.#environment.event("Warning", "FailedPostStartHook", message);
            await this.#kill(run, 0);
          });
    const exit = await run.process.exit.catch((thrown: unknown): ProcessExit => {
      this.#environment.event("Warning", "Failed", messageOf(thrown));
      return { code: 128, signal: undefined };
    });
    over.abort(new MeshError("LOCAL_CLUSTER_CONTAINER_ENDED", "the container ended"));
    await Promise.all([probes, started]);
    return exit;
  }

  async #probe(run: ContainerRun, signal: AbortSignal): Promise<void> {
    const { startupProbe, livenessProbe, readinessProbe } = this.spec;
    const fail = (kind: string, message: string): void => this.#environment.event("Warning", "Unhealthy", `${kind} probe failed: ${message}`);
    const kill = (kind: string): void => {
      this.#environment.event("Normal", "Killing", `Container ${this.spec.name} failed ${kind} probe, will be restarted`);
      // Joined by the run's own end: `exit` resolves once it is dead.
      void this.#kill(run, livenessGraceMs);
    };
    const { clock } = this.#environment;
    if (startupProbe !== undefined) {
      await probeLoop({
        probe: startupProbe,
        clock,
        signal,
        eager: true,
        attempt: (timeoutMs, limit) => this.#environment.probe(this.spec, "startupProbe", timeoutMs, limit),
        onFailure: (message) => fail("Startup", message),
        onVerdict: (verdict) => {
          if (verdict === "failure") kill("startup");
          else this.#setStarted();
          return "stop";
        },
      });
      if (!this.#started) return;
    } else this.#setStarted();
    const loops: Promise<void>[] = [];
    if (livenessProbe !== undefined) {
      loops.push(
        probeLoop({
          probe: livenessProbe,
          clock,
          signal,
          eager: false,
          attempt: (timeoutMs, limit) => this.#environment.probe(this.spec, "livenessProbe", timeoutMs, limit),
          onFailure: (message) => fail("Liveness", message),
          onVerdict: (verdict) => {
            if (verdict !== "failure") return "continue";
            kill("liveness");
            return "stop";
          },
        }),
      );
    }
    if (readinessProbe !== undefined) {
      loops.push(
        probeLoop({
          probe: readinessProbe,
          clock,
          signal,
          eager: true,
          attempt: (timeoutMs, limit) => this.#environment.probe(this.spec, "readinessProbe", timeoutMs, limit),
          onFailure: (message) => fail("Readiness", message),
          onVerdict: (verdict) => {
            this.#ready = verdict === "success";
            this.#environment.changed();
            return "continue";
          },
        }),
      );
    }
    await Promise.all(loops);
  }

  async #kill(run: ContainerRun, graceMs: number): Promise<void> {
    const { clock, hook } = this.#environment;
    const ended = new AbortController();
    const exit = run.process.exit.then(
      () => ended.abort(),
      () => ended.abort(),
    );
    const deadline = clock.monotonic() + graceMs;
    const { preStop } = this.spec.lifecycle ?? {};
    if (preStop !== undefined && graceMs > 0) {
      const { ok, message } = await hook(this.spec, preStop, graceMs, ended.signal);
      if (!ok && !ended.signal.aborted) this.#environment.event("Warning", "FailedPreStopHook", message);
    }
    const pid = run.process.programPid();
    const listens = pid === undefined || handlesTermination(pid);
    if (graceMs > 0 && listens) {
      run.process.signal("SIGTERM");
      await clock.sleep(Math.max(minTerminationMs, deadline - clock.monotonic()), { signal: ended.signal }).catch(() => undefined);
    }
    while (!ended.signal.aborted) {
      run.process.signal("SIGKILL");
      await clock.sleep(killRetryMs, { signal: ended.signal }).catch(() => undefined);
    }
    await exit;
  }

  async #backOff(delayMs: number, signal: AbortSignal): Promise<void> {
    this.#lastState = this.#state;
    this.#restarts += 1;
    if (delayMs === 0) return;
    const message = `back-off ${delayMs} ms restarting failed container=${this.spec.name}`;
    this.#environment.event("Warning", "BackOff", message);
    this.#set({ waiting: { reason: "CrashLoopBackOff", message } });
    await this.#environment.clock.sleep(delayMs, { signal }).catch(() => undefined);
  }

  #terminated({ code, signal }: ProcessExit): void {
    this.#ready = false;
    this.#started = false;
    this.#set({
      terminated: {
        exitCode: code,
        reason: code === 0 ? "Completed" : "Error",
        ...(signal === undefined ? {} : { message: `ended by ${signal}` }),
        ...(this.#state.running?.startedAt === undefined ? {} : { startedAt: this.#state.running.startedAt }),
        finishedAt: this.#now(),
        ...(this.#run === undefined ? {} : { containerID: `fairway://${this.#run.id}` }),
      },
    });
  }

  #setStarted(): void {
    this.#started = true;
    if (this.spec.readinessProbe === undefined) this.#ready = true;
    this.#environment.changed();
    this.#wake();
  }

  #set(state: ContainerState): void {
    this.#state = state;
    this.#environment.changed();
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #now(): string {
    return new Date(this.#environment.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

const hookTimeoutMs = 30_000;
/** What a container that failed its liveness probe gets to end by itself. */
const livenessGraceMs = 5_000;
/** Even a spent grace period leaves this to a program that is told to stop. */
const minTerminationMs = 2_000;
const killRetryMs = 1_000;

function waitingReason(thrown: unknown, again: boolean): { reason: string; message: string } {
  const { code, message } = MeshError.from(thrown, "LOCAL_CLUSTER_LAUNCH_FAILED");
  if (code === "LOCAL_CLUSTER_IMAGE_NOT_FOUND") return { reason: again ? "ImagePullBackOff" : "ErrImagePull", message };
  if (code === "LOCAL_CLUSTER_CONTAINER_CONFIG") return { reason: "CreateContainerConfigError", message };
  return { reason: "RunContainerError", message };
}
