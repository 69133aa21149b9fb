/** A CA of openssl's making, root and signer, and the revocation lists that it publishes. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Authority, parseCertificates } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import type { ExecutionContext } from "ava";

/** True, and a visible line, on a machine without openssl. */
export function skippedWithoutOpenssl(t: ExecutionContext): boolean {
  if (spawnSync("openssl", ["version"]).status === 0) return false;
  t.log(`SKIPPED (needs the openssl command): ${t.title}`);
  t.pass();
  return true;
}

export class TestRevocation {
  /** As LOCAL_CA_PATH wants it. */
  readonly directory: string;
  readonly authority: Authority;
  readonly signerSerial: string;

  constructor(t: ExecutionContext) {
    this.directory = mkdtempSync(join(tmpdir(), "fwztunnel-ca-"));
    t.teardown(() => rmSync(this.directory, { recursive: true, force: true }));
    this.#write("ca.ext", "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n");
    this.#openssl("req", "-x509", ...this.#newKey("root-key.pem"), "-subj", "/O=root", "-days", "2", "-out", this.#path("root-cert.pem"));
    this.#openssl("req", ...this.#newKey("ca-key.pem"), "-subj", "/O=signer", "-out", this.#path("ca.csr"));
    const by = ["-CA", this.#path("root-cert.pem"), "-CAkey", this.#path("root-key.pem"), "-set_serial", "0x00f1"];
    this.#openssl("x509", "-req", "-in", this.#path("ca.csr"), ...by, "-days", "2", "-extfile", this.#path("ca.ext"), "-out", this.#path("ca-cert.pem"));
    const [caCert, caKey, rootCert] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem"].map((name) => readFileSync(this.#path(name), "utf8"));
    this.authority = Authority.load({ caCert: caCert ?? "", caKey: caKey ?? "", rootCert: rootCert ?? "" }, systemClock);
    this.signerSerial = parseCertificates(caCert ?? "")[0]?.serialNumber ?? "";
  }

  /** PEM: what the signer revokes of workloads, by serial number. */
  ofSigner(...serialNumbers: readonly string[]): string {
    return this.#list("ca-cert.pem", "ca-key.pem", serialNumbers);
  }

  /** PEM: what the root revokes of signers. */
  ofRoot(...serialNumbers: readonly string[]): string {
    return this.#list("root-cert.pem", "root-key.pem", serialNumbers);
  }

  #list(certificate: string, key: string, serialNumbers: readonly string[]): string {
    mkdirSync(this.#path("database"), { recursive: true });
    const rows = serialNumbers.map((serial) => `R\t491231235959Z\t200101000000Z\t${serial.toUpperCase()}\tunknown\t/O=x\n`);
    this.#write("database/index.txt", rows.join(""));
    this.#write("database/ca.cnf", `[ca]\ndefault_ca=own\n[own]\ndatabase=${this.#path("database/index.txt")}\ndefault_md=sha256\ndefault_crl_days=1\n`);
    const own = ["-cert", this.#path(certificate), "-keyfile", this.#path(key)];
    return this.#openssl("ca", "-gencrl", "-config", this.#path("database/ca.cnf"), ...own);
  }

  #newKey(name: string): string[] {
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", this.#path(name)];
  }

  #openssl(...args: readonly string[]): string {
    return execFileSync("openssl", [...args], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  #write(name: string, text: string): void {
    writeFileSync(this.#path(name), text);
  }

  #path(name: string): string {
    return join(this.directory, name);
  }
}
