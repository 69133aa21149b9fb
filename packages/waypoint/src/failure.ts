/** What can go wrong with a request, by code; `rescue.ts` says what the client hears of it, docs/request.md lists all. */
import { MeshError } from "@fairway/runtime";

export type WaypointCode =
  | "WAYPOINT_NOT_BOUND"
  | "WAYPOINT_NOT_PROGRAMMED"
  | "WAYPOINT_IDENTITY"
  | "WAYPOINT_BAD_PATH"
  | "WAYPOINT_TOKEN_REFUSED"
  | "WAYPOINT_POLICY_DENIED"
  | "WAYPOINT_NO_ROUTE"
  | "WAYPOINT_NO_CLUSTER"
  | "WAYPOINT_NO_BACKEND"
  | "WAYPOINT_NO_HEALTHY_UPSTREAM"
  | "WAYPOINT_UPSTREAM_CONNECT"
  | "WAYPOINT_UPSTREAM_RESET"
  | "WAYPOINT_UPSTREAM_GARBAGE"
  | "WAYPOINT_UPSTREAM_TIMEOUT"
  | "WAYPOINT_PER_TRY_TIMEOUT"
  | "WAYPOINT_DEADLINE_EXCEEDED"
  | "WAYPOINT_OVERFLOW"
  | "WAYPOINT_REQUEST_MALFORMED"
  | "WAYPOINT_ANSWERED_EARLY"
  | "WAYPOINT_BODY_LENGTH"
  | "WAYPOINT_NO_BODY"
  | "WAYPOINT_UNSENDABLE"
  | "WAYPOINT_UPGRADE_REFUSED"
  | "WAYPOINT_CLIENT_GONE"
  | "WAYPOINT_STOPPED"
  | "WAYPOINT_HALF_CLOSED"
  | "WAYPOINT_SUPERSEDED"
  | "WAYPOINT_KEYS_UNREACHABLE"
  | "WAYPOINT_LISTEN_FAILED"
  | "WAYPOINT_WORKER_LOST"
  | "WAYPOINT_INTERNAL";

/** A MeshError with one of this package's codes. */
export function waypointError(
  code: WaypointCode,
  message: string,
  options: { readonly cause?: unknown; readonly details?: Readonly<Record<string, unknown>> } = {},
): MeshError<WaypointCode> {
  return new MeshError(code, message, options);
}
