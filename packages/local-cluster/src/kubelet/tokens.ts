/** Service account tokens of one pod: asked for by TokenRequest, bound to the pod, renewed before they expire. */
import type { KubeClient } from "@fairway/kube";
import type { Clock } from "@fairway/runtime";
import type { Pod } from "../resources.ts";
import type { TokenWish } from "./projected-files.ts";

interface Issued {
  readonly token: string;
  readonly renewAt: number;
}

/** The kubelet renews when this share of a token's life is over, and at the latest after a day. */
const renewalShare = 0.8;
const longestUseMs = 24 * 3_600_000;

export class PodTokens {
  readonly #client: KubeClient;
  readonly #pod: Pod;
  readonly #clock: Clock;
  readonly #issued = new Map<string, Issued>();

  constructor(client: KubeClient, pod: Pod, clock: Clock) {
    this.#client = client;
    this.#pod = pod;
    this.#clock = clock;
  }

  /** Issues what is missing or due. True when a token changed. Throws KUBE_… errors. */
  async ensure(wishes: readonly TokenWish[]): Promise<boolean> {
    let changed = false;
    for (const wish of wishes) {
      const held = this.#issued.get(keyOf(wish));
      if (held !== undefined && held.renewAt > this.#clock.now()) continue;
      this.#issued.set(keyOf(wish), await this.#request(wish));
      changed = true;
    }
    return changed;
  }

  /** The current token of a wish. */
  current(wish: TokenWish): string | undefined {
    return this.#issued.get(keyOf(wish))?.token;
  }

  async #request({ audience, expirationSeconds }: TokenWish): Promise<Issued> {
    const { name, namespace, uid } = this.#pod.metadata;
    const account = this.#pod.spec.serviceAccountName ?? "default";
    const asked = this.#clock.now();
    const { status } = await this.#client.request<{ status: { token: string; expirationTimestamp?: string } }>(
      "POST",
      `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
      {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: { ...(audience === undefined ? {} : { audiences: [audience] }), expirationSeconds, boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid } },
      },
    );
    const expires = Date.parse(status.expirationTimestamp ?? "");
    const lifeMs = Number.isNaN(expires) ? expirationSeconds * 1000 : expires - asked;
    return { token: status.token, renewAt: asked + Math.min(lifeMs * renewalShare, longestUseMs) };
  }
}

function keyOf({ audience, expirationSeconds }: TokenWish): string {
  return `${audience ?? ""} ${expirationSeconds}`;
}
