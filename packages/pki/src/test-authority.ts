/** CAs as an organisation would plug them in, for the tests: root, intermediate, signer. */
import type { Clock } from "@fairway/runtime";
import type { AuthorityPem } from "./authority-material.ts";
import { type Asn1, encodePem } from "./der.ts";
import { basicConstraints, keyUsage, subjectKeyId } from "./extensions.ts";
import { issueCertificate, organizationName } from "./issue.ts";
import { generateKeyPair, type KeyPair } from "./key.ts";

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

export interface PluggedIn {
  readonly root: TestAuthority;
  readonly middle: TestAuthority;
  readonly pem: Required<AuthorityPem>;
}

export function pluggedIn(clock: Clock, organization = "one"): PluggedIn {
  const root = certificateAuthority(clock, `root of ${organization}`);
  const middle = certificateAuthority(clock, `middle of ${organization}`, root);
  const signer = certificateAuthority(clock, `signer of ${organization}`, middle);
  return { root, middle, pem: { caCert: signer.pem, caKey: privatePem(signer.key), certChain: middle.pem, rootCert: root.pem } };
}

export function privatePem({ privateKey }: KeyPair): string {
  return privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}
