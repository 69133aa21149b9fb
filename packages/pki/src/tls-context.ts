/**
 * TLS between proxies (ztunnel contract 1.1): TLS 1.3, two ciphers, ALPN exactly `h2`, no SNI, no resumption, both sides prove who
 * they are. One context per certificate and direction. Whatever a peer sends or omits ends in a rejected promise, a destroyed
 * socket and no uncaught event.
 */
import { constants } from "node:crypto";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect, createSecureContext, createServer, type SecureContext, type SecureContextOptions, type Server, type TLSSocket } from "node:tls";
import { identityOf, type SpiffeId } from "@fairway/model";
import { type Clock, errorCode, MeshError } from "@fairway/runtime";
import { privateKeyOf } from "./certificate.ts";
import type { MeshTls, PeerChain, Proven, WorkloadCertificate } from "./certificate-source.ts";
import { verifiedChain } from "./peer-chain.ts";
import { verifyClient, verifyServer } from "./verify-peer.ts";

export interface MeshTlsOptions {
  readonly clock: Clock;
  /** From the first byte to the proven peer. */
  readonly handshakeTimeoutMs?: number;
  /** `TLS12_ENABLED` of ztunnel contract 2.2. */
  readonly allowTls12?: boolean;
  /** Key exchange groups; `COMPLIANCE_POLICY=pqc` wants `postQuantumGroup` only. The platform's default unless given. */
  readonly groups?: string;
  /** Asked at every handshake about the verified chain, as far as it is known here; true refuses the peer (ztunnel contract 1.3). */
  readonly isRevoked?: (chain: PeerChain) => boolean;
}

/** The only key exchange of `COMPLIANCE_POLICY=pqc`. */
export const postQuantumGroup = "X25519MLKEM768";
export const defaultHandshakeTimeoutMs = 10_000;
const tls13Ciphers = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const tls12Ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256";
const alpn = "h2";

export function createMeshTls(options: MeshTlsOptions): MeshTls {
  const clients = new WeakMap<WorkloadCertificate, SecureContext>();
  const servers = new WeakMap<WorkloadCertificate, Server>();
  const pending = new WeakMap<Socket, Handshake>();

  const clientContext = (certificate: WorkloadCertificate): SecureContext => {
    const context = clients.get(certificate) ?? createSecureContext(contextOptions(certificate, options));
    clients.set(certificate, context);
    return context;
  };

  const server = (certificate: WorkloadCertificate): Server => {
    const known = servers.get(certificate);
    if (known !== undefined) return known;
    // Never listens: it is the public door to OpenSSL's verification of client certificates, fed by 'connection' events.
    const created = createServer({ ...contextOptions(certificate, options), requestCert: true, rejectUnauthorized: true, ALPNProtocols: [alpn] });
    created.on("secureConnection", (tls) => settle(tls, (handshake) => handshake.secured(tls)));
    created.on("tlsClientError", (error, tls) => settle(tls, (handshake) => handshake.failed(refusalOf(tls) ?? error)));
    servers.set(certificate, created);
    return created;
  };

  const settle = (tls: TLSSocket, act: (handshake: Handshake) => void): void => {
    const raw = wrappedSocket(tls);
    const handshake = raw === undefined ? undefined : pending.get(raw);
    if (handshake === undefined) tls.destroy();
    else act(handshake);
  };

  return {
    connect(socket, certificate, expected, { signal }) {
      return runHandshake(
        socket,
        options,
        signal,
        (tls) => prove(tls, certificate, options, (leaf) => verifyServer(leaf, expected)),
        (run) => {
          const tls = connect({
            socket,
            secureContext: clientContext(certificate),
            servername: "",
            ALPNProtocols: [alpn],
            rejectUnauthorized: true,
            // Names are SPIFFE identities, compared after the chain was verified; DNS names are never looked at.
            checkServerIdentity: () => undefined,
          });
          tls.once("secureConnect", () => run.secured(tls));
          tls.on("error", (error) => run.failed(error));
        },
      );
    },
    accept(socket, certificate, { signal }) {
      const { trustDomain } = identityOf(certificate.identity);
      const { allowHalfOpen } = socket;
      return runHandshake(
        socket,
        options,
        signal,
        (tls) => {
          tls.allowHalfOpen = allowHalfOpen;
          return prove(tls, certificate, options, (leaf) => verifyClient(leaf, trustDomain));
        },
        (run) => {
          pending.set(socket, run);
          // Whoever has sent its FIN completes no handshake: the socket closes then, and its place is free, instead of at the deadline.
          socket.allowHalfOpen = false;
          server(certificate).emit("connection", socket);
        },
      );
    },
  };
}

interface Handshake {
  secured(tls: TLSSocket): void;
  failed(error: unknown): void;
}

/** One handshake, ended once by the first of: success, error, close, deadline, abort. */
function runHandshake(
  socket: Duplex,
  { clock, handshakeTimeoutMs = defaultHandshakeTimeoutMs }: MeshTlsOptions,
  signal: AbortSignal,
  verify: (tls: TLSSocket) => Proven,
  start: (run: Handshake) => void,
): Promise<Proven> {
  return new Promise((resolve, reject) => {
    let ended = false;
    const end = (): boolean => {
      if (ended) return false;
      ended = true;
      deadline[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      socket.off("close", onClose);
      return true;
    };
    const fail = (error: unknown): void => {
      if (!end()) return;
      socket.destroy();
      reject(error);
    };
    const run: Handshake = {
      secured: (tls) => {
        // An error between this moment and the caller's own listener must not become an uncaught exception.
        tls.on("error", ignore);
        if (ended) {
          tls.destroy();
          return;
        }
        try {
          if (tls.alpnProtocol !== alpn) throw failed("the peer did not agree on HTTP/2 (ALPN h2); is it an ambient proxy?");
          const proven = verify(tls);
          if (end()) resolve(proven);
        } catch (thrown) {
          tls.destroy();
          const judged = thrown instanceof MeshError && thrown.code !== "PKI_BAD_CERTIFICATE";
          fail(judged ? thrown : failed("the peer's certificate cannot be read or judged", thrown));
        }
      },
      failed: (error) => fail(failed(explain(error), error)),
    };
    const onAbort = (): void => fail(signal.reason);
    // A turn later: of a client that a server refuses the socket closes first, and only then comes the reason.
    const onClose = (): void => void setImmediate(() => run.failed(new MeshError("PKI_PEER_CLOSED", "the peer closed the connection")));
    const deadline = clock.schedule(handshakeTimeoutMs, () =>
      run.failed(new MeshError("PKI_HANDSHAKE_TIMEOUT", `the peer was silent for ${handshakeTimeoutMs} ms`)),
    );
    // Stays for the life of the socket: TLS reports the failures, the raw socket only repeats them.
    socket.on("error", ignore);
    socket.once("close", onClose);
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    if (socket.destroyed) return onClose();
    try {
      if (socket instanceof Socket) socket.setNoDelay(true);
      start(run);
    } catch (thrown) {
      fail(MeshError.from(thrown, "PKI_HANDSHAKE_FAILED"));
    }
  });
}

/** Why OpenSSL refused a client's certificate: the server's only word of it besides the closed socket. */
function refusalOf(tls: TLSSocket): MeshError | undefined {
  // The code, whatever the published type says.
  const code: unknown = tls.authorizationError;
  return typeof code === "string" ? new MeshError(code, `the client's certificate was refused: ${code}`) : undefined;
}

function contextOptions(certificate: WorkloadCertificate, { allowTls12 = false, groups }: MeshTlsOptions): SecureContextOptions {
  if (certificate.roots.length === 0) throw new MeshError("PKI_NO_ROOTS", `the certificate of ${certificate.identity} came without roots to verify peers with`);
  return {
    key: privateKeyOf(certificate).export({ type: "pkcs8", format: "pem" }),
    cert: certificate.chain.join("\n"),
    ca: [...certificate.roots],
    // A root is whatever the CA sent as one, also when it is not self-signed, as the reference treats it.
    allowPartialTrustChain: true,
    minVersion: allowTls12 ? "TLSv1.2" : "TLSv1.3",
    maxVersion: "TLSv1.3",
    ciphers: allowTls12 ? `${tls13Ciphers}:${tls12Ciphers}` : tls13Ciphers,
    honorCipherOrder: true,
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    ...(groups === undefined ? {} : { ecdhCurve: groups }),
  };
}

/** Judges the chain that the handshake verified: not revoked, and of somebody we want (`who`). */
function prove(tls: TLSSocket, own: WorkloadCertificate, { isRevoked }: MeshTlsOptions, who: (leaf: Uint8Array) => SpiffeId): Proven {
  const leaf = tls.getPeerX509Certificate();
  if (leaf === undefined) throw failed("the peer showed no certificate");
  const chain = isRevoked === undefined ? undefined : verifiedChain(leaf, own);
  if (chain !== undefined && isRevoked?.(chain) === true) throw new MeshError("PKI_PEER_REVOKED", "the peer's certificate, or one above it, was revoked");
  return { socket: tls, peer: who(leaf.raw), chain };
}

/**
 * The socket that `tls` wraps. Node keeps it in `_parent`, undocumented; were it gone, no server handshake would be accepted
 * (and the first test of this file would say so).
 */
function wrappedSocket(tls: TLSSocket): Socket | undefined {
  return Reflect.get(tls, "_parent");
}

/** OpenSSL's and Node's codes in words; the code stays visible as the cause. */
const explanations: Readonly<Record<string, string>> = {
  ECONNRESET: "the peer reset the connection; it may have refused our certificate, or it does not speak TLS",
  PKI_PEER_CLOSED: "the peer closed the connection; it may have refused our certificate, or it does not speak TLS",
  CERT_HAS_EXPIRED: "the peer's certificate has expired; compare the clocks, and see whether its renewal fails",
  CERT_NOT_YET_VALID: "the peer's certificate is not valid yet; compare the clocks",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the peer's certificate is not signed by a root we trust; are both of the same mesh?",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the peer's certificate is not signed by a root we trust; are both of the same mesh?",
  SELF_SIGNED_CERT_IN_CHAIN: "the peer's certificate is not signed by a root we trust; are both of the same mesh?",
  DEPTH_ZERO_SELF_SIGNED_CERT: "the peer's certificate is not signed by a root we trust; are both of the same mesh?",
  INVALID_PURPOSE: "the peer's certificate is not made for this side of TLS (extendedKeyUsage)",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "the peer showed no certificate",
  ERR_SSL_WRONG_VERSION_NUMBER: "the peer does not speak TLS 1.3",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "the peer does not speak TLS 1.3",
  ERR_SSL_NO_SUITABLE_KEY_SHARE: "the peer offers no key exchange that we accept; is COMPLIANCE_POLICY set on one side only?",
  ERR_SSL_NO_SUITABLE_GROUPS: "the peer offers no key exchange that we accept; is COMPLIANCE_POLICY set on one side only?",
  "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE": "the peer accepts none of our key exchanges or ciphers; is COMPLIANCE_POLICY set on one side only?",
  ERR_SSL_NO_APPLICATION_PROTOCOL: "the peer did not agree on HTTP/2 (ALPN h2); is it an ambient proxy?",
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: "the peer did not agree on HTTP/2 (ALPN h2); is it an ambient proxy?",
};

function explain(error: unknown): string {
  const code = errorCode(error);
  return (code === undefined ? undefined : explanations[code]) ?? (error instanceof MeshError ? error.message : "the TLS exchange broke off");
}

function failed(what: string, cause?: unknown): MeshError {
  const code = errorCode(cause);
  const error = code?.startsWith("PKI_HANDSHAKE_TIMEOUT") ? "PKI_HANDSHAKE_TIMEOUT" : "PKI_HANDSHAKE_FAILED";
  return new MeshError(error, `the TLS handshake failed: ${what}`, { cause, ...(code === undefined ? {} : { details: { code } }) });
}

function ignore(): void {
  // Failures end in the handshake's promise, or in the 'close' event of the socket the caller holds.
}
