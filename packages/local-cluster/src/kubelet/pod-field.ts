/** The downward API: fields of the pod and resources of its containers as text. Pure. */
import { availableParallelism, totalmem } from "node:os";
import { MeshError } from "@fairway/runtime";
import type { Container, Pod } from "../resources.ts";

export interface PodAddresses {
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
}

/** The value at a `fieldPath`. Throws LOCAL_CLUSTER_CONTAINER_CONFIG for one that Kubernetes does not offer. */
export function podField(path: string, pod: Pod, { podIps, hostIps }: PodAddresses): string {
  const { metadata, spec } = pod;
  const subscript = /^metadata\.(labels|annotations)\['([^']*)'\]$/.exec(path);
  if (subscript !== null) return (subscript[1] === "labels" ? metadata.labels : metadata.annotations)?.[subscript[2] ?? ""] ?? "";
  switch (path) {
    case "metadata.name":
      return metadata.name;
    case "metadata.namespace":
      return metadata.namespace ?? "";
    case "metadata.uid":
      return metadata.uid ?? "";
    case "metadata.labels":
      return mapLines(metadata.labels);
    case "metadata.annotations":
      return mapLines(metadata.annotations);
    case "spec.nodeName":
      return spec.nodeName ?? "";
    case "spec.serviceAccountName":
      return spec.serviceAccountName ?? "default";
    case "status.hostIP":
      return hostIps[0] ?? "";
    case "status.hostIPs":
      return hostIps.join(",");
    case "status.podIP":
      return podIps[0] ?? "";
    case "status.podIPs":
      return podIps.join(",");
    default:
      throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `unsupported fieldPath: ${path}`);
  }
}

/** A limit or request, divided and rounded up; without a limit, what the machine has. */
export function resourceField(ref: { containerName?: string; resource: string; divisor?: string }, container: Container, pod: Pod): string {
  const from = ref.containerName === undefined ? container : (pod.spec.containers.find(({ name }) => name === ref.containerName) ?? container);
  const [kind, name = ""] = ref.resource.split(".", 2);
  const { limits = {}, requests = {} } = from.resources ?? {};
  const own = kind === "limits" ? limits[name] : (requests[name] ?? limits[name]);
  const machine = kind === "limits" ? (name === "cpu" ? availableParallelism() : name === "memory" ? totalmem() : 0) : 0;
  const amount = own === undefined ? machine : parseQuantity(String(own));
  const divisor = ref.divisor === undefined || ref.divisor === "0" ? 1 : parseQuantity(ref.divisor);
  return String(Math.ceil(amount / (divisor || 1)));
}

const suffixes: Readonly<Record<string, number>> = {
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** A Kubernetes quantity as a number; 0 for what is not one. */
export function parseQuantity(text: string): number {
  const parts = /^([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)([a-zA-Z]*)$/.exec(text.trim());
  const factor = suffixes[parts?.[2] ?? ""];
  return parts === null || factor === undefined ? 0 : Number(parts[1]) * factor;
}

function mapLines(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join("\n");
}
