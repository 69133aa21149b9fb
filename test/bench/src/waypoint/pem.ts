/** Keys and certificates as other programs read them. */
import type { SpiffeId } from "@fairway/model";
import { Authority, type AuthorityPem, generateKeyPair } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";

export interface Pem {
  readonly key: string;
  /** Leaf first, without the root. */
  readonly cert: string;
  readonly ca: string;
}

export function pemOf(authority: AuthorityPem, identity: SpiffeId): Pem {
  const { privateKey, publicKey } = generateKeyPair();
  const chain = Authority.load(authority, systemClock).sign({ publicKey, identity, ttlMs: 0 }).slice(0, -1);
  return { key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(), cert: chain.join("\n"), ca: authority.rootCert || authority.caCert };
}
