import type { NameAnswer } from "@fairway/model";
import { errorCode, ManualClock, systemClock } from "@fairway/runtime";
import test from "ava";
import { AskedNames, type NameRequest } from "./mesh-names.ts";
import { testProxyConfig } from "./test-mesh.ts";

const never = new AbortController().signal;
const foreign: NameAnswer = { kind: "foreign" };

function request(name: string): NameRequest {
  return { question: { name, family: "ipv4" }, clientNamespace: "default", network: testProxyConfig.network };
}

test("no more than 64 questions are on their way at a time, and each is answered", async (t) => {
  const asked: number[] = [];
  const names = new AskedNames({ ask: (id) => void asked.push(id), clock: systemClock });
  const answers = Array.from({ length: 100 }, (_, index) => names.resolve(request(`x${index}`), { signal: never }));
  t.is(asked.length, 64);
  for (let next = 0; next < asked.length; next += 1) names.settle(asked[next] ?? 0, foreign);
  t.is(asked.length, 100);
  t.deepEqual(
    await Promise.all(answers),
    Array.from({ length: 100 }, () => foreign),
  );
});

test("a question that nobody answers fails after five seconds, or with its pod", async (t) => {
  const clock = new ManualClock();
  const names = new AskedNames({ ask: () => {}, clock });
  const late = t.throwsAsync(names.resolve(request("x"), { signal: never }));
  const stopped = new AbortController();
  const ended = t.throwsAsync(names.resolve(request("y"), { signal: stopped.signal }));
  const reason = new Error("no longer served");
  stopped.abort(reason);
  t.is(await ended, reason);
  await clock.advance(5_000);
  t.is(errorCode(await late), "ZTUNNEL_MESH_UNANSWERED");
});

test("more questions than can wait are refused at once", async (t) => {
  const names = new AskedNames({ ask: () => {}, clock: new ManualClock() });
  const stop = new AbortController();
  const waiting = Array.from({ length: 64 + 4_096 }, () => names.resolve(request("x"), { signal: stop.signal }));
  t.is(errorCode(await t.throwsAsync(names.resolve(request("x"), { signal: never }))), "ZTUNNEL_MESH_UNANSWERED");
  stop.abort();
  t.is((await Promise.allSettled(waiting)).filter(({ status }) => status === "rejected").length, waiting.length);
});
