/** Which step towards the control plane failed, and what to check. Told by codes and by trying the step again, never by message text. */
import { lookup } from "node:dns/promises";
import { connect, isIP } from "node:net";
import { errorCode, MeshError, messageOf } from "@fairway/runtime";
import { type ServiceError, status } from "@grpc/grpc-js";

export type ConnectionStep = "resolve" | "connect" | "tls" | "authz" | "xds";

const codes = {
  resolve: "XDS_RESOLVE_FAILED",
  connect: "XDS_CONNECT_FAILED",
  tls: "XDS_TLS_FAILED",
  authz: "XDS_AUTHORIZATION_FAILED",
  xds: "XDS_STREAM_FAILED",
} as const;

export function connectionError(step: ConnectionStep, target: string, hint: string, cause: unknown): MeshError {
  return new MeshError(codes[step], `discovery from ${target} failed at the step "${step}"; ${hint}`, { cause, details: { step } });
}

/** A stream that the server, once reached, ended with an error. */
export function streamError(target: string, error: ServiceError): MeshError {
  if (error.code === status.UNAUTHENTICATED) {
    return connectionError("authz", target, "is our service account token mounted, not expired, and of the audience the control plane expects?", error);
  }
  if (error.code === status.PERMISSION_DENIED) {
    return connectionError("authz", target, "may this service account read the mesh? The control plane's log names the rule", error);
  }
  if (error.code === status.UNIMPLEMENTED) return connectionError("xds", target, "it does not serve delta discovery; is this the control plane's port?", error);
  if (error.code === status.RESOURCE_EXHAUSTED) return connectionError("xds", target, "it is overloaded, or sent a message larger than we accept", error);
  return connectionError("xds", target, `it ended the stream with ${status[error.code] ?? error.code}`, error);
}

const probeTimeoutMs = 2_000;

/** After a failed connection: resolves the name and opens a TCP connection once more, to say which step it was. */
export async function diagnose(target: string, cause: unknown, { signal }: { signal: AbortSignal }): Promise<MeshError> {
  const { host, port } = splitTarget(target);
  try {
    if (isIP(host) === 0) await lookup(host);
  } catch (thrown) {
    return connectionError(
      "resolve",
      target,
      `the name did not resolve (${errorCode(thrown) ?? messageOf(thrown)}); is DNS reachable, and does the Service exist?`,
      cause,
    );
  }
  const refused = await tryConnect(host, port, AbortSignal.any([signal, AbortSignal.timeout(probeTimeoutMs)]));
  if (refused !== undefined) {
    return connectionError("connect", target, `no TCP connection (${refused}); is the control plane running, and does a network policy block us?`, cause);
  }
  return connectionError("tls", target, "TCP works but TLS does not; is the mounted root the one that signed its certificate, and is this name in it?", cause);
}

function tryConnect(host: string, port: number, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, signal });
    const end = (outcome: string | undefined): void => {
      socket.destroy();
      resolve(outcome);
    };
    socket.on("error", (error) => end(errorCode(error) === "ABORT_ERR" ? "no answer in time" : (errorCode(error) ?? "failed")));
    socket.on("connect", () => end(undefined));
  });
}

function splitTarget(target: string): { host: string; port: number } {
  const at = target.lastIndexOf(":");
  return { host: target.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(target.slice(at + 1)) || 443 };
}
