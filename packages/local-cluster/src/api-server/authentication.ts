/** Who is asking: a bearer token is the admin's, a service account's that still exists, or nobody's. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import type { TokenIssuer, VerifiedToken } from "./service-account-token.ts";
import type { Storage } from "./storage.ts";

export interface User {
  readonly name: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

export const anonymous: User = { name: "system:anonymous", uid: "", groups: ["system:unauthenticated"], extra: {} };
export const admin: User = { name: "kubernetes-admin", uid: "", groups: ["system:masters", "system:authenticated"], extra: {} };

export interface AuthenticatorOptions {
  readonly adminToken: string;
  readonly issuer: TokenIssuer;
  readonly storage: Storage;
  /** The audience tokens for this server carry. */
  readonly audience: string;
}

export class Authenticator {
  readonly #adminDigest: Buffer;
  readonly #issuer: TokenIssuer;
  readonly #storage: Storage;
  readonly #audience: string;

  constructor({ adminToken, issuer, storage, audience }: AuthenticatorOptions) {
    this.#adminDigest = digest(adminToken);
    this.#issuer = issuer;
    this.#storage = storage;
    this.#audience = audience;
  }

  /** The user of a request, `anonymous` without credentials, or nothing when the credentials are no good. */
  authenticate(authorization: string | undefined): User | undefined {
    if (authorization === undefined || authorization === "") return anonymous;
    const [scheme, token, ...rest] = authorization.trim().split(/\s+/);
    if (scheme?.toLowerCase() !== "bearer" || token === undefined || rest.length > 0) return undefined;
    return this.user(token, [this.#audience])?.user;
  }

  /** The user a token proves for one of the audiences, with the audiences it shares; for TokenReview too. */
  user(token: string, audiences: readonly string[]): { user: User; audiences: readonly string[] } | undefined {
    const wanted = audiences.length === 0 ? [this.#audience] : audiences;
    if (timingSafeEqual(digest(token), this.#adminDigest)) return wanted.includes(this.#audience) ? { user: admin, audiences: [this.#audience] } : undefined;
    const verified = this.#issuer.verify(token);
    if (verified === undefined || !this.#exists(verified)) return undefined;
    const shared = wanted.filter((audience) => verified.audiences.includes(audience));
    return shared.length === 0 ? undefined : { user: userOf(verified), audiences: shared };
  }

  /** A token dies with its service account and with the pod it is bound to. */
  #exists({ namespace, serviceAccount, pod }: VerifiedToken): boolean {
    const account = this.#storage.get("serviceaccounts", namespace, serviceAccount.name);
    if (account?.metadata.uid !== serviceAccount.uid) return false;
    return pod === undefined || this.#storage.get("pods", namespace, pod.name)?.metadata.uid === pod.uid;
  }
}

/** Whom the headers ask to act as. */
export function impersonationOf(headers: IncomingHttpHeaders): User | undefined {
  const name = headers["impersonate-user"];
  if (typeof name !== "string" || name === "") return undefined;
  const groups = headers["impersonate-group"];
  // Node joins repeated headers that it does not know with ", ".
  return { name, uid: "", groups: typeof groups === "string" ? groups.split(",").map((group) => group.trim()) : [], extra: {} };
}

/** The groups a name alone implies. */
export function groupsOf({ name }: User): readonly string[] {
  if (name === anonymous.name) return anonymous.groups;
  const [, namespace] = /^system:serviceaccount:([^:]+):[^:]+$/.exec(name) ?? [];
  return namespace === undefined ? ["system:authenticated"] : ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"];
}

function userOf({ namespace, serviceAccount, pod, node, id }: VerifiedToken): User {
  return {
    name: `system:serviceaccount:${namespace}:${serviceAccount.name}`,
    uid: serviceAccount.uid,
    groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
    extra: {
      ...(id === "" ? {} : { "authentication.kubernetes.io/credential-id": [`JTI=${id}`] }),
      ...(node === undefined ? {} : { "authentication.kubernetes.io/node-name": [node.name], "authentication.kubernetes.io/node-uid": [node.uid] }),
      ...(pod === undefined ? {} : { "authentication.kubernetes.io/pod-name": [pod.name], "authentication.kubernetes.io/pod-uid": [pod.uid] }),
    },
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
