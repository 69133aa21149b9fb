/** The main thread's hold on one thread that carries traffic. */
import { CallableThread, type Clock, type SpawnedThread, startThread } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";
import type { ThreadCalls, ThreadNews, ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";

/**
 * A thread's buffers are freed when its young objects are collected. By default a thread has 48 MB for these, far more than traffic needs: the
 * memory stays with it, and under bulk traffic full collections come first (docs/performance.md).
 */
const youngGenerationMb = 8;

/** Starts a thread that runs `traffic-worker.ts`. */
export type SpawnThread = (settings: ThreadSettings) => SpawnedThread;

export const spawnThread: SpawnThread = (settings) =>
  startThread(new URL("./thread-main.js", import.meta.url), settings, {
    name: `traffic ${settings.thread}`,
    // Descriptors are opened and closed by system calls of our own, too.
    trackUnmanagedFds: false,
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb },
  });

export type TrafficThread = CallableThread<ThreadCalls, ThreadNews, ThreadSpeech>;

/** Its death is ZTUNNEL_THREAD_DIED to whoever waits for it. */
export function holdThread(given: { spawned: SpawnedThread; number: number; clock: Clock; onSpeech: (speech: ThreadSpeech) => void }): TrafficThread {
  const { number, ...rest } = given;
  return new CallableThread({
    ...rest,
    lost: (cause) =>
      ztunnelError("ZTUNNEL_THREAD_DIED", `thread ${number}, which carries traffic, died: its connections are gone, and so must this process be`, cause),
    stopped: () => ztunnelError("ZTUNNEL_POD_STOPPED", "this process is shutting down"),
  });
}
