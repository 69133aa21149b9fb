/** Keeps every node's service rules as services and endpoints say; changes that come together are one transaction per node. */
import type { Collection } from "@fairway/kube";
import { type Clock, type Logger, messageOf, TaskGroup } from "@fairway/runtime";
import type { EndpointSlice, Service } from "../resources.ts";
import { applyRules } from "./namespaces.ts";
import { serviceRules, virtualPorts } from "./service-rules.ts";

export interface ServiceProxyOptions {
  readonly services: Collection<Service>;
  readonly endpointSlices: Collection<EndpointSlice>;
  /** Namespaces by name, with the addresses whose node ports are served there. */
  readonly nodes: readonly { readonly namespace: string; readonly ips: readonly string[] }[];
  readonly clock: Clock;
  readonly log: Logger;
}

const debounceMs = 20;
const retryMs = 500;

export class ServiceProxy implements AsyncDisposable {
  readonly #options: ServiceProxyOptions;
  readonly #tasks: TaskGroup;
  readonly #subscriptions: Disposable[];
  /** What each node's kernel holds. */
  readonly #applied = new Map<string, string>();
  #timer: Disposable | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: ServiceProxyOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup(options.log);
    this.#subscriptions = [options.services, options.endpointSlices].map((collection) => collection.subscribe(() => this.#later(debounceMs)));
  }

  /** Applies what is known now; resolves when the nodes have it. Throws LOCAL_CLUSTER_COMMAND_FAILED. */
  sync(): Promise<void> {
    const next = this.#running.then(() => this.#apply());
    this.#running = next.catch(() => undefined);
    return next;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
    this.#timer?.[Symbol.dispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }

  #later(delayMs: number): void {
    this.#timer ??= this.#options.clock.schedule(delayMs, () => {
      this.#timer = undefined;
      this.#tasks.run("service rules", async () => {
        try {
          await this.sync();
        } catch (thrown) {
          this.#options.log.warn("service rules were not applied and will be retried", { error: messageOf(thrown) });
          if (!this.#tasks.signal.aborted) this.#later(retryMs);
        }
      });
    });
  }

  async #apply(): Promise<void> {
    const { services, endpointSlices, nodes } = this.#options;
    const ports = virtualPorts(services.list(), endpointSlices.list());
    for (const { namespace, ips } of nodes) {
      const rules = serviceRules(ports, ips);
      if (this.#applied.get(namespace) === rules || this.#tasks.signal.aborted) continue;
      await applyRules(namespace, rules, this.#tasks.signal);
      this.#applied.set(namespace, rules);
    }
  }
}
