/** How the variables of a proxy name its control plane (ztunnel contract 2.2). Values in, settings out: no variable is read here. */
import type { ControlPlaneRoots, ControlPlaneToken } from "./control-plane.ts";

const tokenFile = "./var/run/secrets/tokens/istio-token";
const rootsFile = "./var/run/secrets/istio/root-cert.pem";

/** Where it is when nobody says: the service of the cluster, or this machine. Without a scheme it is TLS. */
export function controlPlaneAddress(given: string | undefined, { inCluster }: { readonly inCluster: boolean }): string {
  const address = given ?? (inCluster ? "https://istiod.istio-system.svc:15012" : "https://localhost:15012");
  return /^[a-z]+:\/\//.test(address) ? address : `https://${address}`;
}

/** SYSTEM, certificates as they are, or the path of a file. */
export function controlPlaneRoots(given: string = rootsFile): ControlPlaneRoots {
  if (given === "SYSTEM") return { kind: "system" };
  return given.includes("-----BEGIN CERTIFICATE-----") ? { kind: "pem", pem: given } : { kind: "file", path: given };
}

/** The path of a file that exists, or the token itself; without one given, the file that Kubernetes mounts, if it did. */
export function controlPlaneToken(given: string | undefined, exists: (path: string) => boolean): ControlPlaneToken {
  const candidate = given ?? tokenFile;
  if (exists(candidate)) return { kind: "file", path: candidate };
  return given === undefined ? { kind: "none" } : { kind: "literal", token: given };
}
