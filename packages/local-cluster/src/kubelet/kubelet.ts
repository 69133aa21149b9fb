/** The kubelet of one node: keeps the node object and its lease, and one worker per pod bound here. */
import { type Collection, type KubeClient, objectKey } from "@fairway/kube";
import { type Clock, errorCode, MeshError, messageOf, TaskGroup } from "@fairway/runtime";
import { isFinished, leases, type NodeObject, nodes, type Pod, pods } from "../resources.ts";
import { EventRecorder } from "./events.ts";
import type { NodeContext } from "./node.ts";
import { PodWorker } from "./pod-worker.ts";

const leaseNamespace = "kube-node-lease";
const leaseSeconds = 40;
const heartbeatMs = 10_000;
/** Removing the object of an ended pod is tried this often before it is left to the next event. */
const removalTries = 5;

export class Kubelet implements AsyncDisposable {
  readonly node: NodeContext;
  readonly #tasks: TaskGroup;
  readonly #events: EventRecorder;
  readonly #workers = new Map<string, PodWorker>();
  #subscription: Disposable | undefined;

  constructor(node: NodeContext) {
    this.node = node;
    this.#tasks = new TaskGroup(node.log);
    this.#events = new EventRecorder({ client: node.client, source: "kubelet", host: node.addresses.name, clock: node.clock, log: node.log });
  }

  /** Registers the node and takes on the pods bound to it. Throws KUBE_… errors. */
  async start(): Promise<void> {
    await registerNode(this.node);
    this.#subscription = this.node.pods.subscribe((batch) => {
      for (const event of batch) {
        if (event.type === "deleted") this.#removed(event.object);
        else this.#seen(event.object);
      }
    });
    for (const pod of this.node.pods.list()) this.#seen(pod);
    this.#tasks.run("node heartbeat", (signal) => this.#heartbeat(signal));
  }

  /** The worker of a pod that runs here. */
  worker(namespace: string, name: string): PodWorker | undefined {
    const pod = this.node.pods.get(`${namespace}/${name}`);
    return pod?.metadata.uid === undefined ? undefined : this.#workers.get(pod.metadata.uid);
  }

  /** Ends every pod here, without touching the API: the cluster is going away. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription?.[Symbol.dispose]();
    await Promise.all([...this.#workers.values()].map((worker) => worker.terminate({ removed: true })));
    await this.#tasks[Symbol.asyncDispose]();
    await this.#events[Symbol.asyncDispose]();
  }

  #seen(pod: Pod): void {
    const { uid, deletionTimestamp } = pod.metadata;
    if (pod.spec.nodeName !== this.node.addresses.name || uid === undefined || this.#tasks.signal.aborted) return;
    const known = this.#workers.get(uid);
    known?.update(pod);
    if (deletionTimestamp !== undefined) {
      if (known !== undefined) this.#tasks.run(`stop of ${objectKey(pod)}`, () => this.#end(known, pod));
      else this.#tasks.run(`removal of ${objectKey(pod)}`, () => this.#removeObject(pod));
      return;
    }
    if (known !== undefined || isFinished(pod)) return;
    const worker = new PodWorker(this.node, pod, this.#events);
    this.#workers.set(uid, worker);
    worker.start();
  }

  #removed(pod: Pod): void {
    const worker = this.#workers.get(pod.metadata.uid ?? "");
    if (worker === undefined) return;
    this.#tasks.run(`stop of ${objectKey(pod)}`, async () => {
      await worker.terminate({ removed: true });
      this.#workers.delete(pod.metadata.uid ?? "");
    });
  }

  async #end(worker: PodWorker, pod: Pod): Promise<void> {
    await worker.terminate({ removed: false });
    await this.#removeObject(pod);
  }

  /** The pod is off the node: its object may go. Only this very pod's; one of the same name cannot exist before. */
  async #removeObject(pod: Pod): Promise<void> {
    const { name, namespace } = pod.metadata;
    for (let tried = 0; tried < removalTries && !this.#tasks.signal.aborted; tried += 1) {
      if (this.node.pods.get(objectKey(pod))?.metadata.uid !== pod.metadata.uid) return;
      try {
        await this.node.client.delete(pods, name, namespace, { gracePeriodSeconds: 0 });
        return;
      } catch (thrown) {
        if (errorCode(thrown) === "KUBE_NOT_FOUND") return;
        this.node.log.warn("pod object could not be removed", { pod: objectKey(pod), error: messageOf(thrown) });
        await this.node.clock.sleep(heartbeatMs / 10, { signal: this.#tasks.signal }).catch(() => undefined);
      }
    }
  }

  async #heartbeat(signal: AbortSignal): Promise<void> {
    const { name } = this.node.addresses;
    while (!signal.aborted) {
      await renewLease(this.node.client, name, this.node.clock).catch((thrown: unknown) => {
        this.node.log.debug("node lease was not renewed", { node: name, error: messageOf(thrown) });
      });
      await this.node.clock.sleep(heartbeatMs, { signal }).catch(() => undefined);
    }
  }
}

async function registerNode({ client, addresses, clock }: NodeContext): Promise<void> {
  const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  const cidrs = addresses.pods.map(({ cidr }) => cidr);
  const node: NodeObject = {
    apiVersion: "v1",
    kind: "Node",
    metadata: {
      name: addresses.name,
      labels: {
        "kubernetes.io/hostname": addresses.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": process.arch === "x64" ? "amd64" : process.arch,
        "topology.kubernetes.io/region": "local",
        "topology.kubernetes.io/zone": `local-${addresses.index}`,
      },
    },
    spec: { ...(cidrs[0] === undefined ? {} : { podCIDR: cidrs[0] }), podCIDRs: cidrs },
  };
  const capacity = { cpu: "8", memory: "16Gi", pods: "250", "ephemeral-storage": "100Gi" };
  const status = {
    addresses: [...addresses.underlay.map(({ ip }) => ({ type: "InternalIP", address: ip })), { type: "Hostname", address: addresses.name }],
    capacity,
    allocatable: capacity,
    conditions: [
      { type: "MemoryPressure", status: "False", reason: "KubeletHasSufficientMemory", lastTransitionTime: now, lastHeartbeatTime: now },
      { type: "DiskPressure", status: "False", reason: "KubeletHasNoDiskPressure", lastTransitionTime: now, lastHeartbeatTime: now },
      { type: "PIDPressure", status: "False", reason: "KubeletHasSufficientPID", lastTransitionTime: now, lastHeartbeatTime: now },
      {
        type: "Ready",
        status: "True",
        reason: "KubeletReady",
        message: "the node is a network namespace of this machine",
        lastTransitionTime: now,
        lastHeartbeatTime: now,
      },
    ],
    nodeInfo: {
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      operatingSystem: "linux",
      osImage: "fairway local cluster",
      kernelVersion: "",
      containerRuntimeVersion: "fairway://0.1.0",
      kubeletVersion: "v1.32.0",
      kubeProxyVersion: "v1.32.0",
      machineID: "",
      systemUUID: "",
      bootID: "",
    },
  };
  await client.create(nodes, node);
  await client.mergePatch(nodes, addresses.name, undefined, { status }, { subresource: "status" });
}

async function renewLease(client: KubeClient, node: string, clock: Clock): Promise<void> {
  const renewTime = new Date(clock.now()).toISOString().replace("Z", "000Z");
  const spec = { holderIdentity: node, leaseDurationSeconds: leaseSeconds, renewTime };
  try {
    await client.mergePatch(leases, node, leaseNamespace, { spec });
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
    await client.create(leases, { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: node, namespace: leaseNamespace }, spec });
  }
}

/** Waits until a pod is known to one of the kubelets. Throws LOCAL_CLUSTER_NO_SUCH_POD. */
export function findWorker(kubelets: readonly Kubelet[], pods: Collection<Pod>, namespace: string, name: string): PodWorker {
  for (const kubelet of kubelets) {
    const worker = kubelet.worker(namespace, name);
    if (worker !== undefined) return worker;
  }
  const known = pods.get(`${namespace}/${name}`);
  const why =
    known === undefined
      ? "there is no such pod"
      : known.spec.nodeName === undefined
        ? "it is not scheduled to a node yet"
        : `node ${known.spec.nodeName} does not run it`;
  throw new MeshError("LOCAL_CLUSTER_NO_SUCH_POD", `cannot reach pod ${namespace}/${name}: ${why}`);
}
