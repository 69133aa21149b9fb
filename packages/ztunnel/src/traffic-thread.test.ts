/** Real threads: what they say, and how they end. */
import { errorCode, type SpawnedThread, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { testProxyConfig } from "./test-mesh.ts";
import type { ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";
import { holdThread, spawnThread, type TrafficThread } from "./traffic-thread.ts";

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
  const thread = holdThread({ spawned, number: 1, clock: systemClock, onSpeech: (said) => speech.push(said) });
  t.teardown(() => thread[Symbol.asyncDispose]());
  return { thread, speech };
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

test("a thread that died is ZTUNNEL_THREAD_DIED to whoever waits for it, with what killed it as the cause", async (t) => {
  const { port1, port2 } = new MessageChannel();
  const { thread } = open(t, { port: port1, died: Promise.resolve(new Error("a bug")), end: async () => port2.close() });
  const waiting = thread.call("sizes", undefined).catch(errorCode);
  t.is((await t.throwsAsync(thread.alive, { code: "ZTUNNEL_THREAD_DIED" }))?.cause instanceof Error, true);
  t.is(await waiting, "ZTUNNEL_THREAD_DIED");
});
