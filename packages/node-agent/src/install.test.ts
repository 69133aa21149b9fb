import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errorCode, ManualClock, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { CniInstallation, type InstallOptions } from "./install.ts";
import { testDirectory } from "./test-namespaces.ts";

const conflist = JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [{ type: "bridge" }] });

interface Bench {
  readonly options: InstallOptions;
  readonly clock: ManualClock;
  readonly conf: (name: string) => string;
  readonly installed: () => number;
}

async function bench(t: ExecutionContext, overrides: Partial<InstallOptions> = {}): Promise<Bench> {
  const directory = await testDirectory(t);
  const binDir = join(directory, "bin");
  const confDir = join(directory, "net.d");
  for (const made of [binDir, confDir]) mkdirSync(made);
  const pluginFile = join(directory, "plugin.cjs");
  writeFileSync(pluginFile, "console.log('plugin');\n");
  const nodeFile = join(directory, "node");
  writeFileSync(nodeFile, "a node\n");
  chmodSync(nodeFile, 0o755);
  let count = 0;
  const clock = new ManualClock();
  const entry = { agentSocket: "/run/a.sock", agentNamespace: "fairway-system", agentPodPrefix: "fairway-node-agent-", excludeNamespaces: [] };
  const onInstalled = (): void => {
    count += 1;
  };
  const options = {
    binDir,
    hostBinDir: "/opt/cni/bin",
    confDir,
    pluginFile,
    nodeFile,
    hostNodeFile: undefined,
    entry,
    clock,
    log: silentLogger,
    onInstalled,
    ...overrides,
  };
  return { options, clock, conf: (name) => join(confDir, name), installed: () => count };
}

async function started(t: ExecutionContext, { options }: Bench): Promise<CniInstallation> {
  const installation = await CniInstallation.start(options);
  t.teardown(() => installation[Symbol.asyncDispose]());
  return installation;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const hasEntry = (file: string): boolean => existsSync(file) && readFileSync(file, "utf8").includes("fairway-cni");

test("the plugin is executable and runs by a Node that lies beside it, as the node sees the path", async (t) => {
  const b = await bench(t);
  await started(t, b);
  const { binDir } = b.options;
  const runtime = `fairway-cni-node-${process.version}-${process.arch}`;
  t.deepEqual(readdirSync(binDir).toSorted(), ["fairway-cni", runtime]);
  t.is(readFileSync(join(binDir, "fairway-cni"), "utf8"), `#!/opt/cni/bin/${runtime}\nconsole.log('plugin');\n`);
  t.is(statSync(join(binDir, "fairway-cni")).mode & 0o777, 0o755);
  t.is(statSync(join(binDir, runtime)).ino, statSync(b.options.nodeFile).ino, "a hard link on the same file system");
});

test("the runtime is put there once, and one of another version goes", async (t) => {
  const b = await bench(t);
  const old = join(b.options.binDir, "fairway-cni-node-v1.0.0-x64");
  writeFileSync(old, "old");
  await (await started(t, b))[Symbol.asyncDispose]();
  t.false(existsSync(old));
  const runtime = join(b.options.binDir, `fairway-cni-node-${process.version}-${process.arch}`);
  const before = statSync(runtime).ctimeMs;
  await started(t, b);
  t.is(statSync(runtime).ctimeMs, before);
});

test("a Node that is on the node already is used, and nothing is copied", async (t) => {
  const b = await bench(t, { hostNodeFile: "/usr/bin/node" });
  await started(t, b);
  t.deepEqual(readdirSync(b.options.binDir), ["fairway-cni"]);
  t.true(readFileSync(join(b.options.binDir, "fairway-cni"), "utf8").startsWith("#!/usr/bin/node\n"));
});

test("the entry is added to a configuration that is there, with its mode kept", async (t) => {
  const b = await bench(t);
  writeFileSync(b.conf("10.conflist"), conflist);
  chmodSync(b.conf("10.conflist"), 0o600);
  await started(t, b);
  await until(() => b.installed() === 1);
  t.true(hasEntry(b.conf("10.conflist")));
  t.is(statSync(b.conf("10.conflist")).mode & 0o777, 0o600);
});

test("a configuration that comes later gets the entry when it comes, and again when it is rewritten", async (t) => {
  const b = await bench(t);
  await started(t, b);
  t.is(b.installed(), 0);
  writeFileSync(b.conf("new"), conflist);
  renameSync(b.conf("new"), b.conf("10.conflist"));
  await until(() => hasEntry(b.conf("10.conflist")));
  writeFileSync(b.conf("new"), conflist);
  renameSync(b.conf("new"), b.conf("10.conflist"));
  await until(() => hasEntry(b.conf("10.conflist")));
  t.is(b.installed(), 1);
});

test("a change that nobody heard of is put right at the next regular look", async (t) => {
  const b = await bench(t);
  writeFileSync(b.conf("10.conflist"), conflist);
  await started(t, b);
  await until(() => b.installed() === 1);
  // Written over in place while the watcher's events are drained: the regular look decides.
  writeFileSync(b.conf("10.conflist"), conflist);
  await b.clock.advance(10_000);
  await until(() => hasEntry(b.conf("10.conflist")));
  t.pass();
});

test("stopping leaves everything on the node; uninstalling takes everything", async (t) => {
  const b = await bench(t);
  writeFileSync(b.conf("10.conflist"), conflist);
  const installation = await started(t, b);
  await until(() => b.installed() === 1);
  await installation[Symbol.asyncDispose]();
  t.true(hasEntry(b.conf("10.conflist")));
  const again = await started(t, b);
  await again.uninstall();
  t.deepEqual(JSON.parse(readFileSync(b.conf("10.conflist"), "utf8")), JSON.parse(conflist));
  t.deepEqual(readdirSync(b.options.binDir), []);
});

test("a node without the directories is told what to mount", async (t) => {
  const b = await bench(t);
  t.is(errorCode(await t.throwsAsync(CniInstallation.start({ ...b.options, binDir: "/nowhere/bin" }))), "NODE_AGENT_INSTALL_FAILED");
  t.is(errorCode(await t.throwsAsync(CniInstallation.start({ ...b.options, confDir: "/nowhere/net.d" }))), "NODE_AGENT_INSTALL_FAILED");
  t.is(errorCode(await t.throwsAsync(CniInstallation.start({ ...b.options, hostBinDir: `/${"x".repeat(300)}` }))), "NODE_AGENT_INSTALL_FAILED");
});
