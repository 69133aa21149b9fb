/**
 * Which endpoint of a cluster takes a request: by priority, then by locality, then by the cluster's own way. Failover as in Envoy: a priority
 * hands over what its healthy endpoints, times 1.4, do not cover; there is no panic: when nobody is healthy nobody is asked.
 */
import { type Cluster, type Locality, pickByWeight } from "@fairway/model";

/** What the balancer looks at; whoever owns it keeps it up to date. */
export interface Candidate {
  readonly key: string;
  readonly priority: number;
  readonly locality: Locality;
  readonly localityWeight: number;
  readonly weight: number;
  /** Requests under way. */
  readonly active: number;
  /** Published as healthy, and not ejected. */
  usable(now: number): boolean;
}

/** Times a host that was tried before is passed over (Envoy's host_selection_retry_max_attempts). */
const maxReselections = 5;
const overprovisioning = 1.4;

interface Group<T> {
  readonly weight: number;
  readonly members: readonly T[];
}

interface Priority<T> {
  readonly localities: readonly Group<T>[];
  readonly size: number;
}

export class LoadBalancer<T extends Candidate> {
  readonly #policy: Cluster["loadBalancing"];
  readonly #random: () => number;
  readonly #priorities: readonly Priority<T>[];
  #turn: number;

  constructor(policy: Cluster["loadBalancing"], candidates: readonly T[], random: () => number) {
    this.#policy = policy;
    this.#random = random;
    this.#priorities = prioritiesOf(candidates);
    // Many proxies that start together must not all begin with the same endpoint.
    this.#turn = Math.floor(random() * Math.max(1, candidates.length));
  }

  /** Undefined: there is nobody to ask. Endpoints in `avoid` are taken only when nothing else comes up. */
  pick(now: number, avoid: ReadonlySet<string>): T | undefined {
    let chosen = this.#once(now);
    for (let again = 0; again < maxReselections && chosen !== undefined && avoid.has(chosen.key); again++) chosen = this.#once(now);
    if (chosen === undefined || !avoid.has(chosen.key)) return chosen;
    const others = this.#all().filter((candidate) => candidate.usable(now) && !avoid.has(candidate.key));
    return others[Math.floor(this.#random() * others.length)] ?? chosen;
  }

  #all(): T[] {
    return this.#priorities.flatMap(({ localities }) => localities.flatMap(({ members }) => members));
  }

  #once(now: number): T | undefined {
    const healthy = this.#priorities.map(({ localities, size }) => {
      const groups = localities.map(({ weight, members }) => ({ weight, size: members.length, members: members.filter((member) => member.usable(now)) }));
      return { groups, size, usable: groups.reduce((sum, { members }) => sum + members.length, 0) };
    });
    const priority = healthy.length === 1 ? healthy[0] : this.#choosePriority(healthy);
    if (priority === undefined || priority.usable === 0) return undefined;
    const { groups } = priority;
    // A locality gets less as its endpoints fail.
    const group = groups.length === 1 ? groups[0] : pickByWeight(groups, ({ weight, size, members }) => (weight * members.length) / size, this.#random);
    return group && this.#choose(group.members);
  }

  #choosePriority<P extends { readonly size: number; readonly usable: number }>(priorities: readonly P[]): P | undefined {
    let left = 1;
    const shares = priorities.map((priority) => {
      const share = Math.min(left, priority.size === 0 ? 0 : (priority.usable / priority.size) * overprovisioning);
      left -= share;
      return { priority, share };
    });
    return pickByWeight(shares, ({ share }) => share, this.#random)?.priority;
  }

  #choose(members: readonly T[]): T | undefined {
    switch (this.#policy) {
      case "round-robin":
        return this.#inTurn(members);
      case "random":
        return pickByWeight(members, ({ weight }) => weight, this.#random);
      case "least-request":
        return this.#lessBusy(members);
    }
  }

  /** In turn where all weigh the same, by chance where they do not: over many requests the shares are the same. */
  #inTurn(members: readonly T[]): T | undefined {
    const [first] = members;
    if (first !== undefined && members.some(({ weight }) => weight !== first.weight)) return pickByWeight(members, ({ weight }) => weight, this.#random);
    this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER;
    return members[this.#turn % members.length];
  }

  /** The less busy of two drawn at random, in proportion to their weights. */
  #lessBusy(members: readonly T[]): T | undefined {
    const one = pickByWeight(members, ({ weight }) => weight, this.#random);
    const other = pickByWeight(members, ({ weight }) => weight, this.#random);
    if (one === undefined || other === undefined) return one;
    return other.active / other.weight < one.active / one.weight ? other : one;
  }
}

function prioritiesOf<T extends Candidate>(candidates: readonly T[]): Priority<T>[] {
  const byPriority = new Map<number, Map<string, { weight: number; members: T[] }>>();
  for (const candidate of candidates) {
    const localities = byPriority.get(candidate.priority) ?? new Map<string, { weight: number; members: T[] }>();
    byPriority.set(candidate.priority, localities);
    const { region, zone, subzone } = candidate.locality;
    const name = [region, zone, subzone].join("\n");
    const group = localities.get(name) ?? { weight: Math.max(1, candidate.localityWeight), members: [] };
    localities.set(name, group);
    group.members.push(candidate);
  }
  return [...byPriority]
    .sort(([a], [b]) => a - b)
    .map(([, localities]) => ({ localities: [...localities.values()], size: [...localities.values()].reduce((sum, { members }) => sum + members.length, 0) }));
}
