/** CPU and heap profiles of the calling thread, in the forms that Chrome's and Node's tools open (ztunnel contract 9.3). */
import { Session } from "node:inspector/promises";
import type { Clock } from "./clock.ts";
import { MeshError } from "./error.ts";

const microsecond = 1_000_000;

/** What can be asked of a thread's profiler. */
export type ProfileRequest =
  | { readonly kind: "cpu"; readonly seconds: number; readonly frequency: number }
  | { readonly kind: "heap" }
  | { readonly kind: "heap-switch"; readonly on: boolean };

/** One CPU profile at a time; heap sampling only while it is switched on. */
export class Profiler {
  readonly #clock: Clock;
  #busy = false;
  #heap: Session | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The profile as JSON text, "" for a switch. Throws RUNTIME_PROFILE_BUSY or RUNTIME_PROFILE_OFF. */
  async take(request: ProfileRequest, { signal }: { signal: AbortSignal }): Promise<string> {
    if (request.kind === "cpu") return this.#cpu(request, signal);
    if (request.kind === "heap") return this.#heapProfile();
    await this.#switchHeap(request.on);
    return "";
  }

  async #cpu({ seconds, frequency }: ProfileRequest & { kind: "cpu" }, signal: AbortSignal): Promise<string> {
    if (this.#busy) throw new MeshError("RUNTIME_PROFILE_BUSY", "a profile of this thread is being taken already");
    this.#busy = true;
    const session = new Session();
    try {
      session.connect();
      await session.post("Profiler.enable");
      await session.post("Profiler.setSamplingInterval", { interval: Math.round(microsecond / frequency) });
      await session.post("Profiler.start");
      await this.#clock.sleep(seconds * 1_000, { signal });
      const { profile } = await session.post("Profiler.stop");
      return JSON.stringify(profile);
    } finally {
      session.disconnect();
      this.#busy = false;
    }
  }

  async #heapProfile(): Promise<string> {
    if (this.#heap === undefined) throw new MeshError("RUNTIME_PROFILE_OFF", "heap profiling is off; activate it at /debug/pprof/heap/profiling?activate=true");
    const { profile } = await this.#heap.post("HeapProfiler.getSamplingProfile");
    return JSON.stringify(profile);
  }

  async #switchHeap(on: boolean): Promise<void> {
    if (on && this.#heap === undefined) {
      this.#heap = new Session();
      this.#heap.connect();
      await this.#heap.post("HeapProfiler.startSampling");
    } else if (!on && this.#heap !== undefined) {
      this.#heap.disconnect();
      this.#heap = undefined;
    }
  }
}
