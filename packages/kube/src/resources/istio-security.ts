/** security.istio.io/v1: who may speak to whom, and with which proof. */
import type { KubeObject, ResourceType } from "../collection.ts";
import type { Condition } from "./core.ts";

export interface WorkloadSelector {
  matchLabels?: Record<string, string>;
}

export interface PolicyTargetReference {
  group?: string;
  kind: string;
  name: string;
  namespace?: string;
}

export interface AuthorizationSource {
  principals?: string[];
  notPrincipals?: string[];
  requestPrincipals?: string[];
  notRequestPrincipals?: string[];
  namespaces?: string[];
  notNamespaces?: string[];
  serviceAccounts?: string[];
  notServiceAccounts?: string[];
  ipBlocks?: string[];
  notIpBlocks?: string[];
  remoteIpBlocks?: string[];
  notRemoteIpBlocks?: string[];
  trustDomains?: string[];
  notTrustDomains?: string[];
}

export interface AuthorizationOperation {
  hosts?: string[];
  notHosts?: string[];
  ports?: string[];
  notPorts?: string[];
  methods?: string[];
  notMethods?: string[];
  paths?: string[];
  notPaths?: string[];
}

export interface AuthorizationRule {
  from?: { source?: AuthorizationSource }[];
  to?: { operation?: AuthorizationOperation }[];
  when?: { key: string; values?: string[]; notValues?: string[] }[];
}

export interface AuthorizationPolicyObject extends KubeObject {
  spec?: {
    selector?: WorkloadSelector;
    targetRef?: PolicyTargetReference;
    targetRefs?: PolicyTargetReference[];
    rules?: AuthorizationRule[];
    action?: string;
    provider?: { name: string };
  };
  status?: { conditions?: Condition[] };
}

export type MutualTlsMode = "UNSET" | "DISABLE" | "PERMISSIVE" | "STRICT";

export interface PeerAuthentication extends KubeObject {
  spec?: {
    selector?: WorkloadSelector;
    mtls?: { mode?: string };
    portLevelMtls?: Record<string, { mode?: string }>;
  };
  status?: { conditions?: Condition[] };
}

export interface JwtRule {
  issuer: string;
  audiences?: string[];
  jwksUri?: string;
  jwks?: string;
  fromHeaders?: { name: string; prefix?: string }[];
  fromParams?: string[];
  fromCookies?: string[];
  outputPayloadToHeader?: string;
  outputClaimToHeaders?: { header: string; claim: string }[];
  forwardOriginalToken?: boolean;
  timeout?: string;
}

export interface RequestAuthentication extends KubeObject {
  spec?: { selector?: WorkloadSelector; targetRef?: PolicyTargetReference; targetRefs?: PolicyTargetReference[]; jwtRules?: JwtRule[] };
  status?: { conditions?: Condition[] };
}

const security = <T extends KubeObject>(plural: string, kind: string): ResourceType<T> => ({
  group: "security.istio.io",
  version: "v1",
  plural,
  kind,
  namespaced: true,
});

export const authorizationPolicies: ResourceType<AuthorizationPolicyObject> = security("authorizationpolicies", "AuthorizationPolicy");
export const peerAuthentications: ResourceType<PeerAuthentication> = security("peerauthentications", "PeerAuthentication");
export const requestAuthentications: ResourceType<RequestAuthentication> = security("requestauthentications", "RequestAuthentication");
