/**
 * Answers the questions that threads ask about the mesh, and tells each thread when an answer it holds changes. The mesh itself stays here,
 * once; a thread holds what its connections asked for. What a thread holds is known here exactly, so that every resource is sent once and
 * dropped when its last answer is.
 */
import { type AuthorizationPolicy, policyKey, type Service, serviceKey, type Workload } from "@fairway/model";
import { type Logger, messageOf, TaskGroup } from "@fairway/runtime";
import type { MeshRelease, MeshView } from "@fairway/xds";
import { type Evaluation, evaluate, type MeshQuestion, questionKey } from "./mesh-question.ts";
import type { MeshAnswer, MeshUpdate } from "./mesh-update.ts";

/** One thread's side of the conversation. */
export interface MeshSession extends Disposable {
  ask(question: MeshQuestion): void;
  /** The thread needs these answers no more. */
  forget(keys: readonly string[]): void;
}

type Evaluate = (question: MeshQuestion, key: string) => Evaluation;

/** The first update, before anything was asked. */
export const emptyUpdate: MeshUpdate = {
  synced: false,
  policiesChanged: false,
  workloadsChanged: false,
  workloads: [],
  services: [],
  policies: [],
  answers: [],
  failures: [],
  droppedWorkloads: [],
  droppedServices: [],
  droppedPolicies: [],
  forgotten: [],
};

export class MeshDesk implements AsyncDisposable {
  readonly #mesh: MeshView;
  readonly #sessions = new Set<Session>();
  readonly #tasks: TaskGroup;
  readonly #subscriptions: readonly Disposable[];

  constructor(options: { mesh: MeshView; log: Logger }) {
    const { mesh, log } = options;
    this.#mesh = mesh;
    this.#tasks = new TaskGroup(log);
    this.#subscriptions = [
      mesh.changes.subscribe(({ policiesChanged, workloadsChanged }) => this.#tell({ policiesChanged, workloadsChanged })),
      mesh.synced.subscribe(() => this.#tell({ policiesChanged: false, workloadsChanged: false })),
      // A thread must not take what is let go of for what is not there.
      ...(mesh.onRelease === undefined ? [] : [mesh.onRelease((release) => this.#letGo(release))]),
    ];
  }

  /** Begins with whether the mesh is known. `send` is called in order and must not throw. */
  open(send: (update: MeshUpdate) => void): MeshSession {
    const synced = (): boolean => this.#mesh.synced.current;
    const session = new Session({ send, synced });
    this.#sessions.add(session);
    send({ ...emptyUpdate, synced: synced() });
    return {
      ask: (question) => this.#tasks.run("answering about the mesh", () => this.#answer(session, question)),
      forget: (keys) => session.forget(keys),
      [Symbol.dispose]: () => void this.#sessions.delete(session),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
    this.#sessions.clear();
    await this.#tasks[Symbol.asyncDispose]();
  }

  /** The view may have to fetch what is asked for; what is sent is what holds in the turn in which it is sent. */
  async #answer(session: Session, question: MeshQuestion): Promise<void> {
    const key = questionKey(question);
    try {
      await this.#mesh.decide((snapshot) => void evaluate(snapshot, question), { signal: this.#tasks.signal, labels: question.labels === true });
      session.answer(key, question, evaluate(this.#mesh.snapshot, question));
    } catch (thrown) {
      session.fail(key, messageOf(thrown));
    }
  }

  #letGo(release: MeshRelease): void {
    for (const session of this.#sessions) session.letGo(release);
  }

  /** Each question is evaluated once for all threads. */
  #tell(change: Pick<MeshUpdate, "policiesChanged" | "workloadsChanged">): void {
    const { snapshot } = this.#mesh;
    const known = new Map<string, Evaluation>();
    const once: Evaluate = (question, key) => {
      const evaluation = known.get(key) ?? evaluate(snapshot, question);
      known.set(key, evaluation);
      return evaluation;
    };
    for (const session of this.#sessions) session.tell(change, once);
  }
}

interface Followed {
  readonly question: MeshQuestion;
  evaluation: Evaluation;
  /** Under which the control plane knows what is asked; computed when it is needed. */
  names?: readonly string[];
}

class Session {
  readonly #send: (update: MeshUpdate) => void;
  readonly #synced: () => boolean;
  readonly #followed = new Map<string, Followed>();
  readonly #workloads = new Shelf<Workload["uid"], Workload>(({ uid }) => uid);
  readonly #services = new Shelf((service: Service) => serviceKey(service.namespace, service.hostname));
  readonly #policies = new Shelf((policy: AuthorizationPolicy) => policyKey(policy.namespace, policy.name));

  constructor(options: { send: (update: MeshUpdate) => void; synced: () => boolean }) {
    this.#send = options.send;
    this.#synced = options.synced;
  }

  answer(key: string, question: MeshQuestion, evaluation: Evaluation): void {
    this.#follow(key, question, evaluation);
    this.#update({ answers: [this.#answerOf(key, evaluation)] });
  }

  fail(key: string, message: string): void {
    this.#update({ failures: [{ key, message }] });
  }

  forget(keys: readonly string[]): void {
    for (const key of keys) {
      const followed = this.#followed.get(key);
      if (followed === undefined) continue;
      this.#followed.delete(key);
      this.#release(followed.evaluation);
    }
    this.#update({ forgotten: keys });
  }

  /** Forgets every answer that is about one of these names. */
  letGo({ names, namesOf }: MeshRelease): void {
    const keys: string[] = [];
    for (const [key, followed] of this.#followed) {
      followed.names ??= [...namesOf((snapshot) => void evaluate(snapshot, followed.question))];
      if (followed.names.some((name) => names.has(name))) keys.push(key);
    }
    if (keys.length > 0) this.forget(keys);
  }

  tell(change: Pick<MeshUpdate, "policiesChanged" | "workloadsChanged">, evaluateOnce: Evaluate): void {
    const answers: MeshAnswer[] = [];
    for (const [key, { question, evaluation }] of this.#followed) {
      const isOfPolicies = question.kind === "policy" || question.kind === "policies-for";
      if (!(isOfPolicies ? change.policiesChanged : change.workloadsChanged)) continue;
      const now = evaluateOnce(question, key);
      if (now.token === evaluation.token) continue;
      const changed = !sameMembers(now, evaluation);
      this.#follow(key, question, now);
      if (changed) answers.push(this.#answerOf(key, now));
    }
    this.#update({ ...change, answers });
  }

  #follow(key: string, question: MeshQuestion, evaluation: Evaluation): void {
    const before = this.#followed.get(key)?.evaluation;
    for (const workload of evaluation.workloads) this.#workloads.take(workload);
    for (const service of evaluation.services) this.#services.take(service);
    for (const policy of evaluation.policies) this.#policies.take(policy);
    if (before !== undefined) this.#release(before);
    this.#followed.set(key, { question, evaluation });
  }

  #release({ workloads, services, policies }: Evaluation): void {
    for (const workload of workloads) this.#workloads.release(workload);
    for (const service of services) this.#services.release(service);
    for (const policy of policies) this.#policies.release(policy);
  }

  #answerOf(key: string, { workloads, services, policies, missing }: Evaluation): MeshAnswer {
    return {
      key,
      workloads: workloads.map(this.#workloads.keyOf),
      services: services.map(this.#services.keyOf),
      policies: policies.map(this.#policies.keyOf),
      missing,
    };
  }

  #update(change: Partial<MeshUpdate>): void {
    const [workloads, services, policies] = [this.#workloads.settle(), this.#services.settle(), this.#policies.settle()];
    this.#send({
      ...emptyUpdate,
      ...change,
      synced: this.#synced(),
      workloads: workloads.sent,
      services: services.sent,
      policies: policies.sent,
      droppedWorkloads: workloads.dropped,
      droppedServices: services.dropped,
      droppedPolicies: policies.dropped,
    });
  }
}

/** The resources of one kind that a thread holds, by name, with the number of answers each is in. */
class Shelf<K, V> {
  readonly keyOf: (value: V) => K;
  readonly #held = new Map<K, { value: V; users: number }>();
  readonly #toSend = new Map<K, V>();
  readonly #unused = new Set<K>();

  constructor(keyOf: (value: V) => K) {
    this.keyOf = keyOf;
  }

  take(value: V): void {
    const key = this.keyOf(value);
    const held = this.#held.get(key);
    if (held === undefined) this.#held.set(key, { value, users: 1 });
    else held.users++;
    if (held?.value === value) return;
    if (held !== undefined) held.value = value;
    this.#toSend.set(key, value);
  }

  release(value: V): void {
    const key = this.keyOf(value);
    const held = this.#held.get(key);
    if (held === undefined) return;
    held.users--;
    if (held.users === 0) this.#unused.add(key);
  }

  /** What the next update must carry. */
  settle(): { sent: readonly V[]; dropped: readonly K[] } {
    const dropped: K[] = [];
    for (const key of this.#unused) {
      if (this.#held.get(key)?.users !== 0) continue;
      this.#held.delete(key);
      this.#toSend.delete(key);
      dropped.push(key);
    }
    const sent = [...this.#toSend.values()];
    this.#unused.clear();
    this.#toSend.clear();
    return { sent, dropped };
  }
}

function sameMembers(one: Evaluation, other: Evaluation): boolean {
  return (
    sameList(one.workloads, other.workloads) &&
    sameList(one.services, other.services) &&
    sameList(one.policies, other.policies) &&
    sameList(one.missing, other.missing)
  );
}

function sameList<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}
