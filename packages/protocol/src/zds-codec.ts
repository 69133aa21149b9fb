/** What the node agent and ztunnel say to each other, one message per datagram (ztunnel contract 4.3 and 4.4). */
import * as wire from "./gen/istio/workload/zds/zds.ts";
import { ProtocolDecodeError, ProtocolEncodeError } from "./protocol-error.ts";
import { readMessage, requireField } from "./wire.ts";

/** Both sides read into a buffer of this size; a longer datagram is truncated and fatal for the connection. */
export const zdsMaxMessageBytes = 1024;

/** Tag and length of the two messages around an error text. */
const responseEnvelopeBytes = 8;

export interface ZdsHello {
  readonly version: "v1";
}

export interface ZdsWorkload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** `uid` is the Kubernetes UID of the pod, not the mesh's uid of the workload. */
export type ZdsRequest =
  /** Carries the pod's network namespace as a file descriptor. `workload` is undefined when the peer left it out: a protocol error. */
  | { readonly kind: "add"; readonly uid: string; readonly workload: ZdsWorkload | undefined }
  | { readonly kind: "keep"; readonly uid: string }
  | { readonly kind: "del"; readonly uid: string }
  | { readonly kind: "snapshot-sent" };

/** `error` is "" when the request was carried out. */
export interface ZdsResponse {
  readonly error: string;
}

export function encodeZdsHello(): Uint8Array {
  return wire.ZdsHello.encode({ version: wire.Version.V1 }).finish();
}

/** Throws ProtocolDecodeError, also for a version that we do not speak. */
export function decodeZdsHello(bytes: Uint8Array): ZdsHello {
  const { version } = readMessage(wire.ZdsHello, "ZdsHello", bytes);
  if (version !== wire.Version.V1) throw new ProtocolDecodeError("PROTOCOL_UNKNOWN_ENUM", `version: unknown value ${version}`);
  return { version: "v1" };
}

/** Throws ProtocolEncodeError when the request does not fit one datagram; names that Kubernetes accepts always fit. */
export function encodeZdsRequest(request: ZdsRequest): Uint8Array {
  const bytes = wire.WorkloadRequest.encode({ payload: requestPayload(request) }).finish();
  if (bytes.length > zdsMaxMessageBytes) {
    throw new ProtocolEncodeError(`a ZDS ${request.kind} request of ${bytes.length} bytes exceeds the ${zdsMaxMessageBytes} of a datagram`);
  }
  return bytes;
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeZdsRequest(bytes: Uint8Array): ZdsRequest {
  const payload = requireField("payload", readMessage(wire.WorkloadRequest, "WorkloadRequest", bytes).payload);
  switch (payload.$case) {
    case "add":
      return { kind: "add", uid: requireField("add.uid", payload.value.uid), workload: workloadInfo(payload.value.workloadInfo) };
    case "keep":
      return { kind: "keep", uid: requireField("keep.uid", payload.value.uid) };
    case "del":
      return { kind: "del", uid: requireField("del.uid", payload.value.uid) };
    case "snapshotSent":
      return { kind: "snapshot-sent" };
  }
}

/** An error text too long for a datagram is cut; the reason stands at its beginning. */
export function encodeZdsResponse({ error }: ZdsResponse): Uint8Array {
  return wire.WorkloadResponse.encode({ payload: { $case: "ack", value: { error: cutToBytes(error, zdsMaxMessageBytes - responseEnvelopeBytes) } } }).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeZdsResponse(bytes: Uint8Array): ZdsResponse {
  const payload = requireField("payload", readMessage(wire.WorkloadResponse, "WorkloadResponse", bytes).payload);
  return { error: payload.value.error };
}

function requestPayload(request: ZdsRequest): wire.WorkloadRequest["payload"] {
  switch (request.kind) {
    case "add":
      return { $case: "add", value: { uid: request.uid, workloadInfo: request.workload } };
    case "keep":
      return { $case: "keep", value: { uid: request.uid } };
    case "del":
      return { $case: "del", value: { uid: request.uid } };
    case "snapshot-sent":
      return { $case: "snapshotSent", value: {} };
  }
}

function workloadInfo(message: wire.WorkloadInfo | undefined): ZdsWorkload | undefined {
  return message && { name: message.name, namespace: message.namespace, serviceAccount: message.serviceAccount };
}

/** The longest prefix of whole characters; lone surrogates, which UTF-8 cannot carry, become U+FFFD. */
function cutToBytes(text: string, limit: number): string {
  const wellFormed = text.slice(0, limit).toWellFormed();
  const { read } = new TextEncoder().encodeInto(wellFormed, new Uint8Array(limit));
  return wellFormed.slice(0, read);
}
