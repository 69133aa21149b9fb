/** Who calls: service account tokens, reviewed by the Kubernetes API (controller contract 6.2). */
import { createHash } from "node:crypto";
import type { KubeClient } from "@fairway/kube";
import { type Clock, MeshError } from "@fairway/runtime";

export interface Caller {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod that the token is bound to; tokens that are bound to none have neither. */
  readonly podName: string | undefined;
  readonly podUid: string | undefined;
}

export interface CallerReviewOptions {
  readonly client: KubeClient;
  readonly audiences: readonly string[];
  readonly clock: Clock;
}

interface TokenReview {
  status?: {
    authenticated?: boolean;
    error?: string;
    audiences?: string[];
    user?: { username?: string; groups?: string[]; extra?: Record<string, string[]> };
  };
}

/** A node's ztunnel asks for many certificates with one token; a revoked token is believed for no longer than this. */
const believedForMs = 10_000;
const cacheSize = 1_024;
const maxTokenBytes = 16 * 1024;
const usernamePattern = /^system:serviceaccount:([^:]+):([^:]+)$/;

export class CallerReview {
  readonly #options: CallerReviewOptions;
  readonly #believed = new Map<string, { caller: Caller; until: number }>();

  constructor(options: CallerReviewOptions) {
    this.#options = options;
  }

  /**
   * The caller of a request with this `authorization` header.
   * Throws CONTROLLER_UNAUTHENTICATED, or KUBE_UNAVAILABLE when nobody can be asked.
   */
  async authenticate(authorization: string | undefined): Promise<Caller> {
    const token = /^bearer (.+)$/i.exec(authorization ?? "")?.[1]?.trim();
    if (token === undefined || token.length > maxTokenBytes) throw unauthenticated("no bearer token was sent");
    const key = createHash("sha256").update(token).digest("base64");
    const now = this.#options.clock.monotonic();
    const believed = this.#believed.get(key);
    if (believed !== undefined && believed.until > now) return believed.caller;
    const caller = await this.#review(token);
    this.#believed.delete(key);
    if (this.#believed.size >= cacheSize) this.#forgetOldest();
    this.#believed.set(key, { caller, until: now + believedForMs });
    return caller;
  }

  async #review(token: string): Promise<Caller> {
    const { client, audiences } = this.#options;
    const review = { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: { token, audiences } };
    const { status = {} } = await client.request<TokenReview>("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review);
    if (status.authenticated !== true) throw unauthenticated(`the API server does not accept the token: ${status.error ?? "not authenticated"}`);
    // A server that does not know audiences answers without them; then the token was not checked for ours.
    if (!audiences.some((audience) => status.audiences?.includes(audience))) throw unauthenticated(`the token is not for ${audiences.join(" or ")}`);
    const [, namespace, serviceAccount] = usernamePattern.exec(status.user?.username ?? "") ?? [];
    if (namespace === undefined || serviceAccount === undefined || status.user?.groups?.includes("system:serviceaccounts") !== true) {
      throw unauthenticated(`${JSON.stringify(status.user?.username ?? "")} is not a service account`);
    }
    const extra = status.user.extra ?? {};
    return {
      namespace,
      serviceAccount,
      podName: extra["authentication.kubernetes.io/pod-name"]?.[0],
      podUid: extra["authentication.kubernetes.io/pod-uid"]?.[0],
    };
  }

  #forgetOldest(): void {
    for (const key of this.#believed.keys()) {
      this.#believed.delete(key);
      return;
    }
  }
}

function unauthenticated(why: string): MeshError {
  return new MeshError("CONTROLLER_UNAUTHENTICATED", `the caller cannot be authenticated: ${why}`);
}
