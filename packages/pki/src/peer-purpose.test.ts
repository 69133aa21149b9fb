/** What a certificate says it may be used for (ztunnel contract 1.2): counted where it says something, on either side. */
import { parseSpiffeId } from "@fairway/model";
import { errorCode, messageOf, systemClock } from "@fairway/runtime";
import test from "ava";
import { workloadCertificate } from "./certificate.ts";
import type { WorkloadCertificate } from "./certificate-source.ts";
import { type Asn1, encodeDer, encodePem, octetString, oid, sequence } from "./der.ts";
import { keyUsage, subjectAltNames } from "./extensions.ts";
import { emptyName, issueCertificate } from "./issue.ts";
import { generateKeyPair } from "./key.ts";
import { certificateAuthority } from "./test-authority.ts";
import { pair } from "./test-socket-pair.ts";
import { createMeshTls } from "./tls-context.ts";

const root = certificateAuthority(systemClock, "root");
const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";
const { signal } = new AbortController();
const tls = createMeshTls({ clock: systemClock });

for (const [what, purposes] of [
  ["no purpose at all", undefined],
  ["both purposes", [serverAuth, clientAuth]],
] as const) {
  test(`certificates of ${what} serve both sides`, async (t) => {
    const [alice, bob] = [certificateOf("alice", purposes), certificateOf("bob", purposes)];
    const { client, server } = await pair(t);
    const [far, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [bob.identity], { signal })]);
    t.deepEqual([far.peer, near.peer], [alice.identity, bob.identity]);
  });
}

test("a certificate made for servers alone is no client's", async (t) => {
  const [alice, bob] = [certificateOf("alice", [serverAuth]), certificateOf("bob", undefined)];
  const { client, server } = await pair(t);
  tls.connect(client, alice, [bob.identity], { signal }).catch(() => undefined);
  const refused = await t.throwsAsync(tls.accept(server, bob, { signal }));
  t.is(errorCode(refused), "PKI_HANDSHAKE_FAILED");
  t.regex(messageOf(refused), /not made for this side/);
});

test("a certificate made for clients alone is no server's", async (t) => {
  const [alice, bob] = [certificateOf("alice", undefined), certificateOf("bob", [clientAuth])];
  const { client, server } = await pair(t);
  tls.accept(server, bob, { signal }).catch(() => undefined);
  const refused = await t.throwsAsync(tls.connect(client, alice, [bob.identity], { signal }));
  t.is(errorCode(refused), "PKI_HANDSHAKE_FAILED");
  t.regex(messageOf(refused), /not made for this side/);
});

function certificateOf(name: string, purposes: readonly string[] | undefined): WorkloadCertificate {
  const key = generateKeyPair();
  const identity = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);
  const extensions: Asn1[] = [keyUsage({ isCa: false }), subjectAltNames({ uris: [identity] })];
  if (purposes !== undefined) extensions.push(sequence(oid("2.5.29.37"), octetString(encodeDer(sequence(...purposes.map(oid))))));
  const now = Date.now();
  const leaf = issueCertificate(
    { subject: emptyName, publicKey: key.publicKey, notBefore: now - 1000, notAfter: now + 3_600_000, extensions },
    { name: root.name, privateKey: root.key.privateKey },
  );
  return workloadCertificate([encodePem("CERTIFICATE", leaf), root.pem], { identity, privateKey: key.privateKey, now });
}
