import { parseSpiffeId } from "@fairway/model";
import { errorCode, systemClock } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { Authority } from "./authority.ts";
import { parseCertificate } from "./certificate.ts";
import { type Asn1, boolean, context, encodeDer, octetString, oid, sequence } from "./der.ts";
import { emptyName, issueCertificate, organizationName } from "./issue.ts";
import { generateKeyPair } from "./key.ts";
import { verifyClient, verifyServer } from "./verify-peer.ts";

const alice = parseSpiffeId("spiffe://cluster.local/ns/default/sa/alice");
const bob = parseSpiffeId("spiffe://cluster.local/ns/default/sa/bob");
const uri = (text: string): Asn1 => context(6, Buffer.from(text, "latin1"));
const dns = (text: string): Asn1 => context(2, Buffer.from(text, "latin1"));
const sans = (...names: Asn1[]): Asn1 => sequence(oid("2.5.29.17"), boolean(true), octetString(encodeDer(sequence(...names))));

function certificate(extensions: Asn1[], subject = emptyName): Buffer {
  const { publicKey, privateKey } = generateKeyPair();
  return issueCertificate({ subject, publicKey, notBefore: 0, notAfter: 4_000_000_000_000, extensions }, { name: organizationName("test"), privateKey });
}

test("a server with the expected identity is who it says", (t) => {
  t.is(verifyServer(certificate([sans(uri(alice))]), [bob, alice]), alice);
});

test("of two identities any may match, and the first is who the peer is", (t) => {
  const both = certificate([sans(uri(alice), uri(bob))]);
  t.is(verifyServer(both, [bob]), alice);
  t.is(verifyClient(both, "cluster.local"), alice);
});

test("names that are no SPIFFE identity are skipped, not guessed at", (t) => {
  const mixed = certificate([sans(dns("alice.default.svc"), uri("https://example.com"), uri("spiffe://cluster.local/workload"), uri(alice))]);
  t.is(verifyClient(mixed, "cluster.local"), alice);
});

const impostors: readonly (readonly [string, Buffer])[] = [
  ["no subjectAltName", certificate([])],
  ["only a common name or organisation", certificate([], organizationName(alice))],
  ["the identity as a DNS name", certificate([sans(dns(alice))])],
  ["a DNS name that prints like a list", certificate([sans(dns(`x, URI:${alice}`))])],
  ["a URI that prints like a list", certificate([sans(uri(`https://x, URI:${alice}`))])],
  ["a NUL after the identity", certificate([sans(uri(`${alice}\0.evil.example`))])],
  ["a NUL in front", certificate([sans(uri(`\0${alice}`))])],
  ["an upper-case scheme", certificate([sans(uri(alice.replace("spiffe", "SPIFFE")))])],
  ["an upper-case trust domain", certificate([sans(uri(alice.replace("cluster.local", "CLUSTER.LOCAL")))])],
  ["a trailing slash", certificate([sans(uri(`${alice}/`))])],
  ["a sixth segment", certificate([sans(uri(`${alice}/x`))])],
  ["an encoded letter", certificate([sans(uri(alice.replace("alice", "%61lice")))])],
  ["a letter of another script", certificate([sans(uri(alice.replace("alice", "\xe1lice")))])],
  ["an otherName holding the identity", certificate([sans(context(0, [oid("1.3.6.1.4.1.1.1"), context(0, [octetString(Buffer.from(alice))])]))])],
  ["a constructed URI", certificate([sans(context(6, [octetString(Buffer.from(alice))]))])],
  ["another trust domain", certificate([sans(uri("spiffe://evil.local/ns/default/sa/alice"))])],
];

/** Somebody of the mesh all the same, only not alice: names are compared byte by byte, never decoded. */
const otherPeople = ["an encoded letter"];

for (const [name, der] of impostors) {
  test(`a peer is not believed with ${name}`, (t) => {
    t.is(errorCode(t.throws(() => verifyServer(der, [alice]))), "PKI_PEER_IDENTITY_MISMATCH");
    if (!otherPeople.includes(name)) t.is(errorCode(t.throws(() => verifyClient(der, "cluster.local"))), "PKI_PEER_IDENTITY_MISMATCH");
  });
}

test("a second subjectAltName extension makes the certificate unreadable", (t) => {
  const der = certificate([sans(uri(bob)), sans(uri(alice))]);
  t.is(errorCode(t.throws(() => verifyServer(der, [alice]))), "PKI_BAD_CERTIFICATE");
});

test("nobody expected means nobody is accepted", (t) => {
  t.is(errorCode(t.throws(() => verifyServer(certificate([sans(uri(alice))]), []))), "PKI_PEER_IDENTITY_MISMATCH");
});

test("an error names at most a handful of what was presented", (t) => {
  const many = certificate([sans(...Array.from({ length: 500 }, (_, index) => uri(`spiffe://evil.local/ns/default/sa/s${index}`)))]);
  t.true(String(t.throws(() => verifyClient(many, "cluster.local"))?.message).length < 400);
});

test("bytes that are no certificate throw PKI_BAD_CERTIFICATE and nothing else", (t) => {
  const real = certificate([sans(uri(alice))]);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => errorCode(t.throws(() => parseCertificate(bytes))) === "PKI_BAD_CERTIFICATE"),
    { numRuns: 100 },
  );
  fc.assert(
    fc.property(fc.nat(real.length - 1), fc.integer({ min: 1, max: 255 }), (index, flip) => {
      const altered = Buffer.from(real);
      altered[index] = (altered[index] ?? 0) ^ flip;
      try {
        parseCertificate(altered);
        return true;
      } catch (thrown) {
        return errorCode(thrown) === "PKI_BAD_CERTIFICATE";
      }
    }),
    { numRuns: 300 },
  );
});

test("names are read from certificates of the authority", (t) => {
  const [leaf = ""] = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock }).sign({
    publicKey: generateKeyPair().publicKey,
    identity: alice,
    ttlMs: 0,
  });
  t.is(verifyClient(Buffer.from(leaf.replaceAll(/-----[A-Z ]+-----|\n/g, ""), "base64"), "cluster.local"), alice);
});
