import { MutableCollection, type Namespace, type Pod } from "@fairway/kube";
import { currentNamespace, type NetworkNamespace } from "@fairway/linux";
import { createRegistry, errorCode, ManualClock, MeshError, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { Enroller, peersLearnMs } from "./enroller.ts";
import { createAgentMetrics } from "./metrics.ts";
import { Pods } from "./pods.ts";

const redirection = "ambient.istio.io/redirection";
const ambient = { "istio.io/dataplane-mode": "ambient" };

/** Everything around the reconciler, each part saying what it was asked. */
class World {
  readonly said: string[] = [];
  readonly clock = new ManualClock();
  readonly pods = new MutableCollection<Pod>(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  readonly namespaces = new MutableCollection<Namespace>(({ metadata }) => metadata.name);
  readonly failing = new Set<"find" | "rules" | "uncapture" | "ztunnel" | "probes" | "proof" | "annotation">();
  /** What the kernel holds; tests change it behind the agent's back. */
  fingerprint = "as applied";
  readonly #probed = new Map<string, string>();
  readonly enroller: Enroller;
  readonly reconciler: Pods;
  opened = 0;

  constructor(t: ExecutionContext) {
    const metrics = createAgentMetrics(createRegistry(), { enrolled: () => 0, pending: () => 0, ztunnels: () => 0, resyncAgeSeconds: () => 0 });
    this.enroller = new Enroller({
      client: {
        mergePatch: async (_type, name, namespace, patch, options) => {
          this.#may("annotation");
          const { uid, annotations } = (patch as { metadata: { uid: string; annotations: Record<string, string | null> } }).metadata;
          const value = annotations[redirection] ?? null;
          this.said.push(`annotate ${value ?? "nothing"} through ${options?.subresource}`);
          const pod = this.pods.get(`${namespace}/${name}`);
          if (pod === undefined || pod.metadata.uid !== uid) throw new MeshError("KUBE_NOT_FOUND", "gone");
          const { [redirection]: _old, ...others } = pod.metadata.annotations ?? {};
          this.pods.set({ ...pod, metadata: { ...pod.metadata, annotations: value === null ? others : { ...others, [redirection]: value } } });
          return pod as never;
        },
      },
      zds: () => ({
        add: async (uid, workload) => {
          this.#may("ztunnel");
          this.said.push(`add ${uid} ${workload.serviceAccount}`);
        },
        remove: async (uid) => void this.said.push(`del ${uid}`),
      }),
      probes: {
        set: async (uid, ips) => {
          this.#may("probes");
          if (this.#probed.get(uid) === ips.join("+")) return;
          this.#probed.set(uid, ips.join("+"));
          this.said.push(`probes ${uid} ${ips.join("+")}`);
        },
        remove: async (uid) => {
          this.#probed.delete(uid);
          this.said.push(`no probes ${uid}`);
        },
      },
      redirection: {
        apply: async (_namespace, rules) => {
          this.#may("rules");
          this.said.push(rules.bypassInbound ? "rules without inbound" : "rules");
          this.fingerprint = "as applied";
          return "as applied";
        },
        inspect: async () => this.fingerprint,
        uncapture: async () => {
          this.#may("uncapture");
          this.said.push("no capture");
        },
        remove: async () => void this.said.push("no rules"),
      },
      prove: async () => {
        this.#may("proof");
        this.said.push("proof");
      },
      find: (uids) => {
        if (this.failing.has("find")) return new Map();
        return new Map([...uids].map((uid) => [uid, this.open()]));
      },
      probeIpv4: "169.254.7.127",
      probeIpv6: "fd16::1",
      clock: this.clock,
      metrics,
      log: silentLogger,
    });
    this.reconciler = new Pods({
      pods: this.pods,
      namespaces: this.namespaces,
      enroller: this.enroller,
      enrolment: { excludeNamespaces: ["kube-system"], systemNamespace: "fairway-system", dnsCapture: false },
      clock: this.clock,
      log: silentLogger,
      random: () => 0.5,
    });
    t.teardown(async () => {
      await this.reconciler[Symbol.asyncDispose]();
      this.enroller[Symbol.dispose]();
      if (this.opened !== 0) throw new Error(`${this.opened} namespaces were opened and not closed`);
    });
  }

  open(): NetworkNamespace {
    const namespace = currentNamespace();
    this.opened += 1;
    let open = true;
    return {
      fd: namespace.fd,
      inode: namespace.inode,
      device: namespace.device,
      [Symbol.dispose]: () => {
        if (open) this.opened -= 1;
        open = false;
        namespace[Symbol.dispose]();
      },
    };
  }

  /** What was said since the last look, once everything is quiet. */
  async heard(): Promise<string[]> {
    await this.reconciler.idle();
    return this.said.splice(0);
  }

  /** The CNI plugin asks for a pod. */
  start(starting: Pod, ip: string): Promise<"enrolled" | "left-out"> {
    const { signal } = new AbortController();
    return this.reconciler.enrolNew({ pod: starting, namespace: namespace(), ips: [ip], open: () => this.open() }, { signal });
  }

  annotation(key = "shop/web"): string | undefined {
    return this.pods.get(key)?.metadata.annotations?.[redirection];
  }

  #may(step: "rules" | "uncapture" | "ztunnel" | "probes" | "proof" | "annotation"): void {
    if (this.failing.has(step)) throw new MeshError(`TEST_${step.toUpperCase()}`, `${step} is to fail`);
  }
}

function pod(
  overrides: { uid?: string; labels?: Record<string, string>; annotations?: Record<string, string>; phase?: string; ip?: string | undefined } = {},
): Pod {
  const { uid = "uid-1", labels = ambient, annotations = {}, phase = "Running" } = overrides;
  const ip = "ip" in overrides ? overrides.ip : "10.0.0.1";
  return {
    metadata: { name: "web", namespace: "shop", uid, labels, annotations },
    spec: { serviceAccountName: "web" },
    status: { phase, ...(ip === undefined ? {} : { podIP: ip, podIPs: [{ ip }] }) },
  };
}

const namespace = (labels: Record<string, string> = {}): Namespace => ({ metadata: { name: "shop", labels } });
const leaving = ["annotate pending through status", "no capture", "no probes uid-1"];
const left = ["del uid-1", "no rules", "annotate nothing through status"];
const enrolled = ["add uid-1 web", "rules", "probes uid-1 10.0.0.1", "proof", "annotate enabled through status"];

test("a running pod is enrolled in order: ztunnel, rules, probes, proof, and only then the annotation", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  t.deepEqual(await world.heard(), enrolled);
  t.is(world.annotation(), "enabled");
  t.is(world.enroller.enrolled, 1);
  t.deepEqual(
    [...world.enroller.snapshot()].map(({ uid }) => uid),
    ["uid-1"],
  );
});

test("labelling a namespace enrols its pods, taking the label away releases them in order", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ labels: {} }));
  world.namespaces.set(namespace());
  world.reconciler.start();
  t.deepEqual(await world.heard(), []);
  world.namespaces.set(namespace(ambient));
  t.deepEqual(await world.heard(), enrolled);
  world.namespaces.set(namespace());
  t.deepEqual(await world.heard(), leaving);
  t.is([...world.enroller.snapshot()].length, 1, "a ztunnel that connects now still serves the tunnels of peers that have not heard");
  await world.clock.advance(peersLearnMs - 1);
  t.deepEqual(await world.heard(), []);
  await world.clock.advance(1);
  t.deepEqual(await world.heard(), left);
  t.is(world.annotation(), undefined);
  t.is(world.enroller.enrolled + world.enroller.pending, 0);
});

test("pods that leave wait for their peers together, and hold up nobody else", async (t) => {
  const world = new World(t);
  const names = Array.from({ length: 12 }, (_, index) => `uid-${index}`);
  const named = (uid: string, labels: Record<string, string>, annotations: Record<string, string> = {}): Pod => {
    const own = pod({ uid, labels, annotations });
    return { ...own, metadata: { ...own.metadata, name: uid } };
  };
  world.namespaces.set(namespace());
  for (const uid of names) world.pods.set(named(uid, ambient));
  world.reconciler.start();
  await world.heard();
  for (const uid of names) world.pods.set(named(uid, {}, { [redirection]: "enabled" }));
  t.is((await world.heard()).filter((said) => said === "no capture").length, names.length);
  world.pods.set(pod({ uid: "uid-new" }));
  t.true((await world.heard()).includes("add uid-new web"));
  await world.clock.advance(peersLearnMs);
  t.is((await world.heard()).filter((said) => said.startsWith("del ")).length, names.length);
  t.is(world.enroller.enrolled, 1);
});

test("a pod that is wanted again while it leaves is captured again, and ztunnel never let it go", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ labels: {} }));
  world.namespaces.set(namespace(ambient));
  world.reconciler.start();
  await world.heard();
  world.namespaces.set(namespace());
  await world.heard();
  await world.clock.advance(peersLearnMs / 2);
  world.namespaces.set(namespace(ambient));
  t.deepEqual(await world.heard(), ["rules", "probes uid-1 10.0.0.1", "proof", "annotate enabled through status"]);
  await world.clock.advance(peersLearnMs);
  t.deepEqual(await world.heard(), []);
  t.is(world.annotation(), "enabled");
});

test("an agent that dies while a pod leaves is followed by one that finishes at once", async (t) => {
  const world = new World(t);
  world.namespaces.set(namespace());
  world.pods.set(pod({ labels: {}, annotations: { [redirection]: "pending" } }));
  world.reconciler.adopt();
  world.reconciler.start();
  t.deepEqual(await world.heard(), [...leaving.slice(1), ...left]);
  t.is(world.annotation(), undefined);
});

test("a step that fails while a pod leaves is tried again, and peers still have their time", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ labels: {} }));
  world.namespaces.set(namespace(ambient));
  world.reconciler.start();
  await world.heard();
  world.failing.add("uncapture");
  world.namespaces.set(namespace());
  await world.heard();
  t.is(world.annotation(), "pending");
  world.failing.delete("uncapture");
  await world.clock.advance(5);
  t.deepEqual(await world.heard(), leaving.slice(1));
  await world.clock.advance(peersLearnMs);
  t.deepEqual(await world.heard(), left);
});

test("a ztunnel that is away leaves the rules in place and the pod pending, until it comes", async (t) => {
  const world = new World(t);
  world.failing.add("ztunnel");
  world.pods.set(pod());
  world.reconciler.start();
  t.deepEqual((await world.heard()).slice(0, 2), ["rules", "annotate pending through status"]);
  t.is(world.annotation(), "pending");
  t.is(world.enroller.pending, 1);
  t.is([...world.enroller.snapshot()].length, 1, "a ztunnel that connects now learns of the pod");
  world.failing.delete("ztunnel");
  world.reconciler.ztunnelReady();
  t.deepEqual(await world.heard(), ["add uid-1 web", ...enrolled.slice(2)]);
  t.is(world.annotation(), "enabled");
});

test("failures are retried with growing delays, without a limit", async (t) => {
  const world = new World(t);
  world.failing.add("ztunnel");
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  await world.clock.advance(60_000);
  await world.heard();
  world.failing.delete("ztunnel");
  await world.clock.advance(6_000);
  t.is((await world.heard()).at(-1), "annotate enabled through status");
});

test("a pod that is not captured after all is pending, whatever ztunnel said", async (t) => {
  const world = new World(t);
  world.failing.add("proof");
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  t.is(world.annotation(), "pending");
  t.is(world.enroller.enrolled, 0);
});

test("a pod without a network is left to the CNI plugin", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ phase: "Pending", ip: undefined }));
  world.reconciler.start();
  t.deepEqual(await world.heard(), []);
  const started = world.pods.get("shop/web");
  if (started === undefined) return t.fail();
  t.is(await world.start(started, "10.0.0.1"), "enrolled");
  return t.deepEqual(await world.heard(), enrolled);
});

test("the plugin's pod that cannot be enrolled leaves nothing behind, and may come again with a new namespace", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ phase: "Pending", ip: undefined }));
  world.reconciler.start();
  const starting = world.pods.get("shop/web");
  if (starting === undefined) return t.fail();
  world.failing.add("ztunnel");
  t.is(errorCode(await t.throwsAsync(world.start(starting, "10.0.0.1"))), "TEST_ZTUNNEL");
  await world.heard();
  t.is([...world.enroller.snapshot()].length, 0);
  t.is(world.opened, 0);
  world.failing.delete("ztunnel");
  t.is(await world.start(starting, "10.0.0.2"), "enrolled");
  return t.true((await world.heard()).includes("probes uid-1 10.0.0.2"));
});

test("a pod that is none of ours starts without anything", async (t) => {
  const world = new World(t);
  const ours = pod({ labels: {} });
  t.is(await world.start(ours, "10.0.0.1"), "left-out");
  t.deepEqual(await world.heard(), []);
});

test("a pod that is deleted is forgotten everywhere; a new one of its name is another pod", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  world.pods.set(pod({ uid: "uid-2", ip: "10.0.0.9" }));
  t.deepEqual(await world.heard(), [
    "no probes uid-1",
    "del uid-1",
    "add uid-2 web",
    "rules",
    "probes uid-2 10.0.0.9",
    "proof",
    "annotate enabled through status",
  ]);
  world.pods.delete("shop/web");
  t.deepEqual(await world.heard(), ["no probes uid-2", "del uid-2"]);
});

test("a job that is done is released without touching its network", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  world.pods.set(pod({ phase: "Succeeded", annotations: { [redirection]: "enabled" } }));
  t.deepEqual(await world.heard(), ["annotate pending through status", "no probes uid-1", "del uid-1", "annotate nothing through status"], "nobody waits");
});

test("an agent that restarts finds its pods: in the snapshot at once, proven without a moment as pending", async (t) => {
  const world = new World(t);
  world.pods.set(pod({ annotations: { [redirection]: "enabled" } }));
  // ztunnel serves the pod and has not reconnected yet.
  world.failing.add("ztunnel");
  world.reconciler.adopt();
  t.deepEqual(
    [...world.enroller.snapshot()].map(({ uid, namespace: known }) => [uid, known !== undefined]),
    [["uid-1", true]],
  );
  world.reconciler.start();
  t.deepEqual(await world.heard(), ["proof", "rules", "probes uid-1 10.0.0.1", "proof"]);
  t.is(world.annotation(), "enabled");
});

test("an adopted pod whose namespace is not found is kept, not lost", async (t) => {
  const world = new World(t);
  world.failing.add("find");
  world.pods.set(pod({ annotations: { [redirection]: "enabled" } }));
  world.reconciler.adopt();
  t.deepEqual(
    [...world.enroller.snapshot()].map(({ uid, namespace: known }) => [uid, known]),
    [["uid-1", undefined]],
  );
});

test("a pod that should no longer be enrolled when the agent starts is released", async (t) => {
  const world = new World(t);
  world.namespaces.set(namespace());
  world.pods.set(pod({ labels: {}, annotations: { [redirection]: "enabled" } }));
  world.reconciler.adopt();
  t.is([...world.enroller.snapshot()].length, 0);
  world.reconciler.start();
  t.deepEqual(await world.heard(), leaving);
  await world.clock.advance(peersLearnMs);
  t.deepEqual(await world.heard(), left);
});

test("rules that somebody changed are put back, once", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  await world.clock.advance(30_000);
  t.deepEqual(await world.heard(), []);
  world.fingerprint = "changed by somebody";
  await world.clock.advance(30_000);
  await world.clock.advance(30_000);
  t.deepEqual(await world.heard(), ["rules"]);
  t.true(world.reconciler.resyncAgeSeconds <= 30);
});

test("an annotation that somebody removed comes back, and a new capture wish changes the rules and is proven again", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  world.pods.set(pod());
  t.deepEqual(await world.heard(), ["annotate enabled through status"]);
  world.pods.set(pod({ annotations: { [redirection]: "enabled", "ambient.istio.io/bypass-inbound-capture": "true" } }));
  t.deepEqual(await world.heard(), ["rules without inbound", "proof"]);
});

test("an annotation that cannot be written is tried again; the pod is enrolled meanwhile", async (t) => {
  const world = new World(t);
  world.failing.add("annotation");
  world.pods.set(pod());
  world.reconciler.start();
  t.deepEqual(await world.heard(), enrolled.slice(0, 4));
  t.is(world.enroller.enrolled, 1);
  world.failing.delete("annotation");
  await world.clock.advance(6_000);
  await world.heard();
  t.is(world.annotation(), "enabled");
});

test("an uninstall releases every pod", async (t) => {
  const world = new World(t);
  world.pods.set(pod());
  world.reconciler.start();
  await world.heard();
  const releasing = world.reconciler.releaseAll(new AbortController().signal);
  while (!world.said.includes("no probes uid-1")) await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  await world.clock.advance(peersLearnMs);
  await releasing;
  t.deepEqual(await world.heard(), [...leaving, ...left], "and it is not enrolled again, whatever its label says");
  t.is(world.annotation(), undefined);
});
