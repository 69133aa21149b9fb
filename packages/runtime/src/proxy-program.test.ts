import { execFile } from "node:child_process";
import test from "ava";

const [program, errors] = ["./proxy-program.js", "./error.js"].map((file) => new URL(file, import.meta.url).href);

/** A proxy that says what it was given, in a process of its own. */
function run(args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  const source = `import { runProxyProgram } from "${program}"; import { MeshError } from "${errors}";
    await runProxyProgram({
      name: "sample", purpose: "run a sample", version: "1.2.3",
      prepare: () => console.log("prepared"),
      readConfig: ({ SIZE, LOG_FORMAT = "plain" }) => {
        if (SIZE === undefined) throw new MeshError("SAMPLE_BAD_CONFIG", "SIZE is required");
        return { size: SIZE, logFilter: "warn", logFormat: LOG_FORMAT };
      },
      run: async ({ config, log, logFilter, stop }) => {
        log.info("not said");
        console.log(config.size, String(logFilter), stop.aborted);
      },
    }, process);`;
  return new Promise((resolve) => {
    execFile(process.execPath, ["--input-type=module", "-e", source, "sample", ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

for (const args of [[], ["proxy"]]) {
  test(`"${args.join(" ")}" prepares, reads the environment and runs with what it says`, async (t) => {
    t.deepEqual(await run(args, { SIZE: "7" }), { code: 0, stdout: "prepared\n7 warn false\n", stderr: "" });
  });
}

test("an environment that is wrong ends it with a line in the format that it asks for", async (t) => {
  const { code, stdout } = await run(["proxy"], { LOG_FORMAT: "json" });
  t.is(code, 1);
  t.like(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""), { code: "SAMPLE_BAD_CONFIG", error: "SIZE is required" });
});

test("version and help say so and run nothing; any other word is a misuse", async (t) => {
  t.deepEqual(await run(["version"]), { code: 0, stdout: "1.2.3\n", stderr: "" });
  const { code, stdout, stderr } = await run(["help"]);
  t.is(code, 0);
  t.true(stdout.startsWith("Usage: fairway-sample [command]\n\n  proxy    run a sample (default);"), stdout);
  t.is(stderr, "");
  t.deepEqual(await run(["--help"]), { code, stdout, stderr });
  t.deepEqual(await run(["dance"]), { code: 2, stdout: "", stderr: stdout });
});
