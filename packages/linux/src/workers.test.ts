import { Worker } from "node:worker_threads";
import test from "ava";
import { linuxPodNetwork } from "./pod-network-linux.ts";
import { skipped, testNamespace } from "./test-namespaces.ts";

/** What each worker runs: a listener of its own in the pod, and the worker's own namespace told afterwards. */
const program = `
  import { readlinkSync } from "node:fs";
  import { parentPort, workerData } from "node:worker_threads";
  const { linuxPodNetwork } = await import(workerData.base + "pod-network-linux.js");
  const { openNamespace } = await import(workerData.base + "namespace.js");
  const network = linuxPodNetwork(openNamespace(workerData.path));
  const onConnection = (socket) => {
    socket.resume();
    socket.end(String(workerData.id));
  };
  await network.listen({ host: "::", port: 15001, mark: 1337, reusePort: true, transparent: true, backlog: 128, onConnection });
  parentPort.postMessage(readlinkSync("/proc/thread-self/ns/net"));
`;

test.serial("threads share a port of a pod, and each stays in its own namespace", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const base = new URL(".", import.meta.url).href;
  const workers = [1, 2].map((id) => {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData: { id, base, path: `/run/netns/${pod.name}` } });
    t.teardown(async () => void (await worker.terminate()));
    return worker;
  });
  const homes = await Promise.all(workers.map((worker) => new Promise<string>((resolve, reject) => worker.once("message", resolve).once("error", reject))));
  t.deepEqual(new Set(homes).size, 1);
  t.false(homes[0]?.includes(String(pod.namespace.inode)));
  await using network = linuxPodNetwork(pod.namespace);
  const answers = new Set<string>();
  for (let count = 0; count < 200 && answers.size < 2; count += 1) {
    const { socket } = await network.dial({ host: "127.0.0.1", port: 15001, mark: 0, timeoutMs: 5_000, signal: new AbortController().signal });
    answers.add(
      await new Promise<string>((resolve) => {
        socket.once("data", (chunk: Buffer) => resolve(chunk.toString()));
        socket.resume();
      }),
    );
    socket.destroy();
  }
  t.deepEqual([...answers].toSorted(), ["1", "2"]);
});
