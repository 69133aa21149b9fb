/** CAs as an organisation would plug them in, for the tests: root, intermediate, signer. */
import type { Clock } from "@fairway/runtime";
import type { AuthorityPem } from "./authority-material.ts";
import { type Asn1, bitString, boolean, context, encodeDer, encodePem, integer, octetString, oid, sequence, time } from "./der.ts";
import { basicConstraints, keyUsage, subjectKeyId } from "./extensions.ts";
import { issueCertificate, organizationName } from "./issue.ts";
import { generateKeyPair, type KeyPair, signatureAlgorithm, signBytes } from "./key.ts";

export interface TestAuthority {
  readonly pem: string;
  readonly key: KeyPair;
  readonly name: Asn1;
}

const yearMs = 365 * 86_400_000;

export function certificateAuthority(clock: Clock, label: string, issuer?: TestAuthority): TestAuthority {
  const key = generateKeyPair();
  const name = organizationName(label);
  const content = {
    subject: name,
    publicKey: key.publicKey,
    notBefore: clock.now() - 1000,
    notAfter: clock.now() + yearMs,
    // An identifier that no rule would compute: leaves must repeat it, not derive it.
    extensions: [basicConstraints({ isCa: true }), keyUsage({ isCa: true }), subjectKeyId(Buffer.from(`id of ${label}`))],
  };
  return { pem: encodePem("CERTIFICATE", issueCertificate(content, { name: issuer?.name ?? name, privateKey: (issuer?.key ?? key).privateKey })), key, name };
}

export interface ListContent {
  /** Hex. */
  readonly serialNumbers: readonly string[];
  readonly nextUpdate?: number;
  /** By object identifier. */
  readonly criticalExtensions?: Readonly<Record<string, Asn1>>;
}

/** A revocation list of `issuer` in DER. */
export function revocationList({ name, key }: TestAuthority, { serialNumbers, nextUpdate, criticalExtensions = {} }: ListContent): Buffer {
  const algorithm = signatureAlgorithm(key.privateKey);
  const entries = serialNumbers.map((serial) => sequence(integer(Buffer.from(serial, "hex")), time(0)));
  const extensions = Object.entries(criticalExtensions).map(([dotted, content]) => sequence(oid(dotted), boolean(true), octetString(encodeDer(content))));
  const signed = sequence(
    integer(Uint8Array.of(1)),
    algorithm,
    name,
    time(0),
    ...(nextUpdate === undefined ? [] : [time(nextUpdate)]),
    // RFC 5280 5.1.2.6: absent when there are none.
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    ...(extensions.length === 0 ? [] : [context(0, [sequence(...extensions)])]),
  );
  return encodeDer(sequence(signed, algorithm, bitString(signBytes(key.privateKey, encodeDer(signed)))));
}

export interface PluggedIn {
  readonly root: TestAuthority;
  readonly middle: TestAuthority;
  readonly signer: TestAuthority;
  readonly pem: Required<AuthorityPem>;
}

export function pluggedIn(clock: Clock, organization = "one"): PluggedIn {
  const root = certificateAuthority(clock, `root of ${organization}`);
  const middle = certificateAuthority(clock, `middle of ${organization}`, root);
  const signer = certificateAuthority(clock, `signer of ${organization}`, middle);
  return { root, middle, signer, pem: { caCert: signer.pem, caKey: privatePem(signer.key), certChain: middle.pem, rootCert: root.pem } };
}

export function privatePem({ privateKey }: KeyPair): string {
  return privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}
