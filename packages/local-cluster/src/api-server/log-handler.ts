/** `pods/log`: hands the query to the kubelet gateway and streams what comes, at the speed of the reader. */
import { once } from "node:events";
import { ApiError } from "./api-error.ts";
import type { ResourceExchange } from "./exchange.ts";
import { sendText } from "./exchange.ts";
import { arrayAt, atPath, stringAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { KubeletGateway } from "./kubelet-gateway.ts";
import { positive } from "./read-handlers.ts";

export async function serveLog(exchange: ResourceExchange, pod: KubeObject, gateway: KubeletGateway, nowMs: number): Promise<void> {
  const { info, response, signal } = exchange;
  const { query } = info;
  const number = (name: string) => (query.has(name) ? { [name]: positive(query.get(name), name) } : {});
  const container = containerOf(pod, query.get("container"));
  const chunks = gateway.logs(
    {
      namespace: info.namespace,
      pod: info.name,
      container,
      follow: flag(query, "follow"),
      previous: flag(query, "previous"),
      timestamps: flag(query, "timestamps"),
      ...number("tailLines"),
      ...since(query, nowMs),
      ...number("limitBytes"),
    },
    { signal },
  );
  for await (const chunk of chunks) {
    // The header waits for the first byte, so that a failure to open the log is still an answer with a code.
    if (!response.headersSent) response.writeHead(200, { "content-type": "text/plain", "cache-control": "no-cache, private" });
    if (signal.aborted || response.destroyed) return;
    if (!response.write(chunk)) await once(response, "drain", { signal });
  }
  if (response.headersSent) response.end();
  else sendText(exchange, 200, "", "text/plain");
}

/** `sinceTime` is an earlier way to say `sinceSeconds`. */
function since(query: URLSearchParams, nowMs: number): { sinceSeconds?: number } {
  const text = query.get("sinceTime");
  if (text === null) return query.has("sinceSeconds") ? { sinceSeconds: positive(query.get("sinceSeconds"), "sinceSeconds") } : {};
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw ApiError.badRequest("sinceTime must be an RFC 3339 time");
  return { sinceSeconds: Math.max(1, Math.ceil((nowMs - time) / 1000)) };
}

/** The container a request means: the one named, or the only one. */
export function containerOf(pod: KubeObject, wanted: string | null): string {
  const names = (key: string): readonly string[] => arrayAt(atPath(pod, "spec", key)).flatMap((container) => stringAt(atPath(container, "name")) ?? []);
  const containers = names("containers");
  const all = [...names("initContainers"), ...containers];
  if (wanted !== null && wanted !== "") {
    if (!all.includes(wanted)) throw ApiError.badRequest(`container ${wanted.slice(0, 63)} is not valid for pod ${pod.metadata.name}`);
    return wanted;
  }
  const preferred = pod.metadata.annotations?.["kubectl.kubernetes.io/default-container"];
  if (preferred !== undefined && containers.includes(preferred)) return preferred;
  if (containers.length === 1) return containers[0] ?? "";
  throw ApiError.badRequest(`a container name must be specified for pod ${pod.metadata.name}, choose one of: [${containers.join(" ")}]`);
}

export function flag(query: URLSearchParams, name: string): boolean {
  return query.get(name) === "true" || query.get(name) === "1";
}
