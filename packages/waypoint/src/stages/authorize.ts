/** DENY and ALLOW policies of the target (controller contract 4.7), on the normalised request and the proven client. */
import { authorizeRequest, type RequestFacts, type RequestVerdict } from "@fairway/model";
import type { Exchange, Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";

export interface AuthorizeOptions {
  /** Policies in dry run and of action AUDIT that would have had a say. */
  readonly onObserved: (exchange: Exchange, observed: RequestVerdict["observed"]) => void;
}

export function authorize({ onObserved }: AuthorizeOptions): Stage {
  return (exchange, next) => {
    const { policies } = exchange.downstream.port;
    if (policies.length === 0) return next();
    const verdict = authorizeRequest(policies, factsOf(exchange));
    if (verdict.observed.length > 0) onObserved(exchange, verdict.observed);
    if (!verdict.allowed) throw waypointError("WAYPOINT_POLICY_DENIED", denialMessage(verdict), { details: { detail: deniedDetail(verdict) } });
    return next();
  };
}

/** `rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[0]]`, as the reference writes it. */
export function deniedDetail({ policy }: RequestVerdict): string {
  if (policy === undefined) return "rbac_access_denied_matched_policy[none]";
  const [namespace = "", ...name] = policy.key.split("/");
  return `rbac_access_denied_matched_policy[ns[${namespace}]-policy[${name.join("/")}]-rule[${policy.rule}]]`;
}

export function denialMessage({ policy, reason }: RequestVerdict): string {
  return policy === undefined ? `no ALLOW policy matched (${reason})` : `denied by policy ${policy.key}, rule ${policy.rule}`;
}

function factsOf({ head, downstream, remote, claims }: Exchange): RequestFacts {
  const { identity, source, destination } = downstream;
  return { head, identity, source, remote, destination, serverName: undefined, claims };
}
