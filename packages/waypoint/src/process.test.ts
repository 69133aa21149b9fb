import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import test from "ava";

const main = fileURLToPath(new URL("./main.js", import.meta.url));

function run(args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { env }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }));
  });
}

test("the program says its version and its commands", async (t) => {
  t.regex((await run(["version"])).stdout, /^\d+\.\d+\.\d+\n$/);
  t.regex((await run(["help"])).stdout, /Usage: fairway-waypoint/);
  t.like(await run(["dance"]), { code: 2 });
});

test("an environment that is not enough ends it at once, naming what is missing", async (t) => {
  const { code, stdout } = await run(["proxy"], { LOG_FORMAT: "json", POD_NAMESPACE: "shop" });
  t.is(code, 1);
  const line = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  t.is(line.code, "RUNTIME_BAD_CONFIG");
  t.regex(line.error, /GATEWAY_NAME.*SERVICE_ACCOUNT/);
});
