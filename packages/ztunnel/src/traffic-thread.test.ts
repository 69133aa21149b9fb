/** Real threads: what they say, and how they end. */
import { Worker } from "node:worker_threads";
import { errorCode, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { testProxyConfig } from "./test-mesh.ts";
import type { ThreadSettings } from "./thread-protocol.ts";
import { type SpawnedThread, type SpawnThread, spawnThread, type ThreadSpeech, TrafficThread } from "./traffic-thread.ts";

const settings: ThreadSettings = {
  thread: 1,
  config: testProxyConfig,
  tls: { allowTls12: false, postQuantumOnly: false },
  revocations: undefined,
  logFormat: "plain",
  logFilter: "info",
};

function open(t: ExecutionContext, spawned: SpawnedThread): { thread: TrafficThread; speech: ThreadSpeech[] } {
  const speech: ThreadSpeech[] = [];
  const thread = new TrafficThread({ spawned, number: 1, clock: systemClock, onSpeech: (said) => speech.push(said) });
  t.teardown(() => thread[Symbol.asyncDispose]());
  return { thread, speech };
}

/** A thread that says it is ready and then does `program`. */
function scripted(program: string): SpawnThread {
  return () => {
    const { port1, port2 } = new MessageChannel();
    const script = `const { workerData: { port } } = require("node:worker_threads"); port.on("message", () => {}); port.postMessage({ kind: "ready" }); ${program}`;
    const worker = new Worker(script, { eval: true, workerData: { port: port2 }, transferList: [port2] });
    const { promise: died, resolve } = Promise.withResolvers<Error>();
    worker.once("error", resolve);
    worker.once("exit", (code) => resolve(new Error(`exit ${code}`)));
    return { port: port1, died, end: async () => void (await worker.terminate()) };
  };
}

test("a thread answers, and ends when told without a word of death", async (t) => {
  const { thread } = open(t, spawnThread(settings));
  await thread.ready;
  t.deepEqual(await thread.call("sizes", undefined), new Map());
  t.deepEqual(await thread.call("connections", { proxy: 7 }), { inbound: [], outbound: [] });
  t.true((await thread.call("metrics", undefined)).length > 5);
  const profile = JSON.parse(await thread.call("profile", { kind: "cpu", seconds: 1, frequency: 100 }));
  t.true("nodes" in profile);
  t.is(errorCode(await t.throwsAsync(thread.call("profile", { kind: "heap" }))), "RUNTIME_PROFILE_OFF");
  t.is(await thread.call("profile", { kind: "heap-switch", on: true }), "");
  t.true("head" in JSON.parse(await thread.call("profile", { kind: "heap" })));
  let died = false;
  thread.alive.catch(() => {
    died = true;
  });
  await thread[Symbol.asyncDispose]();
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.false(died);
  t.is(errorCode(await t.throwsAsync(thread.call("sizes", undefined))), "ZTUNNEL_POD_STOPPED");
});

test("an order that cannot be carried out is refused with its code", async (t) => {
  const { thread } = open(
    t,
    spawnThread({ ...settings, config: { ...testProxyConfig, ports: { ...testProxyConfig.ports, hbone: 1 }, listenHost: "203.0.113.7" } }),
  );
  await thread.ready;
  const order = {
    proxy: 1,
    uid: "a",
    pod: { namespace: "n", name: "a", serviceAccount: "a" },
    namespaceFd: undefined,
    kinds: ["hbone"] as const,
    overrides: {},
  };
  t.is(errorCode(await t.throwsAsync(thread.call("start", order))), "LINUX_LISTEN_FAILED");
  const elsewhere = { ...order, namespaceFd: 999_999 };
  t.is(errorCode(await t.throwsAsync(thread.call("start", elsewhere))), "LINUX_NAMESPACE_NOT_FOUND");
});

for (const [how, program] of [
  ["throws", `setImmediate(() => { throw new Error("a bug") })`],
  ["rejects", `setImmediate(() => void Promise.reject(new Error("a bug")))`],
  ["exits", `setImmediate(() => process.exit(0))`],
] as const) {
  test(`a thread that ${how} is dead with a code, and so is whoever waits for it`, async (t) => {
    const { thread } = open(t, scripted(program)(settings));
    const waiting = thread.call("sizes", undefined).catch(errorCode);
    t.is(errorCode(await t.throwsAsync(thread.alive)), "ZTUNNEL_THREAD_DIED");
    t.is(await waiting, "ZTUNNEL_THREAD_DIED");
    t.is(errorCode(await t.throwsAsync(thread.call("sizes", undefined))), "ZTUNNEL_THREAD_DIED");
  });
}

test("a thread that runs out of memory is dead, and the process is not", async (t) => {
  const script = `const { workerData: { port } } = require("node:worker_threads"); const kept = []; for (;;) kept.push(new Array(1e5).fill({}));`;
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(script, { eval: true, workerData: { port: port2 }, transferList: [port2], resourceLimits: { maxOldGenerationSizeMb: 16 } });
  const died = new Promise<Error>((resolve) => worker.once("error", (error) => resolve(error instanceof Error ? error : new Error(String(error)))));
  const { thread } = open(t, { port: port1, died, end: async () => void (await worker.terminate()) });
  const dead = await t.throwsAsync(thread.alive);
  t.is(errorCode(dead), "ZTUNNEL_THREAD_DIED");
  t.is(errorCode(dead?.cause), "ERR_WORKER_OUT_OF_MEMORY");
});
