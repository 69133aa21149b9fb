/** Both ends of a conversation with a thread, and every way in which it ends. */
import { MessageChannel } from "node:worker_threads";
import test, { type ExecutionContext } from "ava";
import { CallableThread, type SpawnedThread, startThread } from "./callable-thread.ts";
import { type Clock, ManualClock, systemClock } from "./clock.ts";
import { errorCode, MeshError } from "./error.ts";
import { silentLogger } from "./log.ts";
import { TaskGroup } from "./task-group.ts";
import { serveCalls, type ThreadCall } from "./thread-calls.ts";

interface Calls {
  readonly double: { readonly ask: number; readonly answer: number };
  readonly fail: { readonly ask: Error; readonly answer: undefined };
  readonly silence: { readonly ask: undefined; readonly answer: undefined };
  readonly flush: { readonly ask: undefined; readonly answer: undefined };
}
type News = { readonly kind: "say"; readonly text: string };
type Speech = { readonly kind: "said"; readonly text: string };

function hold(spawned: SpawnedThread, clock: Clock = systemClock): { thread: CallableThread<Calls, News, Speech>; heard: string[] } {
  const heard: string[] = [];
  const thread = new CallableThread<Calls, News, Speech>({
    spawned,
    clock,
    onSpeech: ({ text }) => heard.push(text),
    lost: (cause) => new MeshError("SAMPLE_LOST", "it died", { cause }),
    stopped: () => new MeshError("SAMPLE_STOPPED", "it was told to end"),
  });
  return { thread, heard };
}

/** The other end in this thread: the same messages, structured clone included. */
function here(t: ExecutionContext): SpawnedThread & { readonly ended: () => boolean } {
  const { port1, port2 } = new MessageChannel();
  const tasks = new TaskGroup(silentLogger);
  t.teardown(() => tasks[Symbol.asyncDispose]());
  let ended = false;
  const say = (speech: Speech): void => port2.postMessage(speech);
  serveCalls<Calls, News>(
    port2,
    {
      tasks,
      carryOut: async (call: ThreadCall<Calls>) => {
        switch (call.name) {
          case "double":
            return call.ask * 2;
          case "fail":
            throw call.ask.message === "coded" ? new MeshError("SAMPLE_CODED", "coded") : call.ask;
          case "silence":
            return new Promise((resolve) => tasks.signal.addEventListener("abort", resolve, { once: true }));
          case "flush":
            return say({ kind: "said", text: "last words" });
        }
      },
      hear: ({ text }) => say({ kind: "said", text }),
    },
    "SAMPLE_FAILED",
  );
  return {
    port: port1,
    died: new Promise(() => {}),
    end: async () => {
      ended = true;
      port2.close();
    },
    ended: () => ended,
  };
}

/** A real thread that says that it is ready and then does `program`. */
function scripted(program: string, resourceLimits: { maxOldGenerationSizeMb?: number } = {}): SpawnedThread {
  const script = `import { workerData } from "node:worker_threads"; const { port } = workerData;
    port.on("message", () => {}); port.postMessage({ kind: "ready" }); ${program}`;
  return startThread(new URL(`data:text/javascript,${encodeURIComponent(script)}`), undefined, { name: "sample", resourceLimits });
}

test("calls are answered each by its own answer or failure, in whatever order they end", async (t) => {
  const { thread, heard } = hold(here(t));
  await thread.ready;
  const never = thread.call("silence", undefined).catch(errorCode);
  t.deepEqual(await Promise.all([thread.call("double", 1), thread.call("double", 2)]), [2, 4]);
  t.is(errorCode(await t.throwsAsync(thread.call("fail", new Error("coded")))), "SAMPLE_CODED");
  const failure = await t.throwsAsync(thread.call("fail", new Error("plain")), { message: "plain" });
  t.is(errorCode(failure), "SAMPLE_FAILED");
  thread.tell({ kind: "say", text: "news" });
  await thread.call("double", 3);
  t.deepEqual(heard, ["news"]);
  await thread[Symbol.asyncDispose]();
  t.is(await never, "SAMPLE_STOPPED");
});

test("a thread says its last words before it ends, and cannot be called after that", async (t) => {
  const spawned = here(t);
  const { thread, heard } = hold(spawned);
  await thread[Symbol.asyncDispose]();
  t.deepEqual(heard, ["last words"]);
  t.true(spawned.ended());
  t.is(errorCode(await t.throwsAsync(thread.call("double", 1))), "SAMPLE_STOPPED");
});

test("a thread that has no last words is ended after a second all the same", async (t) => {
  const { port1, port2 } = new MessageChannel();
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const clock = new ManualClock();
  const { thread } = hold({ port: port1, died: new Promise(() => {}), end: async () => resolve(port2.close()) }, clock);
  const disposed = thread[Symbol.asyncDispose]();
  await clock.advance(999);
  t.is(await Promise.race([ended.then(() => "ended"), new Promise((done) => setImmediate(done, "waits"))]), "waits");
  await clock.advance(1);
  await ended;
  await disposed;
});

test("an answer that cannot be said is a failure of the call, not of the thread", async (t) => {
  const { port1, port2 } = new MessageChannel();
  const tasks = new TaskGroup(silentLogger);
  t.teardown(() => tasks[Symbol.asyncDispose]());
  serveCalls<Calls, News>(port2, { tasks, carryOut: async ({ name }) => (name === "double" ? () => {} : undefined), hear: () => {} }, "SAMPLE_FAILED");
  const { thread } = hold({ port: port1, died: new Promise(() => {}), end: async () => port2.close() });
  t.is(errorCode(await t.throwsAsync(thread.call("double", 1))), "SAMPLE_FAILED");
  t.is(await thread.call("silence", undefined), undefined);
  await thread[Symbol.asyncDispose]();
});

for (const [how, program] of [
  ["throws", `setImmediate(() => { throw new Error("a bug") })`],
  ["throws what is no error", `setImmediate(() => { throw "a bug" })`],
  ["rejects", `setImmediate(() => void Promise.reject(new Error("a bug")))`],
  ["exits", "setImmediate(() => process.exit(0))"],
] as const) {
  test(`a thread that ${how} is dead with a code, and so is whoever waits for it`, async (t) => {
    const { thread } = hold(scripted(program));
    const waiting = thread.call("silence", undefined).catch(errorCode);
    const dead = await t.throwsAsync(thread.alive);
    t.is(errorCode(dead), "SAMPLE_LOST");
    t.regex(String(dead?.cause), how === "exits" ? /exited with code 0/ : /a bug/);
    t.is(await waiting, "SAMPLE_LOST");
    t.is(errorCode(await t.throwsAsync(thread.call("silence", undefined))), "SAMPLE_LOST");
    await thread[Symbol.asyncDispose]();
  });
}

test("a thread that runs out of memory is dead, and the process is not", async (t) => {
  const { thread } = hold(scripted("const kept = []; for (;;) kept.push(new Array(1e5).fill({}));", { maxOldGenerationSizeMb: 16 }));
  const dead = await t.throwsAsync(thread.alive);
  t.is(errorCode(dead), "SAMPLE_LOST");
  t.is(errorCode(dead?.cause), "ERR_WORKER_OUT_OF_MEMORY");
  await thread[Symbol.asyncDispose]();
});

test("a thread that is told to end is not dead to anybody", async (t) => {
  const spawned = scripted("");
  const { thread } = hold(spawned);
  await thread.ready;
  let died = false;
  void spawned.died.then(() => {
    died = true;
  });
  await spawned.end();
  await new Promise((resolve) => setImmediate(resolve));
  t.false(died);
  spawned.port.close();
});
