import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type KubeClient, type KubeObject, MutableCollection, type Namespace, type Pod, type ResourceType } from "@fairway/kube";
import { connectSeqpacket, linuxPodNetwork, openNamespace, type PodNetwork, type SeqpacketConnection } from "@fairway/linux";
import { decodeZdsRequest, encodeZdsHello, encodeZdsResponse } from "@fairway/protocol";
import { createLogger, MeshError, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { build } from "esbuild";
import { runAgent } from "./app.ts";
import { readConfig } from "./config.ts";
import { ask, listenAsZtunnel, skipped, type TestNamespace, testDirectory, testNode } from "./test-namespaces.ts";

const forever = new AbortController().signal;
const redirection = "ambient.istio.io/redirection";
const uid = (index: number): string => `00000000-0000-4000-8000-00000000000${index}`;

/** A Kubernetes of two collections. */
class FakeKube {
  readonly pods = new MutableCollection<Pod>(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  readonly namespaces = new MutableCollection<Namespace>(({ metadata }) => metadata.name);
  daemonSetGone = false;

  /** As much of a client as an agent uses. */
  get client(): KubeClient {
    const { pods, namespaces } = this;
    const get = async (type: ResourceType, name: string, namespace = ""): Promise<unknown> => {
      const daemonSet = this.daemonSetGone ? undefined : { metadata: { name } };
      const found = type.kind === "Pod" ? pods.get(`${namespace}/${name}`) : type.kind === "Namespace" ? namespaces.get(name) : daemonSet;
      if (found === undefined) throw new MeshError("KUBE_NOT_FOUND", `${type.kind} ${name} is not there`);
      return found;
    };
    const mergePatch = async (_type: ResourceType, name: string, namespace: string | undefined, patch: unknown): Promise<unknown> => {
      const pod = pods.get(`${namespace}/${name}`);
      if (pod === undefined) throw new MeshError("KUBE_NOT_FOUND", "gone");
      const { annotations } = (patch as { metadata: { annotations: Record<string, string | null> } }).metadata;
      const merged = Object.entries({ ...pod.metadata.annotations, ...annotations }).filter((pair): pair is [string, string] => pair[1] !== null);
      pods.set({ ...pod, metadata: { ...pod.metadata, annotations: Object.fromEntries(merged) } });
      return pod;
    };
    const collection = (type: ResourceType): unknown => disposable(type.kind === "Pod" ? pods : namespaces);
    return { server: "fake", get, mergePatch, collection } as unknown as KubeClient;
  }

  async annotated(name: string, value: string | undefined): Promise<void> {
    await until(() => this.pods.get(`shop/${name}`)?.metadata.annotations?.[redirection] === value);
  }
}

function disposable<T extends KubeObject>(collection: MutableCollection<T>): unknown {
  return {
    synced: collection.synced,
    get: (key: string) => collection.get(key),
    list: () => collection.list(),
    entries: () => collection.entries(),
    subscribe: (listener: Parameters<MutableCollection<T>["subscribe"]>[0]) => collection.subscribe(listener),
    [Symbol.asyncDispose]: async () => {},
  };
}

/** A ztunnel that takes what it is given and listens in the pods. */
class FakeZtunnel {
  readonly requests: string[] = [];
  readonly #networks = new Map<string, PodNetwork>();
  readonly #connection: SeqpacketConnection;

  private constructor(connection: SeqpacketConnection) {
    this.#connection = connection;
  }

  static async connect(t: ExecutionContext, path: string): Promise<FakeZtunnel> {
    await until(() => existsSync(path));
    const connection = await connectSeqpacket(path);
    const ztunnel = new FakeZtunnel(connection);
    await connection.send(encodeZdsHello(), [], { signal: forever });
    const serving = ztunnel.#serve();
    t.teardown(async () => {
      connection.close();
      await serving;
      for (const network of ztunnel.#networks.values()) await network[Symbol.asyncDispose]();
    });
    return ztunnel;
  }

  disconnect(): void {
    this.#connection.close();
  }

  async #serve(): Promise<void> {
    for await (const { bytes, fds } of this.#connection.messages({ signal: forever })) {
      const request = decodeZdsRequest(bytes);
      this.requests.push(request.kind === "snapshot-sent" ? request.kind : `${request.kind} ${request.uid}`);
      if (request.kind === "add" && !this.#networks.has(request.uid)) {
        const network = linuxPodNetwork(openNamespace(fds[0] ?? -1));
        this.#networks.set(request.uid, network);
        await listenAsZtunnel(network, { dns: true });
      }
      await this.#connection.send(encodeZdsResponse({ error: "" }), [], { signal: forever });
    }
  }
}

interface Bench {
  readonly directory: string;
  readonly zdsSocket: string;
  readonly kube: FakeKube;
  readonly start: () => { readonly stop: () => Promise<void>; readonly running: Promise<void> };
}

async function bench(t: ExecutionContext, node: TestNamespace, running: readonly { index: number; pod: TestNamespace }[]): Promise<Bench> {
  const directory = await testDirectory(t);
  const proc = join(directory, "proc");
  addProcess(proc, 1, "/system.slice", node.path);
  for (const { index, pod } of running) addProcess(proc, 100 + index, `/kubepods/besteffort/pod${uid(index)}/x`, pod.path);
  for (const made of ["bin", "net.d"]) mkdirSync(join(directory, made));
  writeFileSync(join(directory, "net.d/10.conflist"), JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [{ type: "bridge" }] }));
  const zdsSocket = join(directory, "z.sock");
  const kube = new FakeKube();
  const config = readConfig({
    NODE_NAME: "node-1",
    ZDS_SOCKET: zdsSocket,
    PLUGIN_SOCKET: join(directory, "run/a.sock"),
    CNI_BIN_DIR: join(directory, "bin"),
    CNI_HOST_BIN_DIR: join(directory, "bin"),
    CNI_CONF_DIR: join(directory, "net.d"),
    CNI_HOST_NODE: process.execPath,
    HOST_PROC: proc,
    HEALTH_PORT: "0",
    METRICS_PORT: "0",
  });
  const start = (): ReturnType<Bench["start"]> => {
    const stop = new AbortController();
    const { promise: running, resolve } = Promise.withResolvers<void>();
    const log = createLogger("agent", {
      write: (line) => {
        if (line.includes("node agent running")) resolve();
      },
    });
    const ended = runAgent({ config, client: kube.client, clock: systemClock, log, stop: stop.signal });
    const end = async (): Promise<void> => {
      stop.abort();
      await ended;
    };
    t.teardown(end);
    return { stop: end, running };
  };
  return { directory, zdsSocket, kube, start };
}

function addProcess(proc: string, pid: number, cgroup: string, net: string): void {
  const directory = join(proc, String(pid));
  mkdirSync(join(directory, "ns"), { recursive: true });
  writeFileSync(join(directory, "cgroup"), `0::${cgroup}\n`);
  writeFileSync(join(directory, "stat"), `${pid} (x) S ${Array.from({ length: 18 }, () => 0).join(" ")} 7 0\n`);
  symlinkSync(net, join(directory, "ns/net"));
}

function podObject(name: string, index: number, phase: string, ip: string | undefined): Pod {
  const status = { phase, ...(ip === undefined ? {} : { podIP: ip, podIPs: [{ ip }] }) };
  return { metadata: { name, namespace: "shop", uid: uid(index), labels: {} }, spec: { serviceAccountName: name }, status };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Runs the installed plugin as a container runtime does: by its path and its first line. */
function runInstalled(directory: string, pod: TestNamespace, name: string, index: number, ip: string): Promise<{ code: number | null; stdout: string }> {
  const { plugins } = JSON.parse(readFileSync(join(directory, "net.d/10.conflist"), "utf8")) as { plugins: Record<string, unknown>[] };
  const prevResult = { cniVersion: "1.0.0", ips: [{ address: `${ip}/24` }] };
  const env = {
    CNI_COMMAND: "ADD",
    CNI_NETNS: pod.path,
    CNI_ARGS: `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${name};K8S_POD_UID=${uid(index)}`,
  };
  return new Promise((resolve, reject) => {
    const child = spawn(join(directory, "bin/fairway-cni"), [], { env, stdio: ["pipe", "pipe", "ignore"] });
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout }));
    child.stdin.end(JSON.stringify({ ...plugins.at(-1), cniVersion: "1.0.0", name: "pods", prevResult }));
  });
}

test.before(async () => {
  const outfile = new URL("./fairway-cni.cjs", import.meta.url).pathname;
  const entry = new URL("./plugin/main.js", import.meta.url).pathname;
  await build({ entryPoints: [entry], outfile, bundle: true, platform: "node", target: "node24", format: "cjs", minify: true });
});

test.serial("pods that run and pods that start are captured; an agent that restarts takes them over; an uninstall lets them go", async (t) => {
  if (skipped(t)) return;
  const { node, pods } = testNode(t, 2);
  const [running, starting] = pods;
  if (running === undefined || starting === undefined) return t.fail();
  const { directory, zdsSocket, kube, start } = await bench(t, node, [{ index: 0, pod: running.pod }]);
  kube.namespaces.set({ metadata: { name: "shop", labels: { "istio.io/dataplane-mode": "ambient" } } });
  kube.pods.set(podObject("running", 0, "Running", running.ipv4), podObject("starting", 1, "Pending", undefined));

  const first = start();
  await kube.annotated("running", "pending");
  const ztunnel = await FakeZtunnel.connect(t, zdsSocket);
  await kube.annotated("running", "enabled");
  t.true((await ask(running.pod.network, "10.99.99.99", 80)).startsWith("15001 10.99.99.99 80"));

  await until(() => readFileSync(join(directory, "net.d/10.conflist"), "utf8").includes("fairway-cni"));
  const { code, stdout } = await runInstalled(directory, starting.pod, "starting", 1, starting.ipv4);
  t.is(code, 0, stdout);
  t.true(stdout.includes(starting.ipv4), "the result of the earlier plugin is passed on");
  t.true((await ask(starting.pod.network, "10.99.99.99", 80)).startsWith("15001 "), "captured before it runs anything");
  await kube.annotated("starting", "enabled");
  t.true(node.exec("nft", "list", "table", "inet", "istio-ambient-nat").includes(starting.ipv4), "probes are let through");

  await first.stop();
  t.true((await ask(starting.pod.network, "10.99.99.99", 80)).startsWith("15001 "), "captured while no agent runs");
  const refused = await runInstalled(directory, starting.pod, "starting", 1, starting.ipv4);
  t.is(refused.code, 1, "no pod starts without an agent");

  // The second agent finds "starting" by its process by now.
  addProcess(join(directory, "proc"), 101, `/kubepods/besteffort/pod${uid(1)}/x`, starting.pod.path);
  const patched: (string | undefined)[] = [];
  using _watching = kube.pods.subscribe((events) => {
    for (const event of events) if (event.type !== "deleted") patched.push(event.object.metadata.annotations?.[redirection]);
  });
  const second = start();
  ztunnel.disconnect();
  const again = await FakeZtunnel.connect(t, zdsSocket);
  await until(() => again.requests.includes("snapshot-sent"));
  t.deepEqual(again.requests.slice(0, 3).toSorted(), [`add ${uid(0)}`, `add ${uid(1)}`, "snapshot-sent"]);
  t.deepEqual(
    patched.filter((value) => value !== "enabled"),
    [],
    "no pod was ever marked as anything but enabled",
  );

  await second.running;
  kube.daemonSetGone = true;
  await second.stop();
  for (const { pod } of pods) t.is(pod.exec("nft", "list", "tables"), "");
  t.is(node.exec("nft", "list", "tables"), "");
  t.is(kube.pods.get("shop/running")?.metadata.annotations?.[redirection], undefined);
  t.false(existsSync(join(directory, "bin/fairway-cni")));
  return t.false(readFileSync(join(directory, "net.d/10.conflist"), "utf8").includes("fairway-cni"));
});

test.serial("a pod that should be captured does not start without a ztunnel, and one that should not starts", async (t) => {
  if (skipped(t)) return;
  const { node, pods } = testNode(t, 2);
  const [wanted, free] = pods;
  if (wanted === undefined || free === undefined) return t.fail();
  const { directory, kube, start } = await bench(t, node, []);
  kube.namespaces.set({ metadata: { name: "shop", labels: { "istio.io/dataplane-mode": "ambient" } } });
  const optedOut = podObject("free", 1, "Pending", undefined);
  optedOut.metadata.labels = { "istio.io/dataplane-mode": "none" };
  kube.pods.set(podObject("wanted", 0, "Pending", undefined), optedOut);
  const agent = start();
  await until(() => readFileSync(join(directory, "net.d/10.conflist"), "utf8").includes("fairway-cni"));
  const refused = await runInstalled(directory, wanted.pod, "wanted", 0, wanted.ipv4);
  t.is(refused.code, 1);
  t.regex(refused.stdout, /no ztunnel is connected on this node/);
  const passed = await runInstalled(directory, free.pod, "free", 1, free.ipv4);
  t.is(passed.code, 0, passed.stdout);
  t.is(free.pod.exec("nft", "list", "tables"), "");
  const unknown = await runInstalled(directory, free.pod, "nobody", 1, free.ipv4);
  t.is(unknown.code, 1);
  return await agent.stop();
});
