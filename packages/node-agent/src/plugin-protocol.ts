/** What the CNI plugin asks the agent, over HTTP on a unix socket. Shared by both sides; imports nothing, so that the plugin stays small. */

export const addPath = "/cmdadd";
/** What the plugin waits for the agent. */
export const pluginTimeoutMs = 5_000;

export interface AddRequest {
  readonly netns: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** "" when the runtime does not say. */
  readonly podUid: string;
  readonly ips: readonly string[];
  /** The plugin's own process: its view of the file system is where `netns` is a path. */
  readonly pid: number;
}

export type AddResponse = { readonly result: "enrolled" | "left-out" } | { readonly error: string; readonly code: string };

/** Undefined when it is no request of ours. */
export function parseAddRequest(text: string): AddRequest | undefined {
  const value = parseObject(text);
  if (value === undefined) return undefined;
  const { netns, podName, podNamespace, podUid, ips, pid } = value;
  if (typeof netns !== "string" || !netns.startsWith("/") || typeof podName !== "string" || typeof podNamespace !== "string") return undefined;
  if (typeof podUid !== "string" || typeof pid !== "number" || !Number.isSafeInteger(pid) || !Array.isArray(ips)) return undefined;
  if (!ips.every((ip): ip is string => typeof ip === "string")) return undefined;
  return { netns, podName, podNamespace, podUid, ips, pid };
}

/** Undefined when it is no answer of ours. */
export function parseAddResponse(text: string): AddResponse | undefined {
  const value = parseObject(text);
  if (value === undefined) return undefined;
  const { result, error, code } = value;
  if (result === "enrolled" || result === "left-out") return { result };
  if (typeof error === "string") return { error, code: typeof code === "string" ? code : "unknown" };
  return undefined;
}

export function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
