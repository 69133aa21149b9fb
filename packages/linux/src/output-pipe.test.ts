import { spawn } from "node:child_process";
import test from "ava";
import { outputPipe } from "./output-pipe.ts";

test("a program may open its /dev/stdout again, and the output ends with it", async (t) => {
  const { output, writeEnd, release } = outputPipe();
  const child = spawn("sh", ["-c", "echo first; echo second > /dev/stdout"], { stdio: ["ignore", writeEnd, "ignore"] });
  release();
  const chunks: Buffer[] = [];
  for await (const chunk of output) chunks.push(Buffer.from(chunk));
  t.is(Buffer.concat(chunks).toString(), "first\nsecond\n");
  t.is(await new Promise((resolve) => (child.exitCode === null ? child.once("exit", resolve) : resolve(child.exitCode))), 0);
});
