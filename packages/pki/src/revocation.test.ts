import { X509Certificate } from "node:crypto";
import { parseSpiffeId } from "@fairway/model";
import { errorCode, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { Authority } from "./authority.ts";
import { workloadCertificate } from "./certificate.ts";
import type { PeerChain, Proven, WorkloadCertificate } from "./certificate-source.ts";
import { context, encodePem, sequence } from "./der.ts";
import { generateKeyPair } from "./key.ts";
import { parseRevocationLists, RevocationCheck } from "./revocation.ts";
import { certificateAuthority, pluggedIn, revocationList, type TestAuthority } from "./test-authority.ts";
import { pair } from "./test-socket-pair.ts";
import { createMeshTls } from "./tls-context.ts";

const { signal } = new AbortController();
const { root, middle, signer, pem } = pluggedIn(systemClock);
const authority = Authority.load(pem, systemClock);
const alice = certificateOf("alice");
const bob = certificateOf("bob");

const serialOf = ({ pem: text }: TestAuthority): string => new X509Certificate(text).serialNumber.toLowerCase();
const check = (...files: readonly Uint8Array[]): RevocationCheck => new RevocationCheck(files.flatMap(parseRevocationLists));

test("a certificate is revoked by the list of its issuer, wherever it stands in the chain", async (t) => {
  const { near, far } = await proven(t);
  for (const [chain, leaf] of [
    [near.chain, bob],
    [far.chain, alice],
  ] as const) {
    t.is(chain.length, 4, "leaf, signer, middle and root");
    t.true(check(revocationList(signer, { serialNumbers: [leaf.serialNumber] })).isRevoked(chain));
    t.true(check(revocationList(middle, { serialNumbers: [serialOf(signer)] })).isRevoked(chain));
    t.true(check(revocationList(root, { serialNumbers: ["01", serialOf(middle)] })).isRevoked(chain));
    t.false(check(revocationList(signer, { serialNumbers: [serialOf(middle), "01"] })).isRevoked(chain), "another's number");
    t.false(check(revocationList(middle, { serialNumbers: [leaf.serialNumber] })).isRevoked(chain), "another's list");
  }
});

test("what no list speaks of is allowed", async (t) => {
  const { near } = await proven(t);
  t.false(check().isRevoked(near.chain));
  t.false(check(revocationList(signer, { serialNumbers: [] })).isRevoked(near.chain));
  t.false(check(Buffer.from("")).isRevoked(near.chain));
});

test("a list that is out of date revokes what it names", async (t) => {
  const { near } = await proven(t);
  t.true(check(revocationList(signer, { serialNumbers: [bob.serialNumber], nextUpdate: 1_000 })).isRevoked(near.chain));
});

test("a list in the issuer's name that another key signed says nothing", async (t) => {
  const { near } = await proven(t);
  const impostor = { ...certificateAuthority(systemClock, "x"), name: signer.name };
  t.false(check(revocationList(impostor, { serialNumbers: [bob.serialNumber] })).isRevoked(near.chain));
  const signed = check(revocationList(impostor, { serialNumbers: [bob.serialNumber] }), revocationList(signer, { serialNumbers: [bob.serialNumber] }));
  t.true(signed.isRevoked(near.chain), "beside it the real one counts");
});

test("where the issuer is not known the administrator's file is believed", async (t) => {
  const { near } = await proven(t);
  const chain: PeerChain = near.chain.slice(0, 1).map((link) => ({ ...link, issuer: undefined }));
  t.true(check(revocationList(signer, { serialNumbers: [bob.serialNumber] })).isRevoked(chain));
});

test("of a client from under another intermediate a server knows the leaf, and revokes it", async (t) => {
  const other = Authority.load({ caCert: root.pem, caKey: root.key.privateKey.export({ type: "pkcs8", format: "pem" }).toString() }, systemClock);
  const { far, near } = await proven(t, alice, certificateOf("bob", other));
  t.is(far.chain.length, 1);
  t.true(check(revocationList(signer, { serialNumbers: [alice.serialNumber] })).isRevoked(far.chain));
  t.is(near.chain.length, 2, "the client sees all");
});

test("the lists of one file are all read, in PEM beside other things, or one in DER", (t) => {
  const lists = [signer, middle].map((issuer) => encodePem("X509 CRL", revocationList(issuer, { serialNumbers: ["00ff"] })));
  const parsed = parseRevocationLists(Buffer.from(`# lists\n${lists.join("\n")}${root.pem}`));
  t.is(parsed.length, 2);
  t.deepEqual([...(parsed[0]?.serialNumbers ?? [])], ["ff"]);
  t.is(parseRevocationLists(revocationList(root, { serialNumbers: ["0a", "0b"] }))[0]?.serialNumbers.size, 2);
});

test("a file without lists holds none", (t) => {
  t.deepEqual(parseRevocationLists(Buffer.from(" \n")), []);
  t.deepEqual(parseRevocationLists(Buffer.from(root.pem)), []);
});

for (const [what, file] of [
  ["text", Buffer.from("not a list")],
  ["a certificate in DER", new X509Certificate(root.pem).raw],
  ["a list that was cut off", revocationList(root, { serialNumbers: ["01"] }).subarray(0, 60)],
  ["armour that was cut off", Buffer.from(encodePem("X509 CRL", revocationList(root, { serialNumbers: ["01"] })).slice(0, 90))],
  ["one bad list after a good one", Buffer.from(encodePem("X509 CRL", revocationList(root, { serialNumbers: [] })) + encodePem("X509 CRL", Buffer.of(5, 0)))],
  ["a delta list", revocationList(root, { serialNumbers: [], criticalExtensions: { "2.5.29.27": sequence() } })],
  ["an indirect list", revocationList(root, { serialNumbers: [], criticalExtensions: { "2.5.29.28": sequence(context(4, Buffer.of(255))) } })],
] as const) {
  test(`${what} is refused`, (t) => {
    t.is(errorCode(t.throws(() => parseRevocationLists(file))), "PKI_BAD_CRL");
  });
}

test("a list for some kinds of certificates only is read", (t) => {
  const scoped = revocationList(root, { serialNumbers: ["01"], criticalExtensions: { "2.5.29.28": sequence(context(1, Buffer.of(255))) } });
  t.is(parseRevocationLists(scoped).length, 1);
});

test("no bytes do anything but be refused or read, and no change of a list goes unnoticed", async (t) => {
  const { near } = await proven(t);
  const list = revocationList(signer, { serialNumbers: ["01"] });
  const refusedOrRead = (bytes: Uint8Array): readonly unknown[] => {
    try {
      return parseRevocationLists(bytes);
    } catch (thrown) {
      t.is(errorCode(thrown), "PKI_BAD_CRL");
      return [];
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void refusedOrRead(bytes)));
  fc.assert(
    fc.property(fc.nat(list.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const altered = Buffer.from(list);
      altered[at] = (altered[at] ?? 0) ^ change;
      refusedOrRead(altered);
    }),
  );
  // The same list with our peer's number put in, under the old signature.
  const other = revocationList(signer, { serialNumbers: [bob.serialNumber] });
  const [read] = parseRevocationLists(other);
  const [old] = parseRevocationLists(list);
  if (read === undefined || old === undefined) return t.fail();
  t.false(new RevocationCheck([{ ...read, signature: old.signature }]).isRevoked(near.chain));
});

test("a chain is kept only where revocation is asked about", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const [far, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [bob.identity], { signal })]);
  t.is(far.chain, undefined);
  t.is(near.chain, undefined);
});

/** Both ends of a handshake. */
async function proven(t: ExecutionContext, asClient = alice, asServer = bob): Promise<Record<"near" | "far", Proven & { chain: PeerChain }>> {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock, isRevoked: () => false });
  const [far, near] = await Promise.all([tls.accept(server, asServer, { signal }), tls.connect(client, asClient, [asServer.identity], { signal })]);
  if (near.chain === undefined || far.chain === undefined) throw new Error("no chain was kept");
  return { near: { ...near, chain: near.chain }, far: { ...far, chain: far.chain } };
}

function certificateOf(account: string, by = authority): WorkloadCertificate {
  const identity = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${account}`);
  const { publicKey, privateKey } = generateKeyPair();
  return workloadCertificate(by.sign({ publicKey, identity, ttlMs: 0 }), { identity, privateKey, now: Date.now() });
}
