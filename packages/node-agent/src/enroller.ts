/**
 * Enrols one pod and lets it go again, step by step; every step may be repeated (ztunnel contract 7.9).
 * In:  namespace → ztunnel → rules → probes → proof → annotation "enabled". Rules stand whatever fails beside them: closed, never open.
 * Out: annotation "pending" (peers stop tunnelling) → no capture → probes → a moment for the peers to learn of it → ztunnel → rules →
 *      no annotation. An agent that dies in between leaves "pending" behind, from which the next one goes on.
 */
import { isDeepStrictEqual } from "node:util";
import { type KubeClient, type Pod, resources } from "@fairway/kube";
import { type NetworkNamespace, sameNamespace } from "@fairway/linux";
import type { ZdsWorkload } from "@fairway/protocol";
import { type Clock, errorCode, type Logger, MeshError } from "@fairway/runtime";
import { type CaptureOptions, redirectionAnnotation } from "./enrolment.ts";
import type { HostProbes } from "./host-probes.ts";
import type { AgentMetrics } from "./metrics.ts";
import type { RuleOptions } from "./rules.ts";
import type { PodRedirection, RulesFingerprint } from "./rules-apply.ts";
import type { SnapshotPod, ZdsServer } from "./zds-server.ts";

/**
 * How long ztunnel goes on serving a pod that leaves: tunnels that peers open before they learn of the change are answered. A change is
 * known everywhere in well under a second; a peer that learns later than this is refused until it does.
 */
export const peersLearnMs = 1_500;

type Redirection = "enabled" | "pending";
export type Step = "namespace" | "rules" | "ztunnel" | "probes" | "proof" | "annotation";

export interface EnrollerOptions {
  readonly client: Pick<KubeClient, "mergePatch">;
  readonly zds: () => Pick<ZdsServer, "add" | "remove">;
  readonly probes: Pick<HostProbes, "set" | "remove">;
  readonly redirection: PodRedirection;
  /** Rejects when the pod is not captured as its rules want it. */
  readonly prove: (namespace: NetworkNamespace, options: { readonly rules: RuleOptions; readonly signal: AbortSignal }) => Promise<void>;
  /** The namespaces of running pods, by UID. */
  readonly find: (uids: ReadonlySet<string>) => ReadonlyMap<string, NetworkNamespace>;
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly clock: Pick<Clock, "monotonic">;
  readonly metrics: Pick<AgentMetrics, "failures" | "repairs">;
  readonly log: Logger;
}

interface Enrolled {
  readonly uid: string;
  readonly key: string;
  readonly workload: ZdsWorkload;
  namespace: NetworkNamespace | undefined;
  ips: readonly string[];
  rules: RuleOptions | undefined;
  fingerprint: RulesFingerprint | undefined;
  /** ztunnel said yes to this namespace. */
  served: boolean;
  proven: boolean;
  /** An agent before this one enrolled it: ztunnel may well be serving it already. */
  adopted: boolean;
  /** It is being let go: until then (by the monotonic clock) its tunnels are served. */
  servedUntil: number | undefined;
}

export class Enroller implements Disposable {
  readonly #options: EnrollerOptions;
  readonly #pods = new Map<string, Enrolled>();

  constructor(options: EnrollerOptions) {
    this.#options = options;
  }

  get enrolled(): number {
    return [...this.#pods.values()].filter(({ proven }) => proven).length;
  }

  get pending(): number {
    return this.#pods.size - this.enrolled;
  }

  has(uid: string): boolean {
    return this.#pods.has(uid);
  }

  /** UIDs of the pods known under `namespace/name`; more than one while a pod of the same name replaces another. */
  uidsOf(key: string): readonly string[] {
    return [...this.#pods.values()].filter((pod) => pod.key === key).map(({ uid }) => uid);
  }

  keys(): readonly string[] {
    return [...this.#pods.values()].map(({ key }) => key);
  }

  unprovenKeys(): readonly string[] {
    return [...this.#pods.values()].filter(({ proven }) => !proven).map(({ key }) => key);
  }

  /** What a ztunnel that connects now must serve. */
  *snapshot(): Iterable<SnapshotPod> {
    for (const { uid, workload, namespace, adopted } of this.#pods.values()) {
      if (namespace !== undefined || adopted) yield { uid, workload, namespace };
    }
  }

  /** Takes over pods that an agent before this one enrolled, before any ztunnel asks: none of them may miss from its snapshot. */
  adopt(pods: readonly Pod[]): void {
    const namespaces = this.#options.find(new Set(pods.map(uidOf)));
    for (const pod of pods) {
      const enrolled = this.#enrolledFor(pod);
      enrolled.adopted = true;
      enrolled.namespace = namespaces.get(enrolled.uid);
    }
  }

  /**
   * Brings a pod in, or as far as it goes. `found` is its namespace where the caller knows it; the enroller takes it over.
   * Throws the error of the step that failed; what stands, stands.
   */
  async enrol(
    pod: Pod,
    capture: CaptureOptions,
    options: { readonly found?: NetworkNamespace; readonly ips?: readonly string[]; readonly signal: AbortSignal },
  ): Promise<void> {
    const { found, signal } = options;
    const enrolled = this.#enrolledFor(pod);
    enrolled.servedUntil = undefined;
    const ips = options.ips ?? ipsOf(pod);
    if (ips.length > 0) enrolled.ips = ips;
    const namespace = await this.#step("namespace", async () => this.#settle(enrolled, found));
    const { probeIpv4, probeIpv6 } = this.#options;
    const rules = { ...capture, probeIpv4, probeIpv6 };
    // ztunnel listens before the first packet is sent its way: what the pod does meanwhile goes on without a break. The rules follow
    // whatever ztunnel said: closed, not open.
    const served = await this.#serve(enrolled, namespace, rules, signal).then(
      () => undefined,
      (thrown: unknown) => ({ thrown }),
    );
    signal.throwIfAborted();
    await this.#step("rules", () => this.#redirect(enrolled, namespace, rules, signal));
    try {
      if (served !== undefined) throw served.thrown;
      await this.#step("probes", () => this.#options.probes.set(enrolled.uid, enrolled.ips, signal));
      if (!enrolled.proven) await this.#step("proof", () => this.#options.prove(namespace, { rules, signal }));
    } catch (thrown) {
      signal.throwIfAborted();
      enrolled.proven = false;
      // The step's own error is the one to tell.
      await this.#annotate(pod, "pending").catch((failure: unknown) => {
        this.#options.log.warn("a pod could not be marked as pending", { pod: enrolled.key, error: MeshError.from(failure, "NODE_AGENT_ANNOTATION_FAILED") });
      });
      throw thrown;
    }
    if (!enrolled.proven) this.#options.log.info("pod enrolled", { pod: enrolled.key, uid: enrolled.uid });
    enrolled.proven = true;
    enrolled.adopted = false;
    await this.#step("annotation", () => this.#annotate(pod, "enabled"));
  }

  /**
   * Lets a pod go that still exists, in two calls: returns after how many milliseconds to call again, 0 when it is done. Nobody waits in
   * here, so that many pods leave together, and one that is wanted again meanwhile is enrolled. `running` says whether the pod still has
   * a network to clean.
   */
  async release(pod: Pod, { running, signal }: { readonly running: boolean; readonly signal: AbortSignal }): Promise<number> {
    const enrolled = this.#enrolledFor(pod);
    const namespace = running ? this.#namespaceOf(enrolled) : undefined;
    if (enrolled.servedUntil === undefined) {
      // Peers tunnel to nobody else.
      const announced = redirectionOf(pod) === "enabled" || enrolled.proven;
      if (announced) await this.#step("annotation", () => this.#annotate(pod, "pending"));
      Object.assign(enrolled, { rules: undefined, fingerprint: undefined });
      if (namespace !== undefined) await this.#step("rules", () => this.#options.redirection.uncapture(namespace, signal));
      await this.#step("probes", () => this.#options.probes.remove(enrolled.uid, signal));
      enrolled.proven = false;
      enrolled.servedUntil = this.#options.clock.monotonic() + (announced && running ? peersLearnMs : 0);
    }
    const left = enrolled.servedUntil - this.#options.clock.monotonic();
    if (left > 0) return left;
    await this.#options.zds().remove(enrolled.uid);
    if (namespace !== undefined) await this.#step("rules", () => this.#options.redirection.remove(namespace, signal));
    await this.#step("annotation", () => this.#annotate(pod, undefined));
    this.#drop(enrolled);
    this.#options.log.info("pod released", { pod: enrolled.key, uid: enrolled.uid });
    return 0;
  }

  /** Lets a pod go that is gone. */
  async forget(uid: string, signal: AbortSignal): Promise<void> {
    const enrolled = this.#pods.get(uid);
    if (enrolled === undefined) return;
    await this.#step("probes", () => this.#options.probes.remove(uid, signal));
    await this.#options.zds().remove(uid);
    this.#drop(enrolled);
  }

  /** Puts rules back that somebody changed. */
  async repair(uid: string, signal: AbortSignal): Promise<void> {
    const enrolled = this.#pods.get(uid);
    if (enrolled?.namespace === undefined || enrolled.rules === undefined || !enrolled.proven) return;
    const { namespace, rules, key } = enrolled;
    if ((await this.#options.redirection.inspect(namespace, signal)) === enrolled.fingerprint) return;
    this.#options.metrics.repairs.inc();
    this.#options.log.warn("the redirection rules of a pod were changed by somebody else; putting them back", { pod: key, uid });
    enrolled.fingerprint = await this.#step("rules", () => this.#options.redirection.apply(namespace, rules, signal));
  }

  /** Lets go of the namespaces; rules and annotations stay, so that the next agent takes over. */
  [Symbol.dispose](): void {
    for (const enrolled of [...this.#pods.values()]) this.#drop(enrolled);
  }

  #namespaceOf(enrolled: Enrolled): NetworkNamespace | undefined {
    enrolled.namespace ??= this.#options.find(new Set([enrolled.uid])).get(enrolled.uid);
    return enrolled.namespace;
  }

  #enrolledFor(pod: Pod): Enrolled {
    const uid = uidOf(pod);
    const known = this.#pods.get(uid);
    if (known !== undefined) return known;
    const { name, namespace = "" } = pod.metadata;
    const created: Enrolled = {
      uid,
      key: `${namespace}/${name}`,
      workload: { name, namespace, serviceAccount: pod.spec?.serviceAccountName ?? "default" },
      namespace: undefined,
      ips: [],
      rules: undefined,
      fingerprint: undefined,
      served: false,
      proven: false,
      adopted: false,
      servedUntil: undefined,
    };
    this.#pods.set(uid, created);
    return created;
  }

  /** The pod's namespace: given, known, or found. A new one (the sandbox was made again) starts everything over. */
  #settle(enrolled: Enrolled, given: NetworkNamespace | undefined): NetworkNamespace {
    const known = enrolled.namespace;
    const namespace = given ?? this.#namespaceOf(enrolled);
    if (namespace === undefined) {
      throw new MeshError(
        "NODE_AGENT_NAMESPACE_NOT_FOUND",
        `no process of pod ${enrolled.key} was found in a network namespace of its own; is the host's /proc mounted?`,
      );
    }
    if (known !== undefined && known !== namespace) {
      if (!sameNamespace(known, namespace)) Object.assign(enrolled, { rules: undefined, fingerprint: undefined, served: false, proven: false, adopted: false });
      known[Symbol.dispose]();
    }
    enrolled.namespace = namespace;
    return namespace;
  }

  async #redirect(enrolled: Enrolled, namespace: NetworkNamespace, rules: RuleOptions, signal: AbortSignal): Promise<void> {
    if (enrolled.fingerprint !== undefined && isDeepStrictEqual(enrolled.rules, rules)) return;
    enrolled.fingerprint = await this.#options.redirection.apply(namespace, rules, signal);
    enrolled.rules = rules;
    // Proven was what stood before.
    enrolled.proven = false;
  }

  async #serve(enrolled: Enrolled, namespace: NetworkNamespace, rules: RuleOptions, signal: AbortSignal): Promise<void> {
    if (enrolled.served) return;
    // After a restart of the agent ztunnel goes on serving: a pod that is proven now needs no handing over, and no moment as "pending".
    if (enrolled.adopted && (await this.#isProven(namespace, rules, signal))) {
      enrolled.served = true;
      return;
    }
    await this.#step("ztunnel", () => this.#options.zds().add(enrolled.uid, enrolled.workload, namespace));
    enrolled.served = true;
  }

  async #isProven(namespace: NetworkNamespace, rules: RuleOptions, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#options.prove(namespace, { rules, signal });
      return true;
    } catch {
      signal.throwIfAborted();
      return false;
    }
  }

  /** Through pods/status, which needs fewer rights than pods. A pod that is gone needs no annotation. */
  async #annotate(pod: Pod, redirection: Redirection | undefined): Promise<void> {
    if (redirectionOf(pod) === redirection) return;
    const { name, namespace, uid } = pod.metadata;
    // The UID guards against a new pod of the same name.
    const patch = { metadata: { uid, annotations: { [redirectionAnnotation]: redirection ?? null } } };
    try {
      await this.#options.client.mergePatch(resources.pods, name, namespace, patch, { subresource: "status" });
    } catch (thrown) {
      if (!["KUBE_NOT_FOUND", "KUBE_CONFLICT"].includes(errorCode(thrown) ?? "")) throw thrown;
    }
  }

  async #step<T>(step: Step, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (thrown) {
      this.#options.metrics.failures.inc({ step });
      throw thrown;
    }
  }

  #drop(enrolled: Enrolled): void {
    this.#pods.delete(enrolled.uid);
    enrolled.namespace?.[Symbol.dispose]();
  }
}

export function uidOf(pod: Pod): string {
  return pod.metadata.uid ?? "";
}

export function redirectionOf(pod: Pod): string | undefined {
  return pod.metadata.annotations?.[redirectionAnnotation];
}

function ipsOf(pod: Pod): readonly string[] {
  return (pod.status?.podIPs ?? []).map(({ ip }) => ip).concat(pod.status?.podIPs === undefined && pod.status?.podIP !== undefined ? [pod.status.podIP] : []);
}
