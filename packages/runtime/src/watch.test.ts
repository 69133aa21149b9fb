import test from "ava";
import { Watched } from "./watch.ts";

test("a listener sees each change once and nothing after it was disposed", (t) => {
  const watch = new Watched(1);
  const seen: number[] = [];
  const subscription = watch.subscribe((value) => seen.push(value));
  watch.set(2);
  watch.set(2);
  subscription[Symbol.dispose]();
  watch.set(3);
  t.deepEqual(seen, [2]);
  t.is(watch.current, 3);
});

test("a listener that throws does not keep the others from the value", (t) => {
  const watch = new Watched(1);
  const seen: number[] = [];
  process.once("warning", () => undefined);
  watch.subscribe(() => {
    throw new Error("listener failed");
  });
  watch.subscribe((value) => seen.push(value));
  watch.set(2);
  t.deepEqual(seen, [2]);
});

test("until resolves with the first accepted value and rejects with the signal's reason", async (t) => {
  const watch = new Watched(1);
  const accepted = watch.until((value) => value > 2, { signal: new AbortController().signal });
  watch.set(2);
  watch.set(3);
  t.is(await accepted, 3);
  const controller = new AbortController();
  const reason = new Error("given up");
  const never = watch.until((value) => value > 9, { signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(never), reason);
});
