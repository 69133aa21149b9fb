import { errorCode } from "@fairway/runtime";
import test from "ava";
import { runIn } from "./command.ts";
import { applyNft } from "./nft.ts";
import { skipped, testNamespace } from "./test-namespaces.ts";

const signal = new AbortController().signal;

test.serial("a program runs inside the namespace, with its input", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const inside = await runIn(pod.namespace, ["readlink", "/proc/self/ns/net"], { signal });
  const outside = await runIn(undefined, ["readlink", "/proc/self/ns/net"], { signal });
  t.is(inside.stdout.trim(), `net:[${pod.namespace.inode}]`);
  t.not(inside.stdout, outside.stdout);
  t.is((await runIn(pod.namespace, ["cat"], { signal, input: "hello" })).stdout, "hello");
});

test.serial("rules land in the namespace, and only there", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const table = `fwtest${process.pid}`;
  await applyNft(pod.namespace, `table inet ${table} {\n chain c { }\n}\n`, { signal });
  t.true((await runIn(pod.namespace, ["nft", "list", "tables"], { signal })).stdout.includes(table));
  t.false((await runIn(undefined, ["nft", "list", "tables"], { signal })).stdout.includes(table));
});

test.serial("a script with an error changes nothing and the error has nft's words", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const error = await t.throwsAsync(applyNft(pod.namespace, "add table inet good\nadd rule inet absent entry accept\n", { signal }));
  t.is(errorCode(error), "LINUX_NFT_FAILED");
  t.true(error.message.includes("No such file or directory"), error.message);
  t.is((await runIn(pod.namespace, ["nft", "list", "tables"], { signal })).stdout, "");
});

test("a program that fails, one that is missing and one that hangs are told apart", async (t) => {
  const failed = await t.throwsAsync(runIn(undefined, ["sh", "-c", "echo because >&2; exit 3"], { signal }));
  t.is(errorCode(failed), "LINUX_COMMAND_FAILED");
  t.true(failed.message.includes("because"));
  t.is(errorCode(await t.throwsAsync(runIn(undefined, ["no-such-program-here"], { signal }))), "LINUX_COMMAND_MISSING");
  t.is(errorCode(await t.throwsAsync(runIn(undefined, ["sleep", "60"], { signal, timeoutMs: 50 }))), "LINUX_COMMAND_TIMEOUT");
});

test("an aborted run ends its program and rejects with the reason", async (t) => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const running = runIn(undefined, ["sleep", "60"], { signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(running), reason);
});

test("a program that does not read its input is judged by its exit code", async (t) => {
  await t.notThrowsAsync(runIn(undefined, ["true"], { signal, input: "x".repeat(1_000_000) }));
});
