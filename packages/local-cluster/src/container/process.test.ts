/** Containers as real processes, by both ways of making a root. Needs root. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { finished } from "node:stream/promises";
import test, { type ExecutionContext } from "ava";
import { Ledger } from "../ledger.ts";
import { type Machine, missingPrivilege, probeMachine } from "./machine.ts";
import { privilegeArguments } from "./privileges.ts";
import { type ContainerProcess, handlesTermination, launchContainer } from "./process.ts";
import type { RootOptions, RootStrategy } from "./root-script.ts";

const missing = missingPrivilege();

interface Place {
  readonly directory: string;
  readonly machine: Machine;
  launch(argv: readonly string[], extra?: Partial<Omit<RootOptions, "program">>, user?: number): Promise<ContainerProcess>;
}

async function place(strategy: RootStrategy | undefined, use: (place: Place) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "fairway-container-"));
  try {
    const machine = await probeMachine(directory);
    const ledger = new Ledger(directory);
    let count = 0;
    await use({
      directory,
      machine,
      launch: (argv, extra = {}, user = 0) => {
        count += 1;
        return launchContainer({
          ledger,
          // This process's own network: nothing here uses it.
          netNamespacePath: "/proc/self/ns/net",
          directory: join(directory, String(count)),
          root: {
            strategy: strategy ?? machine.rootStrategy,
            hostname: "inside",
            mounts: [],
            copies: [],
            readOnlyRoot: false,
            keep: machine.keep,
            cgroupFile: undefined,
            program: {
              argv,
              env: { PATH: machine.path, WORD: "it's" },
              workingDir: "/tmp",
              privileges: machine.changesUsers ? privilegeArguments({ runAsUser: user, capabilities: { drop: ["ALL"] } }, undefined) : [],
            },
            ...extra,
          },
        });
      },
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function printed(container: ContainerProcess): Promise<{ out: string; error: string; code: number }> {
  let [out, error] = ["", ""];
  container.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  container.stderr.on("data", (chunk: Buffer) => {
    error += chunk.toString();
  });
  // A program may be known to have ended before all it said was read.
  const ended = Promise.all([container.stdout, container.stderr].map((stream) => finished(stream)));
  const { code } = await container.exit;
  await ended;
  return { out, error, code };
}

function skipped(t: ExecutionContext): boolean {
  if (missing === undefined) return false;
  t.log(`SKIPPED: ${missing}`);
  t.pass();
  return true;
}

for (const strategy of ["overlay", "layers", "bind"] as const) {
  test.serial(`a container made by ${strategy} sees its mounts, its own processes and name, and nothing of the host's /tmp and /run`, async (t) => {
    if (skipped(t)) return;
    await place(strategy, async ({ directory, machine, launch }) => {
      if (strategy === "overlay" && machine.rootStrategy !== "overlay") {
        t.log("SKIPPED: an overlay over / is refused here");
        t.pass();
        return;
      }
      const volume = join(directory, "volume");
      mkdirSync(volume);
      writeFileSync(join(volume, "file"), "from the volume\n");
      const copy = join(directory, "hosts");
      writeFileSync(copy, "127.0.0.1 here\n");
      const hidden = basename(directory);
      t.true(readdirSync(tmpdir()).includes(hidden), "the test's own directory stands in the machine's /tmp");
      const script =
        'cat /data/sub/file /etc/hosts; hostname; echo "$WORD" $$ $(id -u); pwd; echo tmp: $(ls /tmp) run: $(ls /run); touch /data/sub/x 2>&1; "$0" -e "console.log(6*7)"';
      const container = await launch(
        ["sh", "-c", script, process.execPath],
        {
          mounts: [{ source: volume, target: "/data/sub", kind: "directory", readOnly: true }],
          copies: [{ source: copy, target: "/etc/hosts" }],
        },
        1337,
      );
      const { out, error, code } = await printed(container);
      const [file, hosts, name, identity, working, ...rest] = out.trim().split("\n");
      t.deepEqual(
        [file, hosts, name, identity, working],
        ["from the volume", "127.0.0.1 here", "inside", `it's 1 ${machine.changesUsers ? 1337 : 0}`, "/tmp"],
        error,
      );
      // mount(8) itself may keep a table in /run.
      t.regex(rest[0] ?? "", /^tmp: .*run:( mount)?$/);
      t.false(rest[0]?.includes(hidden), "the machine's /tmp can be seen");
      t.regex(rest.join("\n"), /Read-only file system/);
      t.is(rest.at(-1), "42");
      t.is(code, 0);
    });
  });
}

test.serial("what a program prints and how it ends is kept, however short it is", async (t) => {
  if (skipped(t)) return;
  await place(undefined, async ({ launch }) => {
    t.deepEqual(await printed(await launch(["sh", "-c", "echo out; echo err >&2; exit 3"])), { out: "out\n", error: "err\n", code: 3 });
    t.is((await printed(await launch(["no-such-program"]))).code, 127);
    const sleeping = await launch(["sleep", "60"]);
    sleeping.signal("SIGKILL");
    t.deepEqual(await sleeping.exit, { code: 137, signal: "SIGKILL" });
  });
});

test.serial("a root that cannot be made is told with its reason", async (t) => {
  if (skipped(t)) return;
  await place(undefined, async ({ launch }) => {
    const error = await t.throwsAsync(launch(["true"], { mounts: [{ source: "/no/such/path", target: "/data", kind: "directory", readOnly: false }] }));
    t.is(error && "code" in error ? error.code : undefined, "LOCAL_CLUSTER_LAUNCH_FAILED");
    t.regex(error?.message ?? "", /no\/such\/path/);
  });
});

test.serial("a further process shares the container, and it is known whether the program hears SIGTERM", async (t) => {
  if (skipped(t)) return;
  await place(undefined, async ({ launch }) => {
    const deaf = await launch(["sleep", "60"]);
    const hearing = await launch(["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"]);
    await new Promise((resolve) => hearing.stdout.once("data", resolve));
    t.false(handlesTermination(deaf.programPid() ?? 0));
    t.true(handlesTermination(hearing.programPid() ?? 0));
    const beside = hearing.exec(["sh", "-c", 'read line; echo "$line" $(hostname) "$WORD"; exit 4']);
    beside.stdin.end("hello\n");
    let said = "";
    beside.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
    const ended = finished(beside.stdout);
    t.is((await beside.exit).code, 4);
    await ended;
    t.is(said, "hello inside it's\n");
    hearing.signal("SIGTERM");
    t.is((await hearing.exit).code, 9);
    deaf.signal("SIGKILL");
    await deaf.exit;
    t.throws(() => deaf.exec(["true"]), { code: "LOCAL_CLUSTER_CONTAINER_NOT_RUNNING" });
  });
});
