/** The two identities of the bench and their certificates, from a CA that lives for one run. */
import { type SpiffeId, spiffeId } from "@fairway/model";
import { Authority, type AuthorityPem, localCaClient, SecretManager, type WorkloadCertificate } from "@fairway/pki";
import { silentLogger, systemClock } from "@fairway/runtime";

export const clientIdentity: SpiffeId = spiffeId({ trustDomain: "cluster.local", namespace: "bench", serviceAccount: "client" });
export const waypointIdentity: SpiffeId = spiffeId({ trustDomain: "cluster.local", namespace: "bench", serviceAccount: "waypoint" });
export const serverIdentity: SpiffeId = spiffeId({ trustDomain: "cluster.local", namespace: "bench", serviceAccount: "server" });

export function newAuthority(): AuthorityPem {
  return Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock }).exportPem();
}

export function certificateOf(authority: AuthorityPem, identity: SpiffeId): Promise<WorkloadCertificate> {
  const secrets = new SecretManager({ ca: localCaClient(Authority.load(authority, systemClock)), clock: systemClock, log: silentLogger });
  return secrets.fetch(identity, { signal: new AbortController().signal });
}
