/** What a service port speaks, from `appProtocol` or the port's name (controller contract 2.9). */
import type { ServicePort } from "@fairway/kube";
import type { AppProtocol } from "@fairway/model";

const kubernetesProtocols: ReadonlyMap<string, AppProtocol> = new Map([
  ["kubernetes.io/h2c", "http2"],
  ["kubernetes.io/ws", "http11"],
  ["kubernetes.io/wss", "tls"],
]);

/** Words that the wire knows. Others that the API knows (udp, mongo, redis, mysql, grpc-web, http_proxy) are "unknown" there. */
const words: ReadonlyMap<string, AppProtocol> = new Map([
  ["tcp", "tcp"],
  ["grpc", "grpc"],
  ["http", "http11"],
  ["http2", "http2"],
  ["https", "tls"],
  ["tls", "tls"],
]);
const otherWords: ReadonlySet<string> = new Set(["udp", "http_proxy", "mongo", "redis", "mysql"]);
/** Ports whose servers speak first; sniffing them would hang. */
const serverFirstPorts: ReadonlySet<number> = new Set([25, 53, 3306, 27017]);

export function appProtocol({ protocol, appProtocol: declared, name = "", port }: ServicePort): AppProtocol {
  if (protocol === "UDP") return "unknown";
  const candidate = declared === undefined || declared === "" ? name : declared;
  const known = kubernetesProtocols.get(candidate);
  if (known !== undefined) return known;
  const lower = candidate.toLowerCase();
  if (lower.startsWith("grpc-web")) return "unknown";
  const word = lower.split("-", 1)[0] ?? "";
  const spoken = words.get(word);
  if (spoken !== undefined) return spoken;
  if (otherWords.has(word)) return "unknown";
  return serverFirstPorts.has(port) ? "tcp" : "unknown";
}
