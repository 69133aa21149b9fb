/** The controller's own TLS identity: signed by its CA, renewed at half its life and whenever the CA changes (controller contract 7.5). */
import type { Authority, ServingCertificate } from "@fairway/pki";
import { type Clock, type Logger, MeshError, type Watch } from "@fairway/runtime";
import { ServerCredentials } from "@grpc/grpc-js";

export interface ServingOptions {
  readonly authority: Watch<Authority>;
  readonly dnsNames: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

const servingTtlMs = 24 * 3_600_000;
const retryMs = 60_000;

/** Credentials of a gRPC server whose certificate changes while it serves; connections that stand are not touched. */
export class RotatingCredentials extends ServerCredentials {
  constructor({ key, cert }: ServingCertificate) {
    super({ minVersion: "TLSv1.2" }, { key, cert });
  }

  rotate({ key, cert }: ServingCertificate): void {
    this.updateSecureContextOptions({ key, cert });
  }

  override _equals(other: ServerCredentials): boolean {
    return other === this;
  }
}

/** Names under which proxies find the control plane in `namespace` (controller contract 6.1). */
export function serverNames(namespace: string, clusterDomain: string, extra: readonly string[]): readonly string[] {
  const services = ["fairway-controller", "istiod", "istiod-remote", "istio-pilot"];
  return [
    ...services.flatMap((name) => [`${name}.${namespace}.svc`, `${name}.${namespace}.svc.${clusterDomain}`, `${name}.${namespace}`]),
    "localhost",
    ...extra,
  ];
}

/** Signs now, and again in time. Dispose to stop renewing. */
export function serveWith({ authority, dnsNames, clock, log }: ServingOptions): { credentials: RotatingCredentials } & Disposable {
  const sign = (): ServingCertificate => authority.current.signServer({ dnsNames, ips: ["127.0.0.1", "::1"], ttlMs: servingTtlMs });
  let certificate = sign();
  const credentials = new RotatingCredentials(certificate);
  let timer: Disposable | undefined;
  const renew = (): void => {
    timer?.[Symbol.dispose]();
    try {
      certificate = sign();
      credentials.rotate(certificate);
      log.info("renewed the serving certificate", { notAfter: new Date(certificate.notAfter).toISOString() });
      plan();
    } catch (thrown) {
      log.error("the serving certificate could not be renewed", { error: MeshError.from(thrown, "CONTROLLER_SERVING_FAILED") });
      timer = clock.schedule(retryMs, renew);
    }
  };
  const plan = (): void => {
    timer = clock.schedule((certificate.notAfter - clock.now()) / 2, renew);
  };
  plan();
  const subscription = authority.subscribe(renew);
  return {
    credentials,
    [Symbol.dispose]: () => {
      timer?.[Symbol.dispose]();
      subscription[Symbol.dispose]();
    },
  };
}
