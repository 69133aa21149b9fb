/** Traffic threads for tests: the same conversation, structured clone included, with the other end in this thread. */
import type { NetworkNamespace, PodNetwork } from "@fairway/linux";
import { systemClock } from "@fairway/runtime";
import type { SpawnThread } from "./traffic-thread.ts";
import { runTrafficWorker } from "./traffic-worker.ts";

export function threadHere(podNetwork: (namespace: NetworkNamespace | undefined) => PodNetwork): SpawnThread {
  return (settings) => {
    const { port1, port2 } = new MessageChannel();
    runTrafficWorker({ port: port2, settings: structuredClone(settings), clock: systemClock, podNetwork });
    return { port: port1, died: new Promise(() => {}), end: async () => port2.close() };
  };
}
