/** Who may watch the mesh, and what its watchers said against it (controller contract 6.2, architecture 7.4). */
import { MutableCollection } from "@fairway/kube";
import { authorizationTypeUrl } from "@fairway/protocol";
import { type Logger, MeshError, type Watch } from "@fairway/runtime";
import type { XdsClientStatus, XdsPeer, XdsServerOptions } from "@fairway/xds";
import type { CallerReview } from "./callers.ts";
import type { ControllerMetrics } from "./metrics.ts";
import { authorizeIdentity, type NodeFacts } from "./node-authorization.ts";
import type { Rejection } from "./status.ts";

/**
 * Only the mesh's own node proxies, proven by their token, each as the node its pod runs on. What a client says of itself must
 * agree with that (namespace, service account, node), so that nobody is served as somebody else.
 */
export function discoveryAuthorizer(callers: CallerReview, facts: NodeFacts): XdsServerOptions["authorize"] {
  return async ({ metadata, node }): Promise<XdsPeer> => {
    const caller = await callers.authenticate(metadata.get("authorization")[0]?.toString());
    const { namespace, serviceAccount } = caller;
    const account = `${namespace}/${serviceAccount}`;
    if (!facts.trustedNodeAccounts.has(account)) throw denied(`${account} is not one of the mesh's own service accounts`);
    const verdict = authorizeIdentity(caller, undefined, facts);
    if (!verdict.allowed) throw denied(verdict.reason);
    const claims = [
      ["NAMESPACE", namespace],
      ["SERVICE_ACCOUNT", serviceAccount],
      ["NODE_NAME", verdict.node],
    ] as const;
    for (const [key, proven] of claims) {
      const claimed = node.metadata[key];
      if (claimed !== undefined && claimed !== "" && claimed !== proven)
        throw denied(`the client says that its ${key} is ${JSON.stringify(claimed)}, but it is ${proven}`);
    }
    return { identity: { namespace, serviceAccount }, node: verdict.node };
  };
}

/** The policies that connected proxies refuse, kept up to date. Dispose to stop. */
export function followRejections(
  clients: Watch<ReadonlyMap<string, XdsClientStatus>>,
  { log, metrics }: { log: Logger; metrics: ControllerMetrics },
): { rejections: MutableCollection<Rejection> } & Disposable {
  const rejections = new MutableCollection<Rejection>(({ name }) => name);
  const update = (current: ReadonlyMap<string, XdsClientStatus>): void => {
    metrics.xdsClients.set(current.size);
    const found = collectRejections(current.values());
    const gone = [...rejections.entries()].map(([name]) => name).filter((name) => !found.has(name));
    if (gone.length > 0) rejections.delete(...gone);
    for (const [name, rejection] of found) {
      const known = rejections.get(name);
      if (known?.message === rejection.message && known.proxies === rejection.proxies) continue;
      if (known === undefined) metrics.xdsRejects.inc({ type: "authorization" });
      log.warn("a policy was rejected", { policy: name, proxies: rejection.proxies, message: rejection.message });
      rejections.set(rejection);
    }
  };
  const subscription = clients.subscribe(update);
  return { rejections, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
}

/** By policy, over all clients. */
export function collectRejections(clients: Iterable<XdsClientStatus>): ReadonlyMap<string, Rejection> {
  const found = new Map<string, Rejection>();
  for (const { types } of clients) {
    for (const [name, message] of types.get(authorizationTypeUrl)?.rejected ?? []) {
      const known = found.get(name);
      found.set(name, { name, message: known?.message ?? message, proxies: (known?.proxies ?? 0) + 1 });
    }
  }
  return found;
}

function denied(why: string): MeshError {
  return new MeshError("XDS_PERMISSION_DENIED", `the client may not watch the mesh: ${why}`);
}
