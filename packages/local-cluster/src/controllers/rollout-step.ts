/** How far a rolling update may go now: the replica counts of the new and the old sets. Pure. */

export interface RolloutSet {
  readonly name: string;
  /** What its spec asks for. */
  readonly replicas: number;
  /** What its pods offer. */
  readonly available: number;
}

export interface RolloutLimits {
  readonly replicas: number;
  readonly maxSurge: number;
  readonly maxUnavailable: number;
}

/** Replicas by set name, for those to be changed. Grows the new set first, then lets go of old pods that are not missed. */
export function rolloutStep(current: RolloutSet, old: readonly RolloutSet[], { replicas, maxSurge, maxUnavailable }: RolloutLimits): Map<string, number> {
  const changes = new Map<string, number>();
  const oldTotal = old.reduce((sum, set) => sum + set.replicas, 0);
  const unavailable = maxSurge === 0 && maxUnavailable === 0 ? 1 : maxUnavailable;
  let next = current.replicas;
  if (current.replicas > replicas) next = replicas;
  else next += Math.max(0, Math.min(replicas - current.replicas, replicas + maxSurge - current.replicas - oldTotal));
  if (next !== current.replicas) changes.set(current.name, next);

  const minAvailable = replicas - unavailable;
  // Old pods that are not available are missed by nobody; they still count for the pods that exist.
  let removable = oldTotal + current.replicas - minAvailable - Math.max(0, current.replicas - current.available);
  let spareAvailable = old.reduce((sum, set) => sum + set.available, 0) + current.available - minAvailable;
  for (const set of old) {
    const unhealthy = Math.min(Math.max(0, set.replicas - set.available), Math.max(0, removable));
    const healthy = Math.max(0, Math.min(set.replicas - unhealthy, spareAvailable, removable - unhealthy));
    removable -= unhealthy + healthy;
    spareAvailable -= healthy;
    if (unhealthy + healthy > 0) changes.set(set.name, set.replicas - unhealthy - healthy);
  }
  return changes;
}
