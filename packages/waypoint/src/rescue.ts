/**
 * From a failure to an answer: the only place where errors become statuses, flags and words for the client (waypoint contract 6.1).
 * A gRPC client gets HTTP 200 and a grpc-status, so that its library can read it.
 */
import { HeaderFields, isGrpc, type RequestHead } from "@fairway/model";
import { errorCode, MeshError, messageOf } from "@fairway/runtime";
import { emptyBody, textBody } from "./body.ts";
import type { Exchange } from "./exchange.ts";
import type { Answer } from "./http-connection.ts";

interface Rescue {
  readonly status: number;
  /** Envoy's response flag. */
  readonly flag?: string;
  /** What the client reads; the error's own words stay in the log. */
  readonly body: string;
  /** Envoy's response code detail. */
  readonly detail: string;
  /** Where it is not what the HTTP status maps to. */
  readonly grpcStatus?: number;
  readonly overloaded?: boolean;
}

/** What the record says of a request whose client left before there was an answer. */
export const clientGoneDetail = "downstream_remote_disconnect";
const resetPrefix = "upstream connect error or disconnect/reset before headers. reset reason: ";

const rescues: Readonly<Record<string, Rescue>> = {
  WAYPOINT_BAD_PATH: { status: 400, body: "", detail: "path_normalization_failed" },
  WAYPOINT_TOKEN_REFUSED: { status: 401, flag: "UAEX", body: "Jwt verification fails", detail: "jwt_authn_access_denied" },
  WAYPOINT_POLICY_DENIED: { status: 403, body: "RBAC: access denied", detail: "rbac_access_denied_matched_policy[none]" },
  WAYPOINT_SUPERSEDED: { status: 503, flag: "NR", body: "no healthy upstream", detail: "target_not_bound" },
  WAYPOINT_NO_ROUTE: { status: 404, flag: "NR", body: "", detail: "route_not_found" },
  WAYPOINT_NO_CLUSTER: { status: 503, flag: "NC", body: "", detail: "cluster_not_found" },
  WAYPOINT_NO_BACKEND: { status: 500, flag: "NC", body: "", detail: "cluster_not_found" },
  WAYPOINT_NO_HEALTHY_UPSTREAM: { status: 503, flag: "UH", body: "no healthy upstream", detail: "no_healthy_upstream" },
  WAYPOINT_UPSTREAM_CONNECT: {
    status: 503,
    flag: "UF",
    body: `${resetPrefix}remote connection failure`,
    detail: "upstream_reset_before_response_started{remote_connection_failure}",
  },
  WAYPOINT_UPSTREAM_RESET: {
    status: 503,
    flag: "UC",
    body: `${resetPrefix}connection termination`,
    detail: "upstream_reset_before_response_started{connection_termination}",
  },
  WAYPOINT_UPSTREAM_GARBAGE: {
    status: 502,
    flag: "UPE",
    body: `${resetPrefix}protocol error`,
    detail: "upstream_reset_before_response_started{protocol_error}",
  },
  WAYPOINT_UPSTREAM_TIMEOUT: { status: 504, flag: "UT", body: "upstream request timeout", detail: "upstream_response_timeout", grpcStatus: 4 },
  WAYPOINT_DEADLINE_EXCEEDED: { status: 504, flag: "UT", body: "upstream request timeout", detail: "upstream_max_stream_duration_reached", grpcStatus: 4 },
  WAYPOINT_PER_TRY_TIMEOUT: { status: 504, flag: "UT", body: "upstream request timeout", detail: "upstream_per_try_timeout", grpcStatus: 4 },
  WAYPOINT_OVERFLOW: { status: 503, flag: "UO", body: `${resetPrefix}overflow`, detail: "upstream_reset_before_response_started{overflow}", overloaded: true },
  WAYPOINT_REQUEST_MALFORMED: { status: 400, flag: "DPE", body: "", detail: "http1.codec_error" },
  // Nobody reads it; the log says 0, as Envoy's does.
  WAYPOINT_CLIENT_GONE: { status: 499, flag: "DC", body: "", detail: clientGoneDetail },
  WAYPOINT_STOPPED: { status: 503, flag: "OM", body: "no healthy upstream", detail: "shutting_down" },
};

const internal: Rescue = { status: 500, flag: "LR", body: "internal error", detail: "internal_error" };

/** gRPC statuses of HTTP ones, as gRPC's own mapping has them; 2 is UNKNOWN. */
const grpcStatuses: Readonly<Record<number, number>> = { 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14 };
const longestGrpcMessage = 1_024;

/** The answer for `thrown`, with its flag and detail written to the record. */
export function rescued(exchange: Exchange, thrown: unknown): Answer {
  const error = MeshError.from(thrown, "WAYPOINT_INTERNAL");
  const rescue = rescues[error.code] ?? internal;
  const { record } = exchange;
  if (rescue.flag !== undefined) record.flags.add(rescue.flag);
  record.detail = textDetail(error, "detail") ?? rescue.detail;
  if (isUpstreamFailure(error)) record.failure = messageOf(error);
  const headers = new HeaderFields();
  const challenge = textDetail(error, "challenge");
  if (challenge !== undefined) headers.append("www-authenticate", challenge);
  if (rescue.overloaded) headers.append("x-envoy-overloaded", "true");
  return localAnswer(exchange.request.head, {
    status: statusDetail(error) ?? rescue.status,
    body: textDetail(error, "body") ?? rescue.body,
    headers,
    ...(rescue.grpcStatus === undefined ? {} : { grpcStatus: rescue.grpcStatus }),
  });
}

/** An answer of this process's own. */
export function localAnswer(head: RequestHead, given: { status: number; body: string; headers?: HeaderFields; grpcStatus?: number }): Answer {
  const headers = given.headers ?? new HeaderFields();
  if (isGrpc(head)) {
    headers.append("content-type", "application/grpc");
    headers.append("grpc-status", String(given.grpcStatus ?? grpcStatuses[given.status] ?? 2));
    if (given.body !== "") headers.append("grpc-message", grpcMessage(given.body));
    return { status: 200, headers, body: emptyBody };
  }
  if (given.body !== "") headers.append("content-type", "text/plain");
  return { status: given.status, headers, body: textBody(given.body) };
}

/** Percent-encoded as gRPC wants it: all but printable ASCII, and the percent sign itself. */
function grpcMessage(text: string): string {
  const bytes = Buffer.from(text.slice(0, longestGrpcMessage));
  return [...bytes]
    .map((byte) => (byte >= 0x20 && byte <= 0x7e && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`))
    .join("");
}

/** Whether the failure is the upstream's, or of the way to it: what a retry may mend and the log explains. */
export function isUpstreamFailure(error: unknown): boolean {
  const code = errorCode(error);
  return code === "WAYPOINT_UPSTREAM_CONNECT" || code === "WAYPOINT_UPSTREAM_RESET" || code === "WAYPOINT_UPSTREAM_GARBAGE";
}

function textDetail({ details }: MeshError, name: string): string | undefined {
  const value = details[name];
  return typeof value === "string" ? value : undefined;
}

function statusDetail({ details }: MeshError): number | undefined {
  const value = details["status"];
  return typeof value === "number" ? value : undefined;
}
