/** The node's side: CNI plugins run for real, host paths, cgroups, daemons, the outside host, capture, kubectl, and cleaning up after a crash. Needs root. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { CapturedPacket } from "@fairway/linux";
import test, { type ExecutionContext } from "ava";
import { missingPrivilege } from "./container/machine.ts";
import { processStartTime, readLedger } from "./ledger.ts";
import { destroyLeftovers } from "./leftovers.ts";
import { type DaemonSet, daemonSets, pods } from "./resources.ts";
import {
  eventMessages,
  eventually,
  idlePod,
  isReadyPod,
  nodeContainer,
  output,
  readyPods,
  startTestCluster,
  type TestCluster,
  urlOf,
  webServer,
} from "./test-cluster.ts";

const missing = missingPrivilege();
let running: TestCluster | undefined;

if (missing === undefined) {
  test.before(async () => {
    running = await startTestCluster("fwln");
    await running.cluster.client.create(pods, idlePod("client", { nodeName: "node-1" }));
    await readyPods(running.cluster, "app=client", 1);
  });
  test.after.always(async () => await running?.[Symbol.asyncDispose]());
}

function given(t: ExecutionContext): TestCluster | undefined {
  if (missing !== undefined) t.log(`SKIPPED: ${missing}`);
  if (running === undefined) t.pass();
  return running;
}

interface RecordedCall {
  readonly CNI_COMMAND?: string;
  readonly CNI_NETNS?: string;
  readonly CNI_ARGS?: string;
  readonly CNI_IFNAME?: string;
  readonly CNI_CONTAINERID?: string;
  readonly CNI_PATH?: string;
  readonly input?: { readonly type: string; readonly prevResult?: { readonly ips: { readonly address: string }[] } };
  readonly links?: string[];
}

/** A CNI plugin that writes down how it was called, passes the previous result on, and fails when told to. */
const recordingPlugin = `#!/usr/bin/env node
const fs = require("node:fs");
const input = JSON.parse(fs.readFileSync(0, "utf8"));
const { CNI_COMMAND, CNI_NETNS, CNI_ARGS, CNI_IFNAME, CNI_CONTAINERID, CNI_PATH } = process.env;
fs.mkdirSync("/var/run/recorder", { recursive: true });
fs.appendFileSync("/var/run/recorder/calls", JSON.stringify({ CNI_COMMAND, CNI_NETNS, CNI_ARGS, CNI_IFNAME, CNI_CONTAINERID, CNI_PATH, input, netns: fs.statSync(CNI_NETNS).ino, links: fs.readdirSync("/sys/class/net") }) + "\\n");
if (CNI_COMMAND === "ADD" && fs.existsSync("/etc/cni/net.d/refuse")) {
  console.log(JSON.stringify({ cniVersion: "1.0.0", code: 100, msg: "the agent is not there" }));
  process.exit(1);
}
if (CNI_COMMAND === "ADD") console.log(JSON.stringify(input.prevResult));
`;

test.serial("CNI plugins of the node's configuration are executed with the spec's inputs, and a pod waits while one fails", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster, stateDir } = here;
  const root = join(stateDir, "nodes/node-2/root");
  const plugin = join(root, "opt/cni/bin/recorder");
  writeFileSync(plugin, recordingPlugin, { mode: 0o755 });
  const chain = { cniVersion: "1.0.0", name: "chained", plugins: [{ type: "local-bridge" }, { type: "recorder", note: "kept" }] };
  writeFileSync(join(root, "etc/cni/net.d/05-chained.conflist"), JSON.stringify(chain));
  writeFileSync(join(root, "etc/cni/net.d/refuse"), "");
  const stored = await cluster.client.create(pods, idlePod("chained", { nodeName: "node-2" }));
  const messages = await eventually(
    "the refusal",
    () => eventMessages(cluster, "chained"),
    (list) => list.some((text) => text.startsWith("FailedCreatePodSandBox")),
  );
  t.true(messages.includes('FailedCreatePodSandBox: CNI plugin "recorder" failed (add): the agent is not there'), messages.join("\n"));
  t.is((await cluster.client.get(pods, "chained", "default")).status?.phase, "Pending");
  rmSync(join(root, "etc/cni/net.d/refuse"));
  const [pod] = await readyPods(cluster, "app=chained", 1);
  const calls = (): RecordedCall[] =>
    readFileSync(join(root, "run/recorder/calls"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  const add: RecordedCall = calls().findLast(({ CNI_COMMAND }) => CNI_COMMAND === "ADD") ?? {};
  t.is(add.CNI_IFNAME, "eth0");
  t.is(add.CNI_PATH, "/opt/cni/bin");
  t.regex(String(add.CNI_NETNS), /^\/run\/netns\//);
  t.true(
    String(add.CNI_ARGS).includes(`K8S_POD_NAMESPACE=default;K8S_POD_NAME=chained;`) && String(add.CNI_ARGS).includes(`K8S_POD_UID=${stored.metadata.uid}`),
  );
  t.like(add.input ?? {}, { type: "recorder", note: "kept", name: "chained", cniVersion: "1.0.0" });
  t.is(add.input?.prevResult?.ips[0]?.address, `${pod?.status?.podIP}/32`);
  t.true(add.links?.includes("cni0") === true, "the plugin runs in the node's network");
  t.true(
    calls().some(({ CNI_COMMAND }) => CNI_COMMAND === "DEL"),
    "a failed ADD is undone",
  );
  await cluster.client.delete(pods, "chained", "default");
  await eventually(
    "its end",
    () => cluster.client.list(pods, { labelSelector: "app=chained" }),
    (list) => list.length === 0,
  );
  const del: RecordedCall = calls().at(-1) ?? {};
  t.is(del.CNI_COMMAND, "DEL");
  t.is(del.CNI_CONTAINERID, add.CNI_CONTAINERID);
  t.deepEqual(del.input?.prevResult, add.input?.prevResult);
  rmSync(join(root, "etc/cni/net.d/05-chained.conflist"));
});

test.serial("host paths are the node's own, /proc/1 is the node, and the pod's processes carry its uid in their cgroup", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster, stateDir } = here;
  const base = idlePod("agent").spec.containers[0] ?? { name: "main" };
  const volumeMounts = [
    { name: "run", mountPath: "/host/run" },
    { name: "proc", mountPath: "/host/proc", readOnly: true },
  ];
  const spec = {
    nodeName: "node-2",
    hostNetwork: true,
    containers: [{ ...base, volumeMounts, securityContext: { privileged: true } }],
    volumes: [
      { name: "run", hostPath: { path: "/var/run", type: "Directory" } },
      { name: "proc", hostPath: { path: "/proc" } },
    ],
  };
  await cluster.client.create(pods, idlePod("agent", spec));
  const stored = await cluster.client.create(pods, idlePod("target", { nodeName: "node-2" }));
  await readyPods(cluster, "app=agent", 1);
  const [target] = await readyPods(cluster, "app=target", 1);
  t.is(await output(cluster, "agent", "sh", "-c", "echo here > /host/run/from-agent"), "");
  t.is(readFileSync(join(stateDir, "nodes/node-2/root/run/from-agent"), "utf8"), "here\n");
  t.is(await output(cluster, "agent", "readlink", "/host/proc/1/ns/net"), await output(cluster, "agent", "readlink", "/proc/self/ns/net"));
  t.not(await output(cluster, "agent", "readlink", "/proc/self/ns/net"), await output(cluster, "target", "readlink", "/proc/self/ns/net"));
  t.regex(await output(cluster, "agent", "sh", "-c", "ls /host/run/netns"), new RegExp(`fwln${process.pid}-pod-`));
  t.is((await cluster.client.get(pods, "agent", "default")).status?.podIP, "172.30.0.12");
  if (cluster.machine.cgroupRoot === undefined && !cluster.machine.ownsProc) {
    t.log("SKIPPED in part: no cgroup hierarchy is writable");
    return;
  }
  const found = await output(
    cluster,
    "agent",
    "sh",
    "-c",
    `grep -l 'kubepods/besteffort/pod${stored.metadata.uid}/[0-9a-f]\\{64\\}$' /host/proc/[0-9]*/cgroup | head -1`,
  );
  const pid = found.split("/")[3] ?? "";
  t.is(await output(cluster, "agent", "readlink", `/host/proc/${pid}/ns/net`), await output(cluster, "target", "readlink", "/proc/self/ns/net"));
  t.truthy(target);
});

test.serial("a daemon runs on every node, and with surge the new pod is ready before the old one goes", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const daemon = (version: string): DaemonSet => ({
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: "daemon", namespace: "default" },
    spec: {
      selector: { matchLabels: { app: "daemon" } },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: {
        metadata: { labels: { app: "daemon" } },
        spec: {
          containers: [
            nodeContainer(webServer, {
              env: [{ name: "VERSION", value: version }],
              readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1, timeoutSeconds: 5 },
            }),
          ],
        },
      },
    },
  });
  await cluster.client.create(daemonSets, daemon("1"));
  const first = await readyPods(cluster, "app=daemon", 2);
  t.deepEqual(first.map(({ spec }) => spec.nodeName).sort(), ["node-1", "node-2"]);
  await cluster.client.mergePatch(daemonSets, "daemon", "default", { spec: { template: daemon("2").spec.template } });
  let fewest = 2;
  const { status } = await eventually(
    "the end of the update",
    async () => {
      const ready = (await cluster.client.list(pods, { labelSelector: "app=daemon" })).filter(
        (pod) => isReadyPod(pod) && pod.metadata.deletionTimestamp === undefined,
      );
      fewest = Math.min(fewest, new Set(ready.map(({ spec }) => spec.nodeName)).size);
      return await cluster.client.get(daemonSets, "daemon", "default");
    },
    ({ status: now = {}, metadata }) =>
      now["observedGeneration"] === metadata.generation && now["updatedNumberScheduled"] === 2 && now["numberAvailable"] === 2,
  );
  t.is(status?.["desiredNumberScheduled"], 2);
  t.is(fewest, 2, "no node was ever without a ready pod");
  await cluster.client.delete(daemonSets, "daemon", "default");
});

test.serial("pods reach the outside host and are seen with their own address, and the underlay's packets can be captured", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const server = cluster.spawnOutside([process.execPath, "-e", webServer]);
  const packets: CapturedPacket[] = [];
  await using _capture = cluster.capture("underlay", (packet) => packets.push(packet));
  const client = await cluster.client.get(pods, "client", "default");
  for (const [index, ip] of cluster.outside.addresses.entries()) {
    const answer = await eventually(
      "an answer from outside",
      () => output(cluster, "client", "curl", "-sS", "-m", "2", urlOf(ip, 8080)),
      (text) => !text.startsWith("exit"),
    );
    t.is(answer.trim().split(" ")[0], client.status?.podIPs?.[index]?.ip);
  }
  t.true(
    packets.some(({ payload }) => Buffer.from(payload).includes("GET / HTTP/1.1")),
    "plain HTTP is readable on the underlay",
  );
  const { stdout } = await cluster.runOutside(["ip", "-o", "addr", "show", "eth0"], { timeoutMs: 60_000 });
  t.true(stdout.includes("172.30.0.200/24"));
  server.kill();
  await server.exit;
});

test.serial("kubectl reads logs, follows them, and runs commands", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const kubectl = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)("kubectl", ["--kubeconfig", here.cluster.kubeconfigPath, ...args], { encoding: "utf8", timeout: 60_000 })).stdout;
  try {
    execFileSync("kubectl", ["version", "--client"], { stdio: "ignore" });
  } catch {
    t.log("SKIPPED: kubectl is not installed");
    t.pass();
    return;
  }
  const counting = nodeContainer(
    "let n = 0; const timer = setInterval(() => { console.log('line', ++n); if (n === 5) { clearInterval(timer); process.exit(7); } }, 100)",
  );
  await here.cluster.client.create(pods, idlePod("counter", { restartPolicy: "Never", containers: [counting] }));
  await eventually(
    "a running pod",
    () => here.cluster.client.get(pods, "counter", "default"),
    ({ status }) => status?.phase === "Running" || status?.phase === "Failed",
  );
  t.is(await kubectl("logs", "-f", "counter"), "line 1\nline 2\nline 3\nline 4\nline 5\n");
  t.is(await kubectl("logs", "--tail=2", "counter"), "line 4\nline 5\n");
  t.regex(await kubectl("logs", "--timestamps", "--tail=1", "counter"), /^\d{4}-\d\d-\d\dT\S+Z line 5\n$/);
  const ended = await eventually(
    "its failure",
    () => here.cluster.client.get(pods, "counter", "default"),
    ({ status }) => status?.phase === "Failed",
  );
  t.is(ended.status?.containerStatuses?.[0]?.state.terminated?.exitCode, 7);
  t.is(await kubectl("exec", "client", "--", "hostname"), "client\n");
  const failed = await t.throwsAsync(kubectl("exec", "client", "--", "sh", "-c", "echo bad >&2; exit 3"));
  t.regex(String(failed), /exit code 3|bad/);
});

test.serial("what a killed cluster left is removed by its ledger, and nothing else", async (t) => {
  if (missing !== undefined) {
    t.log(`SKIPPED: ${missing}`);
    t.pass();
    return;
  }
  const stateDir = mkdtempSync(join(tmpdir(), "fairway-fwlk-"));
  t.teardown(async () => {
    await destroyLeftovers(stateDir);
    rmSync(stateDir, { recursive: true, force: true });
  });
  const main = fileURLToPath(new URL("./main.js", import.meta.url));
  const child = spawn(process.execPath, [main, "--name", `fwlk${process.pid}`, "--nodes", "1", "--state-dir", stateDir, "--log", "error"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const [said] = await Promise.race([
      new Promise<[string]>((resolve) => child.stdout.once("data", (chunk: Buffer) => resolve([chunk.toString()]))),
      new Promise<[string]>((resolve) => child.once("exit", () => resolve(["it ended"]))),
    ]);
    t.is(said, `export KUBECONFIG=${join(stateDir, "kubeconfig")}\n`);
    const refused = await t.throwsAsync(destroyLeftovers(stateDir));
    t.is(refused && "code" in refused ? refused.code : undefined, "LOCAL_CLUSTER_STILL_RUNNING");
  } finally {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
  const content = readLedger(stateDir);
  t.true((content?.namespaces.filter((name) => existsSync(`/run/netns/${name}`)).length ?? 0) >= 3);
  // A process that has a recorded pid but another start time must survive.
  const bystander = spawn("sleep", ["30"]);
  t.teardown(() => bystander.kill("SIGKILL"));
  mkdirSync(stateDir, { recursive: true });
  writeFileSync(join(stateDir, "ledger.jsonl"), `${JSON.stringify({ kind: "process", pid: bystander.pid, startTime: "1" })}\n`, { flag: "a" });
  const removed = await destroyLeftovers(stateDir);
  t.true(removed.namespaces >= 3);
  t.deepEqual(
    content?.namespaces.filter((name) => existsSync(`/run/netns/${name}`)),
    [],
  );
  t.deepEqual(content?.cgroups.filter(existsSync), []);
  t.deepEqual(
    content?.processes.filter(({ pid, startTime }) => processStartTime(pid) === startTime),
    [],
  );
  t.is(bystander.exitCode, null);
  t.not(processStartTime(bystander.pid ?? 0), undefined);
  t.deepEqual(await destroyLeftovers(stateDir), { processes: 0, namespaces: 0, cgroups: 0 });
});
