/** When another attempt may mend a failure, and how long to wait for it. Pure (waypoint contract rows 32 to 34). */
import { type GrpcRetryCondition, isGrpc, type RequestHead, type RetryCondition, type RetryPolicy } from "@fairway/model";
import { errorCode, MeshError } from "@fairway/runtime";
import type { Answer } from "./http-connection.ts";

const grpcConditions: Readonly<Record<string, GrpcRetryCondition>> = {
  "1": "cancelled",
  "4": "deadline-exceeded",
  "8": "resource-exhausted",
  "13": "internal",
  "14": "unavailable",
};
const conflict = 409;
const badGateway = 502;
const serviceUnavailable = 503;
const gatewayTimeout = 504;

export function shouldRetryAnswer({ on, statusCodes }: RetryPolicy, head: RequestHead, { status, headers }: Pick<Answer, "status" | "headers">): boolean {
  const grpc = isGrpc(head) ? grpcConditions[headers.get("grpc-status") ?? ""] : undefined;
  return on.some((condition) => {
    switch (condition) {
      case "5xx":
        return status >= 500;
      case "gateway-error":
        return status >= 502 && status <= 504;
      case "retriable-4xx":
        return status === conflict;
      case "retriable-status-codes":
        return statusCodes.includes(status);
      default:
        return condition === grpc;
    }
  });
}

/**
 * Failures on the way count as what the client would hear of them: 502, 503 or 504. The gRPC conditions ask what an application says of itself, so
 * that a connection which ended in the middle of a request is none: the application may have acted on it.
 */
export function shouldRetryError({ on, statusCodes }: RetryPolicy, error: unknown): boolean {
  const conditions = conditionsOf(error);
  const status = statusOf(error);
  return on.some((condition) =>
    condition === "retriable-status-codes" ? status !== undefined && statusCodes.includes(status) : conditions.includes(condition),
  );
}

function conditionsOf(error: unknown): readonly RetryCondition[] {
  switch (errorCode(error)) {
    case "WAYPOINT_UPSTREAM_CONNECT":
      return ["connect-failure", "reset", "gateway-error", "5xx", "unavailable"];
    case "WAYPOINT_UPSTREAM_RESET": {
      const refused = error instanceof MeshError && error.details["refused"] === true;
      const unsent = error instanceof MeshError && error.details["sent"] === false;
      return [...(refused ? (["refused-stream"] as const) : []), ...(unsent ? (["connect-failure"] as const) : []), "reset", "gateway-error", "5xx"];
    }
    case "WAYPOINT_UPSTREAM_GARBAGE":
      return ["reset", "gateway-error", "5xx"];
    case "WAYPOINT_PER_TRY_TIMEOUT":
      return ["reset", "gateway-error", "5xx", "deadline-exceeded"];
    default:
      return [];
  }
}

function statusOf(error: unknown): number | undefined {
  switch (errorCode(error)) {
    case "WAYPOINT_UPSTREAM_CONNECT":
    case "WAYPOINT_UPSTREAM_RESET":
      return serviceUnavailable;
    case "WAYPOINT_UPSTREAM_GARBAGE":
      return badGateway;
    case "WAYPOINT_PER_TRY_TIMEOUT":
      return gatewayTimeout;
    default:
      return undefined;
  }
}

/** Exponential with full jitter; `retry` is 1 for the first. */
export function backoffMs({ backoff }: RetryPolicy, retry: number, random: () => number): number {
  return Math.min(backoff.maxMs, backoff.baseMs * 2 ** Math.min(retry - 1, maxDoublings)) * random();
}

const maxDoublings = 20;
