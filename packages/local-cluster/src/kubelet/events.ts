/** Events as people read them with `kubectl describe`: repeated ones are counted, not multiplied, and none can stop the work. */
import type { KubeClient, KubeObject } from "@fairway/kube";
import { type Clock, type Logger, messageOf, TaskGroup } from "@fairway/runtime";
import { events } from "../resources.ts";

/** Distinct events remembered for counting; the oldest are forgotten first. */
const maxRemembered = 1_000;
/** Event writes under way at a time; further ones are dropped, as the kubelet's rate limit does. */
const maxPending = 50;

interface Remembered {
  readonly name: string;
  count: number;
}

export class EventRecorder implements AsyncDisposable {
  readonly #client: KubeClient;
  readonly #source: string;
  readonly #host: string | undefined;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #tasks: TaskGroup;
  readonly #remembered = new Map<string, Remembered>();
  #pending = 0;
  #serial = 0;

  constructor(options: { client: KubeClient; source: string; host?: string; clock: Clock; log: Logger }) {
    this.#client = options.client;
    this.#source = options.source;
    this.#host = options.host;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#tasks = new TaskGroup(options.log);
  }

  /** Tells what happened to an object. Never throws and never waits. */
  record(object: KubeObject, kind: string, type: "Normal" | "Warning", reason: string, message: string): void {
    this.#log.debug(message, { reason, object: `${object.metadata.namespace}/${object.metadata.name}` });
    if (this.#pending >= maxPending || this.#tasks.signal.aborted) return;
    this.#pending += 1;
    this.#tasks.run("event", async () => {
      try {
        await this.#write(object, kind, type, reason, message.slice(0, 1_024));
      } catch (thrown) {
        this.#log.debug("event was not accepted", { error: messageOf(thrown) });
      } finally {
        this.#pending -= 1;
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#tasks[Symbol.asyncDispose]();
  }

  async #write(object: KubeObject, kind: string, type: string, reason: string, message: string): Promise<void> {
    const namespace = object.metadata.namespace ?? "default";
    const now = new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    const key = [object.metadata.uid, type, reason, message].join("\n");
    const known = this.#remembered.get(key);
    if (known !== undefined) {
      known.count += 1;
      await this.#client.mergePatch(events, known.name, namespace, { count: known.count, lastTimestamp: now });
      return;
    }
    this.#serial += 1;
    const name = `${object.metadata.name}.${this.#clock.now().toString(16)}${this.#serial.toString(16)}`;
    this.#remembered.set(key, { name, count: 1 });
    const oldest = this.#remembered.keys().next().value;
    if (this.#remembered.size > maxRemembered && oldest !== undefined) this.#remembered.delete(oldest);
    const event = {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name, namespace },
      involvedObject: { apiVersion: object.apiVersion ?? "v1", kind, name: object.metadata.name, namespace, uid: object.metadata.uid },
      type,
      reason,
      message,
      count: 1,
      firstTimestamp: now,
      lastTimestamp: now,
      source: { component: this.#source, ...(this.#host === undefined ? {} : { host: this.#host }) },
    };
    await this.#client.create(events, event);
  }
}
