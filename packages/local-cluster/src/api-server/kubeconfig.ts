/** The kubeconfig a person or a program connects with: everything embedded, nothing to look up. */
import { stringify } from "yaml";

export interface KubeconfigFacts {
  readonly server: string;
  readonly caPem: string;
  readonly user: string;
  readonly token: string;
}

export function kubeconfigText({ server, caPem, user, token }: KubeconfigFacts): string {
  const cluster = "fairway-local";
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: cluster, cluster: { server, "certificate-authority-data": Buffer.from(caPem).toString("base64") } }],
    users: [{ name: user, user: { token } }],
    contexts: [{ name: cluster, context: { cluster, user, namespace: "default" } }],
    "current-context": cluster,
    preferences: {},
  });
}
