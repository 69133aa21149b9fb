/** The three files every container gets: resolv.conf, hosts, hostname. Pure text. */
import { clusterDnsAddress } from "../network/address-plan.ts";
import type { Pod } from "../resources.ts";

export const clusterDomain = "cluster.local";

/** By the pod's DNS policy: cluster names first, or nothing but what `dnsConfig` says. The node itself resolves nothing. */
export function resolvConf(pod: Pod): string {
  const { dnsPolicy = "ClusterFirst", dnsConfig = {}, hostNetwork = false } = pod.spec;
  const cluster = dnsPolicy === "ClusterFirstWithHostNet" || (dnsPolicy === "ClusterFirst" && !hostNetwork);
  const namespace = pod.metadata.namespace ?? "default";
  const nameservers = [...(cluster ? [clusterDnsAddress] : []), ...(dnsConfig.nameservers ?? [])];
  const searches = [...(cluster ? [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain] : []), ...(dnsConfig.searches ?? [])];
  const options = [...(cluster ? ["ndots:5"] : []), ...(dnsConfig.options ?? []).map(({ name, value }) => (value === undefined ? name : `${name}:${value}`))];
  return [
    ...(searches.length === 0 ? [] : [`search ${searches.join(" ")}`]),
    ...nameservers.map((address) => `nameserver ${address}`),
    ...(options.length === 0 ? [] : [`options ${options.join(" ")}`]),
    "",
  ].join("\n");
}

/** Loopback, the pod by its own name, and the aliases it asks for. */
export function hostsFile(pod: Pod, ips: readonly string[]): string {
  const name = hostname(pod);
  const { subdomain } = pod.spec;
  const names = subdomain === undefined ? name : `${name}.${subdomain}.${pod.metadata.namespace}.svc.${clusterDomain}\t${name}`;
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    ...ips.map((ip) => `${ip}\t${names}`),
    ...(pod.spec.hostAliases ?? []).map(({ ip, hostnames = [] }) => `${ip}\t${hostnames.join("\t")}`),
    "",
  ].join("\n");
}

/** The kernel allows 64 bytes; Kubernetes cuts at 63. */
export function hostname(pod: Pod): string {
  return (pod.spec.hostname ?? pod.metadata.name).slice(0, 63).replace(/[.-]+$/, "");
}
