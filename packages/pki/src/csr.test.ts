import { generateKeyPairSync } from "node:crypto";
import { parseSpiffeId } from "@fairway/model";
import { errorCode, MeshError } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { buildCsr, maxCsrBytes, verifyCsr } from "./csr.ts";
import { decodePem, encodePem } from "./der.ts";
import { generateKeyPair } from "./key.ts";

const identity = parseSpiffeId("spiffe://cluster.local/ns/default/sa/alice");

test("a request carries the key and the identity, and proves possession of the key", (t) => {
  const key = generateKeyPair();
  const { publicKey, uris } = verifyCsr(buildCsr(identity, key), { identity });
  t.true(publicKey.equals(key.publicKey));
  t.deepEqual(uris, [identity]);
});

test("a request for another identity is refused by name", (t) => {
  const other = parseSpiffeId("spiffe://cluster.local/ns/default/sa/mallory");
  const error = t.throws(() => verifyCsr(buildCsr(other, generateKeyPair()), { identity }));
  t.is(errorCode(error), "PKI_CSR_FOREIGN_IDENTITY");
  t.regex(String(error?.message), /mallory/);
});

test("a request signed by another key is refused", (t) => {
  const [mine, other] = [generateKeyPair(), generateKeyPair()];
  const csr = buildCsr(identity, { publicKey: mine.publicKey, privateKey: other.privateKey });
  t.is(errorCode(t.throws(() => verifyCsr(csr))), "PKI_CSR_BAD_SIGNATURE");
});

test("no single altered byte passes", (t) => {
  const [der = Buffer.alloc(0)] = decodePem(buildCsr(identity, generateKeyPair()), ["CERTIFICATE REQUEST"]);
  for (let index = 0; index < der.length; index++) {
    const altered = Buffer.from(der);
    altered[index] = (altered[index] ?? 0) ^ 0x01;
    t.throws(() => verifyCsr(encodePem("CERTIFICATE REQUEST", altered)), { instanceOf: MeshError }, `byte ${index}`);
  }
});

for (const [name, key] of [
  ["Ed25519", generateKeyPairSync("ed25519")],
  ["RSA of 1024 bits", generateKeyPairSync("rsa", { modulusLength: 1024 })],
  ["ECDSA on secp256k1", generateKeyPairSync("ec", { namedCurve: "secp256k1" })],
] as const) {
  test(`a key of the wrong type is refused: ${name}`, (t) => {
    const signer = key.privateKey.asymmetricKeyType === "ed25519" ? generateKeyPair().privateKey : key.privateKey;
    const csr = buildCsr(identity, { publicKey: key.publicKey, privateKey: signer });
    t.is(errorCode(t.throws(() => verifyCsr(csr))), "PKI_KEY_TYPE");
  });
}

test("RSA of 2048 bits, which foreign proxies send, is accepted", (t) => {
  const key = generateKeyPairSync("rsa", { modulusLength: 2048 });
  t.true(verifyCsr(buildCsr(identity, key), { identity }).publicKey.equals(key.publicKey));
});

test("an oversized request is refused before it is parsed", (t) => {
  t.is(errorCode(t.throws(() => verifyCsr("x".repeat(maxCsrBytes + 1)))), "PKI_CSR_TOO_LARGE");
});

test("text and bytes that are no request throw PKI_CSR_MALFORMED and nothing else", (t) => {
  const refused = (text: string): boolean => errorCode(t.throws(() => verifyCsr(text))) === "PKI_CSR_MALFORMED";
  for (const text of ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA"])
    t.true(refused(text));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => refused(encodePem("CERTIFICATE REQUEST", bytes))),
    { numRuns: 150 },
  );
});

test("a cut request throws nothing but a MeshError", (t) => {
  const [der = Buffer.alloc(0)] = decodePem(buildCsr(identity, generateKeyPair()), ["CERTIFICATE REQUEST"]);
  for (let length = 0; length < der.length; length += 7) {
    t.throws(() => verifyCsr(encodePem("CERTIFICATE REQUEST", der.subarray(0, length))), { instanceOf: MeshError }, `${length} bytes`);
  }
});
