/** Service account tokens: ES256 JWTs with the claims Kubernetes puts in bound tokens. */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign, verify } from "node:crypto";
import type { Clock } from "@fairway/runtime";
import { isObject, type JsonObject, objectAt, stringAt } from "./json.ts";

export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: { readonly name: string; readonly uid: string };
  readonly pod?: { readonly name: string; readonly uid: string };
  readonly node?: { readonly name: string; readonly uid: string };
}

export interface VerifiedToken extends TokenSubject {
  readonly audiences: readonly string[];
  readonly id: string;
  readonly expiresAtMs: number;
}

/** Longer tokens are refused unread. */
const maxTokenLength = 16_384;

export class TokenIssuer {
  readonly issuer: string;
  readonly #clock: Clock;
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #keyId: string;

  constructor(issuer: string, clock: Clock) {
    this.issuer = issuer;
    this.#clock = clock;
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.#privateKey = privateKey;
    this.#publicKey = publicKey;
    this.#keyId = createHash("sha256")
      .update(publicKey.export({ type: "spki", format: "der" }))
      .digest("base64url");
  }

  issue(subject: TokenSubject, audiences: readonly string[], lifetimeSeconds: number): { token: string; expiresAtMs: number } {
    const now = Math.floor(this.#clock.now() / 1000);
    const claims = {
      aud: audiences,
      exp: now + lifetimeSeconds,
      iat: now,
      iss: this.issuer,
      jti: randomUUID(),
      "kubernetes.io": {
        namespace: subject.namespace,
        ...(subject.node === undefined ? {} : { node: subject.node }),
        ...(subject.pod === undefined ? {} : { pod: subject.pod }),
        serviceaccount: subject.serviceAccount,
      },
      nbf: now,
      sub: `system:serviceaccount:${subject.namespace}:${subject.serviceAccount.name}`,
    };
    const unsigned = `${encoded({ alg: "ES256", kid: this.#keyId, typ: "JWT" })}.${encoded(claims)}`;
    const signature = sign("sha256", Buffer.from(unsigned), { key: this.#privateKey, dsaEncoding: "ieee-p1363" });
    return { token: `${unsigned}.${signature.toString("base64url")}`, expiresAtMs: (now + lifetimeSeconds) * 1000 };
  }

  /** What a token proves by its signature and dates, or nothing. Whether its objects still exist is the caller's to check. */
  verify(token: string): VerifiedToken | undefined {
    if (token.length > maxTokenLength) return undefined;
    const [header, payload, signature, ...rest] = token.split(".");
    if (header === undefined || payload === undefined || signature === undefined || rest.length > 0) return undefined;
    if (decoded(header)?.["alg"] !== "ES256") return undefined;
    const bytes = Buffer.from(signature, "base64url");
    const genuine = verify("sha256", Buffer.from(`${header}.${payload}`), { key: this.#publicKey, dsaEncoding: "ieee-p1363" }, bytes);
    const claims = genuine ? decoded(payload) : undefined;
    if (claims === undefined || claims["iss"] !== this.issuer) return undefined;
    const { exp, nbf, aud, jti } = claims;
    const nowSeconds = this.#clock.now() / 1000;
    if (typeof exp !== "number" || exp <= nowSeconds || typeof nbf !== "number" || nbf > nowSeconds + 5) return undefined;
    const bound = objectAt(claims["kubernetes.io"]);
    const account = named(bound["serviceaccount"]);
    const namespace = stringAt(bound["namespace"]);
    if (account === undefined || namespace === undefined) return undefined;
    const pod = named(bound["pod"]);
    const node = named(bound["node"]);
    return {
      namespace,
      serviceAccount: account,
      ...(pod === undefined ? {} : { pod }),
      ...(node === undefined ? {} : { node }),
      audiences: Array.isArray(aud) ? aud.filter((item) => typeof item === "string") : [],
      id: stringAt(jti) ?? "",
      expiresAtMs: exp * 1000,
    };
  }

  /** The key set that others verify tokens with. */
  keySet(): JsonObject {
    const jwk = createPublicKey(this.#publicKey.export({ type: "spki", format: "pem" })).export({ format: "jwk" });
    return { keys: [{ use: "sig", kty: jwk.kty ?? "EC", kid: this.#keyId, alg: "ES256", crv: jwk.crv ?? "", x: jwk.x ?? "", y: jwk.y ?? "" }] };
  }
}

function encoded(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function decoded(part: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function named(value: unknown): { name: string; uid: string } | undefined {
  if (!isObject(value) || typeof value["name"] !== "string" || typeof value["uid"] !== "string") return undefined;
  return { name: value["name"], uid: value["uid"] };
}
