/** What a thread that carries traffic runs; started by `traffic-thread.ts` with its settings and its end of the channel. */
import { type MessagePort, workerData } from "node:worker_threads";
import { releaseMemoryAtRest, systemClock } from "@fairway/runtime";
import { createCodecs } from "./codecs.ts";
import type { ThreadSettings } from "./thread-protocol.ts";
import { runTrafficWorker } from "./traffic-worker.ts";

/** Written by `spawnThread` of this package and by nobody else. */
const { port, settings } = workerData as { port: MessagePort; settings: ThreadSettings };
runTrafficWorker({ port, settings, clock: systemClock, codecs: createCodecs(systemClock) });
releaseMemoryAtRest({ clock: systemClock });
