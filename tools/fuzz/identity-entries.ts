/** Keys, certificates and requests for them: what a peer presents before anything else is known of it. */
import { parseSpiffeId, spiffeId } from "../../packages/model/dist/index.js";
import { decodeDer, decodePem } from "../../packages/pki/dist/der.js";
import {
  Authority,
  buildCsr,
  generateKeyPair,
  parseCertificate,
  parseCertificates,
  verifyClient,
  verifyCsr,
  verifyServer,
} from "../../packages/pki/dist/index.js";
import { parsePrivateKey } from "../../packages/pki/dist/key.js";
import { systemClock } from "../../packages/runtime/dist/index.js";
import { type FuzzEntry, text } from "./entry.ts";

const identity = parseSpiffeId("spiffe://cluster.local/ns/default/sa/a");
const key = generateKeyPair();
const csr = buildCsr(identity, key);
const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const [leaf = "", root = ""] = authority.sign({ csr, identity });
const der = (pem: string): Buffer => decodePem(pem, ["CERTIFICATE", "CERTIFICATE REQUEST"])[0] ?? Buffer.alloc(0);
const keyPem = key.privateKey.export({ type: "pkcs8", format: "pem" }).toString();

/** Bytes as one PEM block. */
function pem(label: string, bytes: Buffer): string {
  return `-----BEGIN ${label}-----\n${bytes.toString("base64")}\n-----END ${label}-----\n`;
}

export const identityEntries: readonly FuzzEntry[] = [
  { name: "der", samples: [der(leaf), der(csr)], run: decodeDer },
  { name: "pem", samples: [leaf, csr], run: text((given) => decodePem(given, ["CERTIFICATE"])) },
  { name: "certificate", samples: [der(leaf), der(root)], run: parseCertificate },
  { name: "certificates", samples: [leaf + root], run: text(parseCertificates) },
  { name: "client-names", samples: [der(leaf)], run: (bytes) => verifyClient(bytes, "cluster.local") },
  { name: "server-names", samples: [der(leaf)], run: (bytes) => verifyServer(bytes, [identity]) },
  { name: "csr", samples: [der(csr)], run: (bytes) => verifyCsr(pem("CERTIFICATE REQUEST", bytes)) },
  { name: "csr-text", samples: [csr], run: text((given) => verifyCsr(given)) },
  { name: "private-key", samples: [keyPem], run: text(parsePrivateKey) },
  { name: "spiffe-parts", samples: ["cluster.local/default/a"], run: text((given) => spiffeId(...(given.split("/") as [string, string, string]))) },
];
