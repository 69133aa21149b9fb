/** The main thread's hold on one thread that carries traffic. */
import { CallableThread, type Clock, type SpawnedThread, startThread } from "@fairway/runtime";
import { waypointError } from "./failure.ts";
import type { ThreadCalls, ThreadNews, ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";
import { trafficThreadMemory } from "./young-objects.ts";

/** Starts a thread that runs `traffic-worker.ts`. */
export type SpawnThread = (settings: ThreadSettings) => SpawnedThread;

export const spawnThread: SpawnThread = (settings) =>
  startThread(new URL("./thread-main.js", import.meta.url), settings, { name: `traffic ${settings.thread}`, resourceLimits: trafficThreadMemory });

export type TrafficThread = CallableThread<ThreadCalls, ThreadNews, ThreadSpeech>;

/** Its death is WAYPOINT_WORKER_LOST to whoever waits for it. */
export function holdThread(given: { spawned: SpawnedThread; number: number; clock: Clock; onSpeech: (speech: ThreadSpeech) => void }): TrafficThread {
  const { number, ...rest } = given;
  return new CallableThread({
    ...rest,
    lost: (cause) =>
      waypointError("WAYPOINT_WORKER_LOST", `thread ${number}, which carries traffic, died: its requests are gone, and so must this process be`, { cause }),
    stopped: () => waypointError("WAYPOINT_STOPPED", "this process is shutting down"),
  });
}
