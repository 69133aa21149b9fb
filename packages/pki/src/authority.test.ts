import { X509Certificate } from "node:crypto";
import { parseSpiffeId } from "@fairway/model";
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { Authority, maxCertificateTtlMs } from "./authority.ts";
import { parseCertificates } from "./certificate.ts";
import { buildCsr } from "./csr.ts";
import { generateKeyPair } from "./key.ts";
import { certificateAuthority, pluggedIn as pluggedInAt, privatePem } from "./test-authority.ts";

const identity = parseSpiffeId("spiffe://cluster.local/ns/default/sa/alice");
const dayMs = 86_400_000;
const start = Date.UTC(2026, 0, 1);

test("a self-signed authority answers with leaf and root, valid from two minutes ago for a day", (t) => {
  const clock = new ManualClock(start);
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock });
  const answer = authority.sign({ csr: buildCsr(identity, generateKeyPair()), identity, ttlMs: 0 });
  t.is(answer.length, 2);
  const [leaf, root] = answer.flatMap(parseCertificates);
  t.deepEqual(leaf?.identities, [identity]);
  t.is(leaf?.notBefore, start - 120_000);
  t.is(leaf?.notAfter, start + dayMs);
  t.is(leaf?.x509.subject, undefined);
  t.true(leaf?.x509.checkIssued(root?.x509 ?? new X509Certificate("")));
  t.true(leaf?.x509.verify(root?.x509.publicKey ?? generateKeyPair().publicKey));
  t.false(leaf?.x509.ca);
  t.deepEqual(leaf?.x509.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  t.true(root?.x509.ca);
  t.is(root?.notAfter, start + 3650 * dayMs);
});

test("serial numbers differ, also for the same request", (t) => {
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(start) });
  const csr = buildCsr(identity, generateKeyPair());
  const serials = Array.from({ length: 20 }, () => parseCertificates(authority.sign({ csr, identity, ttlMs: 0 })[0] ?? "")[0]?.serialNumber);
  t.is(new Set(serials).size, 20);
});

test("the lifetime is the one asked for, refused beyond ninety days, cut at the end of the chain", (t) => {
  const clock = new ManualClock(start);
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock, ttlMs: 40 * dayMs });
  const { publicKey } = generateKeyPair();
  const end = (ttlMs: number) => parseCertificates(authority.sign({ publicKey, identity, ttlMs })[0] ?? "")[0]?.notAfter;
  t.is(end(3_600_000), start + 3_600_000);
  t.is(end(-5), start + dayMs);
  t.is(end(50 * dayMs), start + 40 * dayMs);
  t.is(errorCode(t.throws(() => end(maxCertificateTtlMs + 1))), "PKI_TTL_TOO_LONG");
});

test("an authority that has expired signs nothing", async (t) => {
  const clock = new ManualClock(start);
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock, ttlMs: dayMs });
  await clock.advance(2 * dayMs);
  t.is(errorCode(t.throws(() => authority.sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 }))), "PKI_CA_EXPIRED");
});

test("a request that names somebody else is not signed", (t) => {
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(start) });
  const csr = buildCsr(parseSpiffeId("spiffe://cluster.local/ns/kube-system/sa/admin"), generateKeyPair());
  t.is(errorCode(t.throws(() => authority.sign({ csr, identity, ttlMs: 0 }))), "PKI_CSR_FOREIGN_IDENTITY");
});

test("a rotated root keeps its key, so that old and new certificates verify with either root", async (t) => {
  const clock = new ManualClock(start);
  const first = Authority.createSelfSigned({ trustDomain: "cluster.local", clock, ttlMs: 100 * dayMs });
  t.false(first.needsRotation);
  await clock.advance(81 * dayMs);
  t.true(first.needsRotation);
  const second = first.rotated();
  t.false(second.needsRotation);
  t.not(second.rootBundle, first.rootBundle);
  const [oldRoot] = parseCertificates(first.rootBundle);
  const [leaf] = parseCertificates(second.sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 })[0] ?? "");
  t.true(leaf?.x509.checkIssued(oldRoot?.x509 ?? new X509Certificate("")));
  t.notThrows(() => first.reloaded(second.exportPem()));
});

test("what was exported loads again as the same authority", (t) => {
  const clock = new ManualClock(start);
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock });
  t.is(Authority.load(authority.exportPem(), clock).rootBundle, authority.rootBundle);
});

test("a plugged-in intermediate answers leaf, intermediates one per element, then the root bundle", (t) => {
  const { clock, pem, root, middle } = pluggedIn();
  const authority = Authority.load(pem, clock);
  const answer = authority.sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 });
  t.deepEqual(answer.slice(1), [pem.caCert, middle.pem, root.pem]);
  t.true(answer.every((element) => element.endsWith("-----END CERTIFICATE-----\n")));
  t.false(authority.needsRotation);
  t.is(errorCode(t.throws(() => authority.rotated())), "PKI_CA_MATERIAL");
});

test("a chain file that repeats the signer and ends with the root gives the same answer", (t) => {
  const { clock, pem, root, middle } = pluggedIn();
  const authority = Authority.load({ ...pem, certChain: pem.caCert + middle.pem + root.pem }, clock);
  t.deepEqual(authority.sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 }).slice(1), [pem.caCert, middle.pem, root.pem]);
});

test("several roots travel in one element", (t) => {
  const { clock, pem, root } = pluggedIn();
  const other = certificateAuthority(clock, "other");
  const answer = Authority.load({ ...pem, rootCert: root.pem + other.pem }, clock).sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 });
  t.is(answer.at(-1), root.pem + other.pem);
});

test("broken files are refused, saying which", (t) => {
  const { clock, pem, root } = pluggedIn();
  const leaf = Authority.load(pem, clock).sign({ publicKey: generateKeyPair().publicKey, identity, ttlMs: 0 })[0] ?? "";
  const other = certificateAuthority(clock, "other");
  const cases: [Parameters<typeof Authority.load>[0], RegExp][] = [
    [{ ...pem, caCert: "" }, /ca-cert\.pem holds no certificate/],
    [{ ...pem, caCert: leaf }, /CA=true/],
    [{ ...pem, caKey: "nonsense" }, /ca-key\.pem/],
    [{ ...pem, caKey: privatePem(other.key) }, /ca-key\.pem is not the key/],
    [{ ...pem, rootCert: "" }, /root-cert\.pem holds no certificate/],
    [{ ...pem, rootCert: other.pem }, /does not end at/],
    [{ ...pem, certChain: "" }, /does not end at/],
    [{ ...pem, certChain: other.pem.slice(0, 200) }, /cert-chain\.pem|does not end/],
    [{ ...pem, certChain: root.pem }, /does not end at/],
  ];
  for (const [files, message] of cases) {
    const error = t.throws(() => Authority.load(files, clock));
    t.is(errorCode(error), "PKI_CA_MATERIAL");
    t.regex(String(error?.message), message);
  }
});

test("a reload must share a root with what runs", (t) => {
  const { clock, pem, root } = pluggedIn();
  const running = Authority.load(pem, clock);
  const next = certificateAuthority(clock, "next");
  const replacement = { caCert: next.pem, caKey: privatePem(next.key), rootCert: next.pem };
  t.is(errorCode(t.throws(() => running.reloaded(replacement))), "PKI_CA_ROOT_CHANGED");
  const both = running.reloaded({ ...pem, rootCert: root.pem + next.pem });
  t.notThrows(() => both.reloaded({ ...replacement, rootCert: next.pem + root.pem }).reloaded(replacement));
});

test("a serving certificate carries names and addresses and its own key", (t) => {
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(start) });
  const { cert } = authority.signServer({ dnsNames: ["istiod.istio-system.svc"], ips: ["127.0.0.1", "fd00::1"] });
  const x509 = new X509Certificate(cert);
  t.is(x509.checkHost("istiod.istio-system.svc"), "istiod.istio-system.svc");
  t.is(x509.checkHost("other.svc"), undefined);
  t.is(x509.checkIP("127.0.0.1"), "127.0.0.1");
  t.is(x509.checkIP("fd00::1"), "fd00::1");
});

test("an authority prints and serialises without its key", (t) => {
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(start) });
  t.false(JSON.stringify(authority).includes("PRIVATE"));
});

function pluggedIn() {
  const clock = new ManualClock(start);
  return { clock, ...pluggedInAt(clock) };
}
