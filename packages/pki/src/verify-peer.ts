/** Who a verified certificate proves (ztunnel contract 1.2). Pure: the chain was checked by the handshake before. */
import { identityOf, type SpiffeId } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import { parseCertificate } from "./certificate.ts";

/**
 * The client's question: is the server one of those we wanted? Any of its names may match; none expected never matches.
 * Returns the server's first identity. Throws MeshError PKI_PEER_IDENTITY_MISMATCH or PKI_BAD_CERTIFICATE.
 */
export function verifyServer(leaf: Uint8Array, expected: readonly SpiffeId[]): SpiffeId {
  const { identities } = parseCertificate(leaf);
  const [first] = identities;
  if (first === undefined || !identities.some((identity) => expected.includes(identity))) {
    throw mismatch(`the server is ${list(identities)}, expected ${expected.length === 0 ? "nobody" : list(expected)}`, { presented: identities, expected });
  }
  return first;
}

/**
 * The server's question: is the client of our mesh? One of its names must be of `trustDomain`.
 * Returns the client's first identity. Throws MeshError PKI_PEER_IDENTITY_MISMATCH or PKI_BAD_CERTIFICATE.
 */
export function verifyClient(leaf: Uint8Array, trustDomain: string): SpiffeId {
  const { identities } = parseCertificate(leaf);
  const [first] = identities;
  if (first === undefined || !identities.some((identity) => identityOf(identity).trustDomain === trustDomain)) {
    throw mismatch(`the client is ${list(identities)}, which is not of the trust domain ${trustDomain}`, { presented: identities, trustDomain });
  }
  return first;
}

const namesInMessage = 4;

function list(identities: readonly SpiffeId[]): string {
  if (identities.length === 0) return "without a SPIFFE identity";
  const shown = identities.slice(0, namesInMessage).join(", ");
  return identities.length > namesInMessage ? `${shown} and ${identities.length - namesInMessage} more` : shown;
}

function mismatch(message: string, details: Readonly<Record<string, unknown>>): MeshError {
  return new MeshError("PKI_PEER_IDENTITY_MISMATCH", message, { details });
}
