/** Who may watch the mesh, and how much of it (controller contract 6.2, architecture 7.4). */
import { MeshError } from "@fairway/runtime";
import type { XdsPeer, XdsScope, XdsServerOptions } from "@fairway/xds";
import type { Caller, CallerReview } from "./callers.ts";
import { authorizeIdentity, type NodeFacts, waypointOf } from "./node-authorization.ts";

/**
 * Only the mesh's own proxies, proven by their token, each as the node its pod runs on: ztunnels watch everything, a waypoint its own
 * configuration. What a client says of itself must agree with that (namespace, service account, node), so that nobody is served as
 * somebody else.
 */
export function discoveryAuthorizer(callers: CallerReview, facts: NodeFacts): XdsServerOptions["authorize"] {
  return async ({ metadata, node }): Promise<XdsPeer> => {
    const caller = await callers.authenticate(metadata.get("authorization")[0]?.toString());
    const { namespace, serviceAccount } = caller;
    const scope = scopeOf(caller, facts);
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
    return { identity: { namespace, serviceAccount }, node: verdict.node, scope };
  };
}

/** What the caller may see; the token decides, whatever the client says that it is. */
function scopeOf(caller: Caller, facts: NodeFacts): XdsScope {
  const account = `${caller.namespace}/${caller.serviceAccount}`;
  if (facts.trustedNodeAccounts.has(account)) return { kind: "node" };
  const waypoint = waypointOf(caller, facts);
  if ("refused" in waypoint) throw denied(`${account} is neither one of the mesh's own service accounts nor that of a waypoint: ${waypoint.refused}`);
  return { kind: "waypoint", waypoint: waypoint.key };
}

function denied(why: string): MeshError {
  return new MeshError("XDS_PERMISSION_DENIED", `the client may not watch the mesh: ${why}`);
}
