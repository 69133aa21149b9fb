/** The clients of both discovery ports, and what metrics count of them. */
import { type Watch, Watched } from "@fairway/runtime";
import type { XdsClientStatus, XdsServerObserver } from "@fairway/xds";
import type { ControllerMetrics } from "./metrics.ts";
import { shortType } from "./xds-types.ts";

type Clients = Watch<ReadonlyMap<string, XdsClientStatus>>;

/** Both maps as one; ids of the second are told apart by `prefix`. Dispose to stop following. */
export function joinClients(first: Clients, second: Clients, prefix: string): { readonly clients: Clients } & Disposable {
  const joined = (): ReadonlyMap<string, XdsClientStatus> =>
    new Map([...first.current, ...[...second.current].map(([id, client]) => [`${prefix}${id}`, client] as const)]);
  const clients = new Watched(joined());
  const subscriptions = [first, second].map((watch) => watch.subscribe(() => clients.set(joined())));
  return {
    clients,
    [Symbol.dispose]: () => {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    },
  };
}

export function countDiscovery(metrics: ControllerMetrics): XdsServerObserver {
  return {
    pushed: (typeUrl) => metrics.xdsPushes.inc({ type: shortType(typeUrl) }),
    rejected: (typeUrl) => metrics.xdsRejects.inc({ type: shortType(typeUrl) }),
    expiredNonce: (typeUrl) => metrics.xdsExpiredNonces.inc({ type: shortType(typeUrl) }),
  };
}
