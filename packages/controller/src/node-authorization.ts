/**
 * May this caller have a certificate for that identity? Pure; stricter than the reference (controller contract 7.2, architecture 7.5):
 * the trust domain must be ours, and the pod that the certificate is for must run on the caller's node, have a network of its own,
 * not have ended, and be enrolled or selected for it.
 */
import type { GatewayObject, Namespace, Pod } from "@fairway/kube";
import { type Identity, type SpiffeId, spiffeId, tryParseSpiffeId } from "@fairway/model";
import type { Caller } from "./callers.ts";
import { annotation, label, noLabels } from "./labels.ts";
import { waypointAccount } from "./waypoint-classes.ts";

export interface NodeFacts {
  pod(namespace: string, name: string): Pod | undefined;
  /** Pods of a service account on a node. */
  podsOf(node: string, namespace: string, serviceAccount: string): readonly Pod[];
  namespace(name: string): Namespace | undefined;
  gateway(namespace: string, name: string): GatewayObject | undefined;
  readonly trustDomain: string;
  /** `namespace/name`. */
  readonly trustedNodeAccounts: ReadonlySet<string>;
}

export type Authorization =
  | { readonly allowed: true; readonly identity: SpiffeId; readonly node: string }
  /** `mayChange`: the pod may only not be known yet. */
  | { readonly allowed: false; readonly reason: string; readonly mayChange: boolean };

/** `requested` is the SPIFFE id that the caller wants to speak for; undefined asks for its own. */
export function authorizeIdentity(caller: Caller, requested: string | undefined, facts: NodeFacts): Authorization {
  const ownPod = callerPod(caller, facts);
  if ("refused" in ownPod) return refuse(ownPod.refused, ownPod.mayChange);
  const node = ownPod.pod.spec?.nodeName ?? "";
  const own = spiffeId({ trustDomain: facts.trustDomain, ...caller });
  const account = `${caller.namespace}/${caller.serviceAccount}`;
  const trusted = facts.trustedNodeAccounts.has(account);
  if (requested === undefined || requested === own) {
    if (trusted || takesPart(ownPod.pod, facts.namespace(caller.namespace))) return { allowed: true, identity: own, node };
    return refuse(`pod ${caller.namespace}/${caller.podName} is not part of the mesh`, true);
  }
  if (!trusted) return refuse(`${account} may not speak for other identities`);
  const identity = tryParseSpiffeId(requested);
  if (identity === undefined) return refuse(`${JSON.stringify(requested)} is not a SPIFFE identity`);
  if (identity.trustDomain !== facts.trustDomain) return refuse(`trust domain ${identity.trustDomain} is not ours (${facts.trustDomain})`);
  if (node === "") return refuse(`pod ${caller.namespace}/${caller.podName} is on no node yet`, true);
  return authorizeOnNode(identity, node, facts);
}

function authorizeOnNode(identity: Identity, node: string, facts: NodeFacts): Authorization {
  const pods = facts.podsOf(node, identity.namespace, identity.serviceAccount);
  const named = `${identity.namespace}/${identity.serviceAccount}`;
  if (pods.length === 0) return refuse(`no pod of ${named} runs on node ${node}`, true);
  const alive = pods.filter(({ spec, status }) => spec?.hostNetwork !== true && status?.phase !== "Succeeded" && status?.phase !== "Failed");
  if (alive.length === 0) return refuse(`every pod of ${named} on node ${node} has ended or uses the host's network`, true);
  const enrolled = alive.some((pod) => isEnrolled(pod, facts.namespace(identity.namespace)));
  return enrolled ? { allowed: true, identity: spiffeId(identity), node } : refuse(`no pod of ${named} on node ${node} is enrolled in the mesh`, true);
}

/**
 * The waypoint that the caller's pod is one of, by `<namespace>/<name>` of its Gateway, or why it is none. The pod must be one that was
 * deployed for the Gateway, and run as the Gateway's service account: labels alone anybody may write who may create a pod.
 */
export function waypointOf(caller: Caller, facts: NodeFacts): { readonly key: string } | { readonly refused: string } {
  const own = callerPod(caller, facts);
  if ("refused" in own) return { refused: own.refused };
  const { namespace } = caller;
  const named = `pod ${namespace}/${own.pod.metadata.name}`;
  const labels = own.pod.metadata.labels ?? noLabels;
  const name = labels[label.gatewayName] ?? "";
  if (name === "") return { refused: `${named} carries no label ${label.gatewayName}` };
  if ((labels[label.gatewayManaged] ?? "") === "") return { refused: `${named} carries no label ${label.gatewayManaged}` };
  const gateway = facts.gateway(namespace, name);
  if (gateway === undefined) return { refused: `${named} is of Gateway ${namespace}/${name}, which does not exist` };
  const account = waypointAccount(gateway);
  if (caller.serviceAccount !== account) {
    return { refused: `${named} runs as ${caller.serviceAccount}; Gateway ${namespace}/${name} runs as ${account}` };
  }
  return { key: `${namespace}/${name}` };
}

/** Captured, about to be, or selected for it: certificates are fetched while the pod is being enrolled (controller contract 1.2). */
export function isEnrolled({ metadata }: Pod, namespace: Namespace | undefined): boolean {
  const state = metadata.annotations?.[annotation.redirection];
  if (state === "enabled" || state === "pending") return true;
  if (metadata.annotations?.[annotation.sidecarStatus] !== undefined) return false;
  const own = (metadata.labels ?? noLabels)[label.dataplaneMode];
  if (own !== undefined && own !== "") return own === "ambient";
  return namespace?.metadata.labels?.[label.dataplaneMode] === "ambient";
}

/** Asks for itself with good reason: a waypoint or gateway, a workload that tunnels by itself, or an enrolled pod. */
function takesPart(pod: Pod, namespace: Namespace | undefined): boolean {
  const labels = pod.metadata.labels ?? noLabels;
  const native = (labels[label.tunnel] ?? "").split(",").includes("http");
  return pod.spec?.hostNetwork !== true && (labels[label.gatewayName] !== undefined || native || isEnrolled(pod, namespace));
}

/** The pod that the token is bound to, if it is still that pod. */
function callerPod(caller: Caller, facts: NodeFacts): { pod: Pod } | { refused: string; mayChange: boolean } {
  const { namespace, serviceAccount, podName, podUid } = caller;
  if (podName === undefined || podUid === undefined) return { refused: "the token is not bound to a pod", mayChange: false };
  const pod = facts.pod(namespace, podName);
  if (pod === undefined) return { refused: `pod ${namespace}/${podName} is not known`, mayChange: true };
  if (pod.metadata.uid !== podUid) return { refused: `pod ${namespace}/${podName} is another one than the token was issued for`, mayChange: true };
  if ((pod.spec?.serviceAccountName ?? "default") !== serviceAccount)
    return { refused: `pod ${namespace}/${podName} does not run as ${serviceAccount}`, mayChange: false };
  return { pod };
}

function refuse(reason: string, mayChange = false): Authorization {
  return { allowed: false, reason, mayChange };
}
