/** A Kubernetes-shaped cluster on this machine: its network, its API server, its nodes and its controllers, and the way it all goes again. */
import { randomInt } from "node:crypto";
import { mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { connectKube, type KubeClient } from "@fairway/kube";
import { type Capture, type CapturedPacket, capturePackets, linuxPodNetwork, openNamespace, selfTest } from "@fairway/linux";
import { type Clock, type Logger, MeshError, systemClock } from "@fairway/runtime";
import { startApiServer } from "./api-server/index.ts";
import { type CommandResult, maxCommandOutputBytes, runCommand } from "./command.ts";
import { PodCgroups } from "./container/cgroups.ts";
import { type Machine, probeMachine } from "./container/machine.ts";
import { type ExecProcess, startProcess } from "./container/process.ts";
import { type ControllerContext, openCollections, revisionAlphabet } from "./controllers/context.ts";
import { runDaemonSets } from "./controllers/daemonset.ts";
import { runDeployments } from "./controllers/deployment.ts";
import { runEndpointSlices } from "./controllers/endpointslice.ts";
import { runJobs } from "./controllers/job.ts";
import { runReplicaSets } from "./controllers/replicaset.ts";
import { runScheduler } from "./controllers/scheduler.ts";
import { runStatefulSets } from "./controllers/statefulset.ts";
import type { ImageCatalog } from "./images.ts";
import type { ContainerRun } from "./kubelet/container-runner.ts";
import { EventRecorder } from "./kubelet/events.ts";
import { kubeletGateway } from "./kubelet/gateway.ts";
import { findWorker, Kubelet } from "./kubelet/kubelet.ts";
import { openNode } from "./kubelet/open-node.ts";
import { Ledger, readLedger } from "./ledger.ts";
import { destroyLeftovers } from "./leftovers.ts";
import { apiServerUnderlayAddress, apiServerUnderlayPort, type Family, planNode } from "./network/address-plan.ts";
import { deleteNamespace } from "./network/namespaces.ts";
import { ServiceProxy } from "./network/service-proxy.ts";
import { connectNodes, createNodeNetwork, createOutsideHost, createUnderlay } from "./network/underlay.ts";
import { dnsImage, installSystem } from "./system-objects.ts";

export interface ClusterOptions {
  /** Short; the prefix of every namespace on the machine. */
  readonly name: string;
  readonly nodes: number;
  /** Holds the kubeconfig, the ledger and the nodes' files. One cluster at a time. */
  readonly stateDir: string;
  readonly images: ImageCatalog;
  readonly families: readonly ["ipv4"] | readonly ["ipv4", "ipv6"];
  readonly log: Logger;
  readonly clock?: Clock;
  /** Who answers names outside the cluster; nobody unless told. */
  readonly dnsUpstream?: string;
  /** Port of the API server on 127.0.0.1; any free one unless told. */
  readonly apiPort?: number;
  /** Serve equivalents of the Gateway API's definitions; on unless told. */
  readonly gatewayApi?: boolean;
  readonly onProgress?: (step: string) => void;
}

export interface ClusterNode {
  readonly name: string;
  readonly namespacePath: string;
  readonly podCidrs: readonly string[];
  readonly addresses: readonly string[];
}

export interface PodReference {
  readonly namespace: string;
  readonly name: string;
  /** The first one unless told. */
  readonly container?: string;
}

export interface ExecOptions {
  readonly stdin?: string | Uint8Array;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface Cluster extends AsyncDisposable {
  readonly kubeconfigPath: string;
  /** The API as the cluster's administrator. */
  readonly client: KubeClient;
  readonly nodes: readonly ClusterNode[];
  readonly underlay: { readonly namespacePath: string; readonly bridge: string };
  /** A host on the underlay that is neither node nor pod. */
  readonly outside: { readonly namespacePath: string; readonly addresses: readonly string[] };
  readonly machine: Machine;
  /** Runs a command in a container to its end. */
  exec(pod: PodReference, argv: readonly string[], options: ExecOptions): Promise<CommandResult>;
  /** Starts a command in a container and leaves it running; `kill` it, or it ends with the container. */
  spawnIn(pod: PodReference, argv: readonly string[]): ExecProcess;
  /** What a container's current run wrote so far. */
  logs(pod: PodReference): Promise<string>;
  /** Sends a signal to a container's program, as somebody on its node could. Throws LOCAL_CLUSTER_CONTAINER_NOT_RUNNING. */
  signal(pod: PodReference, signal: NodeJS.Signals): void;
  /** Every TCP and UDP packet on the underlay's bridge, or on a node's uplink. */
  capture(where: "underlay" | (string & {}), onPacket: (packet: CapturedPacket) => void): Capture;
  /** Runs a command on the outside host to its end. */
  runOutside(argv: readonly string[], options: ExecOptions): Promise<CommandResult>;
  /** Starts a command on the outside host. It ends with this process at the latest. */
  spawnOutside(argv: readonly string[]): ExecProcess;
}

const apiBacklog = 512;
const readyTimeoutMs = 30_000;
const readyPollMs = 50;
const logTimeoutMs = 10_000;
/** Collections name things after them, and IPv6 zone-free host names must stay below 63 characters. */
const namePattern = /^[a-z][a-z0-9-]{0,19}$/;

/**
 * Starts a cluster; it has nodes that are ready and a DNS that answers when the promise resolves. What a crashed run left in the
 * same state directory is removed first. Throws LOCAL_CLUSTER_NOT_PERMITTED, LOCAL_CLUSTER_BAD_OPTIONS,
 * LOCAL_CLUSTER_STILL_RUNNING and others; nothing is left on the machine then.
 */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  if (!namePattern.test(options.name))
    throw new MeshError("LOCAL_CLUSTER_BAD_OPTIONS", `"${options.name}" is not a cluster name; use up to 20 lower-case letters, digits and dashes`);
  mkdirSync(options.stateDir, { recursive: true });
  const settled = { ...options, stateDir: realpathSync(options.stateDir), clock: options.clock ?? systemClock, log: options.log.scope("local-cluster") };
  await destroyLeftovers(settled.stateDir);
  await using stack = new AsyncDisposableStack();
  const cluster = await build(settled, stack);
  const owned = stack.move();
  return { ...cluster, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

type Settled = ClusterOptions & { readonly clock: Clock };

async function build(options: Settled, stack: AsyncDisposableStack): Promise<Omit<Cluster, typeof Symbol.asyncDispose>> {
  const { name, stateDir, families, clock, log, onProgress = () => undefined } = options;
  await selfTest();
  const machine = await probeMachine(stateDir);
  if (machine.rootStrategy !== "overlay") log.warn("an overlay over / is refused here; containers get a read-only view of this machine's directories");
  if (machine.cgroupRoot === undefined && !machine.ownsProc)
    log.warn("no cgroup hierarchy is writable; a node agent cannot find running pods by their processes");
  if (!machine.changesUsers) log.warn("other users do not exist here or cannot read the programs; users and capabilities that pods ask for are not honoured");
  rmSync(join(stateDir, "nodes"), { recursive: true, force: true });
  const ledger = new Ledger(stateDir);
  ledger.recordProcess(process.pid, "owner");
  stack.defer(() => removeRecorded(stateDir, ledger));

  onProgress("network");
  const underlay = await createUnderlay(ledger, name, families);
  const outside = await createOutsideHost(ledger, name, underlay, families);
  const outsideProcesses = new Set<ExecProcess>();
  stack.defer(() => {
    for (const child of outsideProcesses) child.kill();
  });
  const plans = Array.from({ length: options.nodes }, (_, index) => planNode(index + 1, families));
  const networks = await Promise.all(plans.map((plan) => createNodeNetwork(ledger, name, underlay, plan)));
  await connectNodes(name, plans, outside);

  onProgress("API server");
  const kubelets: Kubelet[] = [];
  let collections: ReturnType<typeof openCollections> | undefined;
  const gateway = kubeletGateway(
    () => kubelets,
    () => collections?.pods,
    clock,
  );
  const api = await startApiServer({
    kubelet: gateway,
    names: Object.values(apiServerUnderlayAddress),
    gatewayApi: options.gatewayApi ?? true,
    clock,
    log: log.scope("api-server"),
    ...(options.apiPort === undefined ? {} : { port: options.apiPort }),
  });
  stack.use(api);
  await listenInUnderlay(underlay.namespacePath, families, (socket) => api.accept(socket), stack);
  const kubeconfigPath = join(stateDir, "kubeconfig");
  writeFileSync(kubeconfigPath, api.kubeconfig(), { mode: 0o600 });
  const client = connectKube({ kubeconfig: kubeconfigPath, log, clock });
  const opened = openCollections(client);
  collections = opened;
  stack.use(opened);
  await opened.synced;

  onProgress("nodes");
  const proxy = new ServiceProxy({
    services: opened.services,
    endpointSlices: opened.endpointSlices,
    nodes: plans.map((plan, index) => ({ namespace: networks[index]?.name ?? "", ips: plan.underlay.map(({ ip }) => ip) })),
    clock,
    log,
  });
  stack.use(proxy);
  const cgroups = stack.use(new PodCgroups(ledger, machine.cgroupRoot, name));
  const images = { [dnsImage]: { command: [process.execPath, dnsProgram] }, ...options.images };
  for (const [index, plan] of plans.entries()) {
    const network = networks[index];
    if (network === undefined) continue;
    const node = openNode({ cluster: name, stateDir, plan, network, machine, cgroups, ledger, images, client, collections: opened, clock, log }, stack);
    kubelets.push(stack.use(new Kubelet(node)));
  }
  await Promise.all(kubelets.map((kubelet) => kubelet.start()));

  onProgress("controllers");
  const events = stack.use(new EventRecorder({ client, source: "local-cluster", clock, log }));
  const context: ControllerContext = { client, collections: opened, events, clock, log, suffix: randomSuffix };
  for (const run of [runScheduler, runEndpointSlices, runReplicaSets, runDeployments, runDaemonSets, runStatefulSets, runJobs]) stack.use(run(context));
  await installSystem(client, options.dnsUpstream);
  await proxy.sync();
  await untilReady(opened, clock);
  onProgress("ready");
  return {
    kubeconfigPath,
    client,
    nodes: plans.map((plan, index) => ({
      name: plan.name,
      namespacePath: networks[index]?.namespacePath ?? "",
      podCidrs: plan.pods.map(({ cidr }) => cidr),
      addresses: plan.underlay.map(({ ip }) => ip),
    })),
    underlay: { namespacePath: underlay.namespacePath, bridge: underlay.bridge },
    outside: { namespacePath: outside.namespacePath, addresses: outside.addresses },
    machine,
    exec: (pod, argv, execOptions) => finished(execIn(kubelets, opened, pod, argv), execOptions),
    spawnIn: (pod, argv) => execIn(kubelets, opened, pod, argv),
    logs: async (pod) => {
      const container = findWorker(kubelets, opened.pods, pod.namespace, pod.name).container(pod.container).spec.name;
      const request = { namespace: pod.namespace, pod: pod.name, container, follow: false, previous: false, timestamps: false };
      const chunks: Uint8Array[] = [];
      for await (const chunk of gateway.logs(request, { signal: AbortSignal.timeout(logTimeoutMs) })) chunks.push(chunk);
      return Buffer.concat(chunks).toString("utf8");
    },
    signal: (pod, signal) => {
      const run = runningContainer(kubelets, opened, pod);
      if (!run.process.signal(signal)) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", `the program of pod ${pod.namespace}/${pod.name} has ended`);
    },
    capture: (where, onPacket) => {
      const index = plans.findIndex((plan) => plan.name === where);
      const [path, device] = where === "underlay" ? [underlay.namespacePath, underlay.bridge] : [networks[index]?.namespacePath, "eth0"];
      if (path === undefined) throw new MeshError("LOCAL_CLUSTER_NO_SUCH_NODE", `there is no node "${where}" to capture on`);
      using namespace = openNamespace(path);
      return capturePackets(namespace, device, onPacket, { clock });
    },
    runOutside: (argv, { stdin, timeoutMs, signal }) =>
      runCommand(["setpriv", "--pdeathsig=KILL", "nsenter", `--net=${outside.namespacePath}`, ...argv], { stdin, timeoutMs, signal }),
    spawnOutside: (argv) => {
      const child = startProcess(["setpriv", "--pdeathsig=KILL", "nsenter", `--net=${outside.namespacePath}`, ...argv]);
      if (child.pid !== undefined) ledger.recordProcess(child.pid);
      outsideProcesses.add(child);
      const forget = (): void => void outsideProcesses.delete(child);
      child.exit.then(forget, forget);
      return child;
    },
  };
}

const dnsProgram = join(dirname(fileURLToPath(import.meta.url)), "dns", "main.js");

/** Pods reach the API through its service address, which is translated to this listener. */
async function listenInUnderlay(path: string, families: readonly Family[], onConnection: (socket: Socket) => void, stack: AsyncDisposableStack): Promise<void> {
  const network = stack.use(linuxPodNetwork(stack.use(openNamespace(path))));
  for (const family of families) {
    await network.listen({
      host: apiServerUnderlayAddress[family],
      port: apiServerUnderlayPort,
      mark: 0,
      reusePort: false,
      transparent: false,
      backlog: apiBacklog,
      onConnection,
    });
  }
}

/** The last step back: whatever the ledger still names, and then the ledger. */
async function removeRecorded(stateDir: string, ledger: Ledger): Promise<void> {
  for (const name of readLedger(stateDir)?.namespaces ?? []) await deleteNamespace(name);
  rmSync(join(stateDir, "kubeconfig"), { force: true });
  ledger.close();
}

function execIn(kubelets: readonly Kubelet[], collections: ReturnType<typeof openCollections>, pod: PodReference, argv: readonly string[]): ExecProcess {
  return runningContainer(kubelets, collections, pod).process.exec(argv);
}

function runningContainer(kubelets: readonly Kubelet[], { pods }: ReturnType<typeof openCollections>, pod: PodReference): ContainerRun {
  const run = findWorker(kubelets, pods, pod.namespace, pod.name).container(pod.container).running;
  if (run === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", `no container of pod ${pod.namespace}/${pod.name} is running by that name`);
  return run;
}

/** Collects a process's output to its end. Throws LOCAL_CLUSTER_EXEC_TIMEOUT, or the signal's reason. */
async function finished(child: ExecProcess, { stdin, timeoutMs, signal }: ExecOptions): Promise<CommandResult> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const limited = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  const collect = async (stream: NodeJS.ReadableStream): Promise<string> => {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of stream) {
      const bytes = Buffer.from(chunk);
      if (length < maxCommandOutputBytes) chunks.push(bytes);
      length += bytes.length;
    }
    return Buffer.concat(chunks).toString("utf8");
  };
  limited.addEventListener("abort", child.kill, { once: true });
  if (limited.aborted) child.kill();
  child.stdin.end(stdin);
  try {
    const [{ code }, stdout, stderr] = await Promise.all([child.exit, collect(child.stdout), collect(child.stderr)]);
    signal?.throwIfAborted();
    if (timeout.aborted) throw new MeshError("LOCAL_CLUSTER_EXEC_TIMEOUT", `the command did not end within ${timeoutMs} ms`, { details: { stdout, stderr } });
    return { code, stdout, stderr };
  } finally {
    limited.removeEventListener("abort", child.kill);
  }
}

/** Waits for the DNS to have a ready endpoint, which takes everything else working. Throws LOCAL_CLUSTER_NOT_READY. */
async function untilReady({ endpointSlices, pods }: ReturnType<typeof openCollections>, clock: Clock): Promise<void> {
  const deadline = clock.monotonic() + readyTimeoutMs;
  const { signal } = new AbortController();
  const isReady = (): boolean =>
    [...endpointSlices.list()].some(
      ({ metadata, endpoints = [] }) =>
        metadata.namespace === "kube-system" &&
        metadata.labels?.["kubernetes.io/service-name"] === "kube-dns" &&
        endpoints.some(({ conditions }) => conditions?.ready === true),
    );
  while (!isReady()) {
    if (clock.monotonic() > deadline) {
      const states = [...pods.list()].map(
        (pod) =>
          `${pod.metadata.namespace}/${pod.metadata.name}: ${pod.status?.phase ?? "unscheduled"} ${JSON.stringify(pod.status?.containerStatuses?.[0]?.state ?? {})}`,
      );
      throw new MeshError(
        "LOCAL_CLUSTER_NOT_READY",
        `the cluster's DNS did not become ready in ${readyTimeoutMs} ms (${states.join("; ") || "it has no pod"})`,
      );
    }
    await clock.sleep(readyPollMs, { signal });
  }
}

function randomSuffix(): string {
  return Array.from({ length: 5 }, () => revisionAlphabet.charAt(randomInt(revisionAlphabet.length))).join("");
}
