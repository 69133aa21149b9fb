/** The chain by which a peer was believed, kept as the few facts that revocation asks about (ztunnel contract 1.3). */
import { X509Certificate } from "node:crypto";
import type { ChainLink, PeerChain, WorkloadCertificate } from "./certificate-source.ts";
import { bytesOf, childrenOf, decodeDer, encodeDer, isContext } from "./der.ts";

/** A peer's chain longer than this was refused by OpenSSL before. */
const maxChainLength = 100;

/**
 * Reads the chain of a peer whose handshake succeeded. The runtime shows a server no intermediates of its client (and a client not the root), so
 * the rest is looked for in our own chain and roots: complete when the peer's certificate comes from the CA that ours comes from. An issuer counts
 * only when its key verifies the signature, so that a certificate of the same name that a peer sends beside the real one leads nowhere.
 */
export function verifiedChain(leaf: X509Certificate, own: WorkloadCertificate): PeerChain {
  const chain: ChainLink[] = [];
  for (let last = leaf; chain.length < maxChainLength; ) {
    const issued = last;
    const signed = (candidate: X509Certificate): boolean => issued.checkIssued(candidate) && issued.verify(candidate.publicKey);
    const { issuerCertificate: shown } = issued;
    const issuer = issuersOf(own).find(signed) ?? (shown !== undefined && signed(shown) ? shown : undefined);
    chain.push(linkOf(issued, issuer));
    if (issuer === undefined || issuer.fingerprint256 === issued.fingerprint256) break;
    last = issuer;
  }
  return chain;
}

/** Serial numbers as they are compared: an INTEGER's bytes in hex, without the zeros in front. */
export function serialText(integer: Uint8Array): string {
  return Buffer.from(integer)
    .toString("hex")
    .replace(/^0+(?=.)/, "");
}

function linkOf(certificate: X509Certificate, issuer: X509Certificate | undefined): ChainLink {
  const [tbs] = childrenOf(decodeDer(certificate.raw));
  const fields = childrenOf(tbs);
  // TBSCertificate: version [0] (absent in v1), serial number, algorithm, issuer.
  const [serial, , name] = isContext(fields[0], 0) ? fields.slice(1) : fields;
  return {
    issuerName: name === undefined ? "" : encodeDer(name).toString("base64"),
    serialNumber: serialText(bytesOf(serial)),
    issuer: issuer === undefined ? undefined : { fingerprint: issuer.fingerprint256, publicKey: issuer.publicKey },
  };
}

const issuers = new WeakMap<WorkloadCertificate, readonly X509Certificate[]>();

/** Those who may have signed a peer of ours, parsed once for each certificate in use. */
function issuersOf(own: WorkloadCertificate): readonly X509Certificate[] {
  const known = issuers.get(own) ?? [...own.chain.slice(1), ...own.roots].map((pem) => new X509Certificate(pem));
  issuers.set(own, known);
  return known;
}
