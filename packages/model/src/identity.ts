/** SPIFFE identities as the mesh uses them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
import { InvalidValueError } from "./invalid-value.ts";

/** The canonical URI text; two identities are equal when their texts are. */
export type SpiffeId = string & { readonly __brand: "SpiffeId" };

export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export const defaultTrustDomain = "cluster.local";
const spiffePattern = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/;

export function spiffeId({ trustDomain, namespace, serviceAccount }: Identity): SpiffeId {
  return `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}` as SpiffeId;
}

/** Exactly five segments after a lower-case scheme (ztunnel contract 1.2), no control characters or spaces. */
export function tryParseSpiffeId(text: string): Identity | undefined {
  const match = spiffePattern.exec(text);
  if (match === null || /[\s\p{Cc}]/u.test(text)) return undefined;
  const [, trustDomain = "", namespace = "", serviceAccount = ""] = match;
  return { trustDomain, namespace, serviceAccount };
}

/** Throws InvalidValueError. */
export function parseSpiffeId(text: string): SpiffeId {
  if (tryParseSpiffeId(text) === undefined) {
    throw new InvalidValueError(`${JSON.stringify(text)} is not a SPIFFE identity; expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>`);
  }
  return text as SpiffeId;
}

/** The parts of an identity that was parsed before. */
export function identityOf(id: SpiffeId): Identity {
  const identity = tryParseSpiffeId(id);
  if (identity === undefined) throw new InvalidValueError(`${JSON.stringify(id)} is not a SPIFFE identity`);
  return identity;
}
