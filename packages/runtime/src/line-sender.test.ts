import test from "ava";
import { LineSender } from "./line-sender.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("lines of one turn go together, in order, and the next only after those were written", async (t) => {
  const sent: string[] = [];
  const lines = new LineSender((text) => sent.push(text));
  lines.write("one\n");
  lines.write("two\n");
  await turn();
  t.deepEqual(sent, ["one\ntwo\n"]);
  lines.write("three\n");
  await turn();
  t.is(sent.length, 1);
  lines.written();
  t.deepEqual(sent, ["one\ntwo\n", "three\n"]);
});

test("what comes past the bound is counted, not kept, however much comes at once", async (t) => {
  const sent: string[] = [];
  const lines = new LineSender((text) => sent.push(text));
  const megabyte = "x".repeat(1024 * 1024);
  for (let index = 0; index < 9; index++) lines.write(megabyte);
  await turn();
  t.is(sent[0]?.length, 4 * megabyte.length);
  t.is(lines.written(), 5);
  t.is(lines.written(), 0);
});

test("at the end everything goes, whatever is under way", async (t) => {
  const sent: string[] = [];
  const lines = new LineSender((text) => sent.push(text));
  lines.write("one\n");
  await turn();
  lines.write("last\n");
  lines.flushNow();
  t.deepEqual(sent, ["one\n", "last\n"]);
});
