/** Where the CA's key lives: the Secret `istio-ca-secret`, or a plugged-in `cacerts` (controller contract 7.3, 7.4). */
import { type Collection, type KubeClient, resources, type Secret } from "@fairway/kube";
import { Authority, type AuthorityPem } from "@fairway/pki";
import { type Clock, errorCode, type Logger, MeshError, type Watch, Watched } from "@fairway/runtime";
import { untilAborted } from "./until-aborted.ts";

export interface CaStoreOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly log: Logger;
}

const selfSignedName = "istio-ca-secret";
const pluggedInName = "cacerts";
const rotationCheckMs = 3_600_000;

/** Keeps the current authority. Every replica follows the Secrets; only the leader rotates. */
export class CaStore implements AsyncDisposable {
  readonly #options: CaStoreOptions;
  readonly #secrets: readonly (Collection<Secret> & AsyncDisposable)[];
  readonly #authority: Watched<Authority>;

  private constructor(options: CaStoreOptions, secrets: readonly (Collection<Secret> & AsyncDisposable)[], authority: Authority) {
    this.#options = options;
    this.#secrets = secrets;
    this.#authority = new Watched(authority);
    for (const collection of secrets) collection.subscribe(() => this.#reload());
  }

  /** Loads the CA, or makes one and stores it. Throws PKI_CA_MATERIAL when what is stored cannot be used, KUBE_* when it cannot be read. */
  static async open(options: CaStoreOptions, { signal }: { signal: AbortSignal }): Promise<CaStore> {
    const { client, namespace, log } = options;
    const secrets = [pluggedInName, selfSignedName].map((name) => client.collection(resources.secrets, { namespace, fieldSelector: `metadata.name=${name}` }));
    try {
      await untilAborted(
        Promise.all(secrets.map(({ synced }) => synced)).then(() => undefined),
        signal,
      );
      signal.throwIfAborted();
      const stored = latestPem(secrets);
      if (stored !== undefined) {
        log.info("loaded the CA", { secret: stored.secret });
        return new CaStore(options, secrets, Authority.load(stored.pem, options.clock));
      }
      return new CaStore(options, secrets, await createStored(options));
    } catch (thrown) {
      await Promise.all(secrets.map((collection) => collection[Symbol.asyncDispose]()));
      throw thrown;
    }
  }

  get authority(): Watch<Authority> {
    return this.#authority;
  }

  /** Replaces a self-signed root in the last fifth of its life, keeping its key; runs while this replica leads. */
  async rotate(signal: AbortSignal): Promise<void> {
    const { clock, client, namespace, log } = this.#options;
    while (!signal.aborted) {
      try {
        const current = this.#authority.current;
        const stored = latestPem(this.#secrets);
        if (stored?.secret === selfSignedName && current.needsRotation) {
          const object = await client.get(resources.secrets, selfSignedName, namespace);
          await client.replace(resources.secrets, { ...object, data: encode(current.rotated().exportPem()) });
          log.info("rotated the root certificate", { secret: selfSignedName });
        }
      } catch (thrown) {
        log.error("the root certificate could not be rotated", { error: MeshError.from(thrown, "CONTROLLER_ROTATION_FAILED") });
      }
      await clock.sleep(rotationCheckMs, { signal }).catch(() => undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#secrets.map((collection) => collection[Symbol.asyncDispose]()));
  }

  /** New files are taken only when running peers would accept what is signed with them. */
  #reload(): void {
    const stored = latestPem(this.#secrets);
    if (stored === undefined) {
      this.#options.log.warn("the CA's Secret is gone; the CA in memory stays in use", { secret: selfSignedName });
      return;
    }
    const { log } = this.#options;
    if (same(stored.pem, this.#authority.current.exportPem())) return;
    try {
      this.#authority.set(this.#authority.current.reloaded(stored.pem));
      log.info("reloaded the CA", { secret: stored.secret });
    } catch (thrown) {
      log.error("the changed CA cannot be used; the previous one stays in use", { secret: stored.secret, error: MeshError.from(thrown, "PKI_CA_MATERIAL") });
    }
  }
}

/** Of several replicas that start together one stores its CA; the others take that one. */
async function createStored({ client, namespace, trustDomain, clock, log }: CaStoreOptions): Promise<Authority> {
  const authority = Authority.createSelfSigned({ trustDomain, clock });
  try {
    await client.create(resources.secrets, { metadata: { name: selfSignedName, namespace }, type: "istio.io/ca-root", data: encode(authority.exportPem()) });
    log.info("created a self-signed CA", { secret: selfSignedName, trustDomain });
    return authority;
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_CONFLICT") throw thrown;
    const pem = readPem(await client.get(resources.secrets, selfSignedName, namespace));
    if (pem === undefined) throw new MeshError("PKI_CA_MATERIAL", `the Secret ${namespace}/${selfSignedName} holds no CA`);
    return Authority.load(pem, clock);
  }
}

/** A plugged-in CA goes first. */
function latestPem(secrets: readonly Collection<Secret>[]): { secret: string; pem: AuthorityPem } | undefined {
  for (const collection of secrets) {
    for (const object of collection.list()) {
      const pem = readPem(object);
      if (pem !== undefined) return { secret: object.metadata.name, pem };
    }
  }
  return undefined;
}

/** The reference's file names, or those of a kubernetes.io/tls Secret. */
function readPem({ data = {} }: Secret): AuthorityPem | undefined {
  const text = (...names: readonly string[]): string | undefined => {
    const value = names.map((name) => data[name]).find((encoded) => encoded !== undefined && encoded !== "");
    return value === undefined ? undefined : Buffer.from(value, "base64").toString("utf8");
  };
  const caCert = text("ca-cert.pem", "tls.crt");
  const caKey = text("ca-key.pem", "tls.key");
  if (caCert === undefined || caKey === undefined) return undefined;
  const certChain = text("cert-chain.pem");
  const rootCert = text("root-cert.pem", "ca.crt");
  return { caCert, caKey, ...(certChain === undefined ? {} : { certChain }), ...(rootCert === undefined ? {} : { rootCert }) };
}

function encode({ caCert, caKey, certChain, rootCert }: Required<AuthorityPem>): Record<string, string> {
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  return { "ca-cert.pem": base64(caCert), "ca-key.pem": base64(caKey), "cert-chain.pem": base64(certChain), "root-cert.pem": base64(rootCert) };
}

function same(a: AuthorityPem, b: AuthorityPem): boolean {
  return a.caCert.trim() === b.caCert.trim() && a.caKey.trim() === b.caKey.trim() && (a.rootCert ?? "").trim() === (b.rootCert ?? "").trim();
}
