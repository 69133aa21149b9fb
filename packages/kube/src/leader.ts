/** One of several replicas leads at a time, agreed on through a Lease. */
import { type Clock, errorCode, type Logger, MeshError } from "@fairway/runtime";
import type { KubeClient } from "./collection.ts";
import { type Lease, leases } from "./resources/coordination.ts";

export interface LeaderOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  /** Name of the Lease. */
  readonly lease: string;
  /** Ours, unique among the replicas: the pod's name. */
  readonly identity: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Runs while we lead; its signal aborts when leadership is lost. Runs again when it is won again. */
  readonly lead: (signal: AbortSignal) => Promise<void>;
}

/** A lease not renewed for so long may be taken over. */
const leaseMs = 15_000;
/** Leadership is given up when no renewal succeeded for so long: before anybody else may take it. */
const renewDeadlineMs = 10_000;
const retryMs = 2_000;

/** Takes part in the election until `signal` aborts, and then gives the lease back so that the next leader need not wait. */
export async function electLeader(options: LeaderOptions): Promise<void> {
  const { clock, log, signal, lead, lease } = options;
  const observed: Observed = { record: "", at: clock.monotonic() };
  while (!signal.aborted) {
    if ((await tryHold(options, observed)) === "held") {
      log.info("leading", { lease });
      await holdAndLead(options, observed, lead);
      log.info("no longer leading", { lease });
    }
    await clock.sleep(retryMs, { signal }).catch(() => undefined);
  }
}

/** Leases are judged by how long ago we saw them change, never by the clock of whoever wrote them. */
interface Observed {
  record: string;
  at: number;
}

async function holdAndLead(options: LeaderOptions, observed: Observed, lead: LeaderOptions["lead"]): Promise<void> {
  const { clock, log, signal } = options;
  const lost = new AbortController();
  const ending = AbortSignal.any([signal, lost.signal]);
  const leading = lead(ending)
    .catch((thrown: unknown) => {
      if (!ending.aborted) log.error("leading failed", { error: MeshError.from(thrown, "KUBE_UNAVAILABLE") });
    })
    .finally(() => lost.abort(new MeshError("KUBE_CLOSED", "the leader's work ended")));
  let renewedAt = clock.monotonic();
  while (!ending.aborted) {
    await clock.sleep(retryMs, { signal: ending }).catch(() => undefined);
    if (ending.aborted) break;
    const outcome = await tryHold(options, observed);
    if (outcome === "held") renewedAt = clock.monotonic();
    else if (outcome === "taken" || clock.monotonic() - renewedAt >= renewDeadlineMs) {
      lost.abort(new MeshError("KUBE_UNAVAILABLE", `the lease ${options.lease} could not be renewed`));
    }
  }
  await leading;
  await release(options);
}

/** Creates, renews or takes over the lease. `away` when the server did not answer or another was faster. Never throws. */
async function tryHold(options: LeaderOptions, observed: Observed): Promise<"held" | "taken" | "away"> {
  const { client, namespace, lease, identity, clock, log } = options;
  try {
    const current = await client.get(leases, lease, namespace).catch((thrown: unknown) => {
      if (errorCode(thrown) === "KUBE_NOT_FOUND") return undefined;
      throw thrown;
    });
    const now = new Date(clock.now()).toISOString().replace("Z", "000Z");
    const spec = { holderIdentity: identity, leaseDurationSeconds: leaseMs / 1000, renewTime: now };
    if (current === undefined) {
      await client.create(leases, { metadata: { name: lease, namespace }, spec: { ...spec, acquireTime: now, leaseTransitions: 0 } });
      return "held";
    }
    const holder = current.spec?.holderIdentity ?? "";
    const record = JSON.stringify([holder, current.spec?.renewTime]);
    if (record !== observed.record) Object.assign(observed, { record, at: clock.monotonic() });
    const ours = holder === identity;
    if (!ours && holder !== "" && clock.monotonic() - observed.at < (current.spec?.leaseDurationSeconds ?? 0) * 1000) return "taken";
    const transitions = current.spec?.leaseTransitions ?? 0;
    const next: Lease = { ...current, spec: { ...current.spec, ...spec, ...(ours ? {} : { acquireTime: now, leaseTransitions: transitions + 1 }) } };
    await client.replace(leases, next);
    return "held";
  } catch (thrown) {
    log.debug("the lease could not be held", { lease, error: MeshError.from(thrown, "KUBE_UNAVAILABLE") });
    return "away";
  }
}

async function release({ client, namespace, lease, identity, log }: LeaderOptions): Promise<void> {
  try {
    const current = await client.get(leases, lease, namespace);
    if (current.spec?.holderIdentity === identity) await client.replace(leases, { ...current, spec: { ...current.spec, holderIdentity: "" } });
  } catch (thrown) {
    log.debug("the lease was not given back; it will expire", { lease, error: MeshError.from(thrown, "KUBE_UNAVAILABLE") });
  }
}
