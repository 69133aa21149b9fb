/** What the API server's refusals are called here. Codes are stable; nobody matches message text. */
import { MeshError } from "@fairway/runtime";

export type KubeErrorCode =
  | "KUBE_NOT_FOUND"
  | "KUBE_CONFLICT"
  | "KUBE_FORBIDDEN"
  | "KUBE_INVALID"
  | "KUBE_GONE"
  | "KUBE_UNAVAILABLE"
  | "KUBE_BAD_CONFIG"
  | "KUBE_CLOSED";

/** The API server's error document, as far as we read it. */
export interface StatusDocument {
  message?: string;
  reason?: string;
  code?: number;
}

const codes: Readonly<Record<number, KubeErrorCode>> = {
  400: "KUBE_INVALID",
  401: "KUBE_FORBIDDEN",
  403: "KUBE_FORBIDDEN",
  404: "KUBE_NOT_FOUND",
  409: "KUBE_CONFLICT",
  410: "KUBE_GONE",
  422: "KUBE_INVALID",
};

/** An HTTP status as an error that says which request it answered. */
export function statusError(status: number, document: StatusDocument, request: { method: string; path: string }): MeshError<KubeErrorCode> {
  const code = codes[status] ?? "KUBE_UNAVAILABLE";
  const said = document.message === undefined || document.message === "" ? `HTTP ${status}` : document.message;
  const hint = code === "KUBE_FORBIDDEN" ? "; check the service account's roles and token" : "";
  return new MeshError(code, `${request.method} ${request.path}: ${said}${hint}`, { details: { status, reason: document.reason ?? "" } });
}

/** No answer at all: refused, reset, timed out. */
export function unreachable(cause: unknown, server: string, request: { method: string; path: string }): MeshError<KubeErrorCode> {
  return new MeshError("KUBE_UNAVAILABLE", `${request.method} ${request.path}: no answer from the API server ${server}; is it reachable from here?`, { cause });
}
