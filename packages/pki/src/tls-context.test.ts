import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect as connectTls, type SecureVersion, type TLSSocket } from "node:tls";
import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { errorCode, ManualClock, systemClock } from "@fairway/runtime";
import test from "ava";
import { Authority } from "./authority.ts";
import { detachCertificate, workloadCertificate } from "./certificate.ts";
import type { WorkloadCertificate } from "./certificate-source.ts";
import { generateKeyPair } from "./key.ts";
import { pluggedIn } from "./test-authority.ts";
import { pair } from "./test-socket-pair.ts";
import { createMeshTls } from "./tls-context.ts";

const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const alice = certificateOf("spiffe://cluster.local/ns/default/sa/alice");
const bob = certificateOf("spiffe://cluster.local/ns/default/sa/bob");
const { signal } = new AbortController();

test("client and server prove who they are to each other", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const [far, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [bob.identity], { signal })]);
  t.is(near.peer, bob.identity);
  t.is(far.peer, alice.identity);
  t.is(near.socket.getProtocol(), "TLSv1.3");
  t.is(near.socket.getCipher().name, "TLS_AES_256_GCM_SHA384");
  t.is(far.socket.alpnProtocol, "h2");
  t.false(Reflect.get(far.socket, "servername") || false, "no server name is sent");
  near.socket.write("ping");
  const [data] = await once(far.socket, "data");
  t.is(String(data), "ping");
});

test("any of several expected identities may match", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const other = parseSpiffeId("spiffe://cluster.local/ns/default/sa/other");
  const [, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [other, bob.identity], { signal })]);
  t.is(near.peer, bob.identity);
});

for (const [name, expected] of [
  ["another identity", [parseSpiffeId("spiffe://cluster.local/ns/default/sa/other")]],
  ["nobody", []],
] satisfies [string, SpiffeId[]][]) {
  test(`a client that expects ${name} refuses the server and destroys the socket`, async (t) => {
    const { client, server } = await pair(t);
    const tls = createMeshTls({ clock: systemClock });
    const accepted = tls.accept(server, bob, { signal }).catch(() => undefined);
    const error = await t.throwsAsync(tls.connect(client, alice, expected, { signal }));
    t.is(errorCode(error), "PKI_PEER_IDENTITY_MISMATCH");
    t.true(client.destroyed);
    await accepted;
  });
}

test("a server refuses a client of another trust domain under the same root", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const stranger = certificateOf("spiffe://elsewhere.example/ns/default/sa/alice");
  const connected = tls.connect(client, stranger, [bob.identity], { signal }).catch(() => undefined);
  const error = await t.throwsAsync(tls.accept(server, bob, { signal }));
  t.is(errorCode(error), "PKI_PEER_IDENTITY_MISMATCH");
  t.regex(String(error?.message), /trust domain cluster\.local/);
  t.true(server.destroyed);
  await connected;
});

test("each side refuses a peer whose root it does not trust", async (t) => {
  const tls = createMeshTls({ clock: systemClock });
  const foreign = certificateOf("spiffe://cluster.local/ns/default/sa/bob", Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock }));
  const one = await pair(t);
  const refusedByClient = tls.connect(one.client, alice, [bob.identity], { signal });
  const accepted = tls.accept(one.server, foreign, { signal }).catch(() => undefined);
  t.is(errorCode(await t.throwsAsync(refusedByClient)), "PKI_HANDSHAKE_FAILED");
  await accepted;

  const two = await pair(t);
  const connected = rawClient(two.client, { certificate: foreign });
  const refusedByServer = await t.throwsAsync(tls.accept(two.server, bob, { signal }));
  t.is(errorCode(refusedByServer), "PKI_HANDSHAKE_FAILED");
  t.regex(String(refusedByServer?.message), /not signed by a root we trust/);
  connected.destroy();
});

test("intermediates are presented, so that a peer with only the root verifies the chain", async (t) => {
  const plugged = Authority.load(pluggedIn(systemClock).pem, systemClock);
  const [one, two] = [certificateOf(alice.identity, plugged), certificateOf(bob.identity, plugged)];
  t.is(one.chain.length, 3);
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const [far, near] = await Promise.all([tls.accept(server, two, { signal }), tls.connect(client, one, [two.identity], { signal })]);
  t.is(far.peer, one.identity);
  t.is(near.peer, two.identity);
});

test("while roots are rotated, certificates of the old and of the new root accept each other", async (t) => {
  const [old, next] = [pluggedIn(systemClock, "old"), pluggedIn(systemClock, "next")];
  const rootCert = old.root.pem + next.root.pem;
  const one = certificateOf(alice.identity, Authority.load({ ...old.pem, rootCert }, systemClock));
  const two = certificateOf(bob.identity, Authority.load({ ...next.pem, rootCert }, systemClock));
  const tls = createMeshTls({ clock: systemClock });
  for (const [mine, theirs] of [
    [one, two],
    [two, one],
  ] as const) {
    const { client, server } = await pair(t);
    const [far] = await Promise.all([tls.accept(server, theirs, { signal }), tls.connect(client, mine, [theirs.identity], { signal })]);
    t.is(far.peer, mine.identity);
  }
});

test("a revocation check that fails refuses the peer", async (t) => {
  const broken = createMeshTls({
    clock: systemClock,
    isRevoked: () => {
      throw new Error("no list");
    },
  });
  const { client, server } = await pair(t);
  const connecting = createMeshTls({ clock: systemClock })
    .connect(client, alice, [bob.identity], { signal })
    .catch(() => undefined);
  t.is(errorCode(await t.throwsAsync(broken.accept(server, bob, { signal }))), "PKI_HANDSHAKE_FAILED");
  t.true(server.destroyed);
  await connecting;
});

test("a revoked intermediate revokes what it signed", async (t) => {
  const { pem, middle } = pluggedIn(systemClock);
  const plugged = Authority.load(pem, systemClock);
  const revoked = new X509Certificate(middle.pem).serialNumber.toLowerCase();
  const strict = createMeshTls({ clock: systemClock, isRevoked: (chain) => chain.some(({ serialNumber }) => serialNumber === revoked) });
  const { client, server } = await pair(t);
  const connecting = createMeshTls({ clock: systemClock })
    .connect(client, certificateOf(alice.identity, plugged), [bob.identity], { signal })
    .catch(() => undefined);
  t.is(errorCode(await t.throwsAsync(strict.accept(server, certificateOf(bob.identity, plugged), { signal }))), "PKI_PEER_REVOKED");
  await connecting;
});

for (const [name, options] of [
  ["shows no certificate", { alpn: ["h2"] }],
  ["offers no ALPN", { certificate: alice, alpn: [] }],
  ["offers only http/1.1", { certificate: alice, alpn: ["http/1.1"] }],
  ["speaks only TLS 1.2", { certificate: alice, maxVersion: "TLSv1.2" }],
  ["offers only ChaCha20", { certificate: alice, ciphers: "TLS_CHACHA20_POLY1305_SHA256" }],
] satisfies [string, RawOptions][]) {
  test(`a server refuses a client that ${name}`, async (t) => {
    const { client, server } = await pair(t);
    const tls = createMeshTls({ clock: systemClock });
    const raw = rawClient(client, options);
    t.is(errorCode(await t.throwsAsync(tls.accept(server, bob, { signal }))), "PKI_HANDSHAKE_FAILED");
    t.true(server.destroyed);
    raw.destroy();
  });
}

test("TLS 1.2 is spoken only when it was allowed", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock, allowTls12: true });
  const raw = rawClient(client, { certificate: alice, maxVersion: "TLSv1.2" });
  const { socket } = await tls.accept(server, bob, { signal });
  t.is(socket.getProtocol(), "TLSv1.2");
  raw.destroy();
});

test("a client that resumes gets a full handshake all the same", async (t) => {
  const tls = createMeshTls({ clock: systemClock });
  const first = await pair(t);
  const one = rawClient(first.client, { certificate: alice });
  const sessions: Buffer[] = [];
  one.on("session", (session: Buffer) => sessions.push(session));
  const accepted = await tls.accept(first.server, bob, { signal });
  accepted.socket.write("x");
  await once(one, "data");
  const second = await pair(t);
  const two = rawClient(second.client, { certificate: alice, ...(sessions[0] === undefined ? {} : { session: sessions[0] }) });
  const again = await tls.accept(second.server, bob, { signal });
  t.false(again.socket.isSessionReused());
  t.is(again.peer, alice.identity);
  one.destroy();
  two.destroy();
});

test("the post-quantum group can be the only one", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock, groups: "X25519MLKEM768" });
  const [far] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [bob.identity], { signal })]);
  t.is(far.peer, alice.identity);
});

for (const [what, ours, theirs] of [
  ["a client", "P-256:X25519", "X25519MLKEM768"],
  ["a server", "X25519MLKEM768", "P-256:X25519"],
] as const) {
  test(`${what} without the post-quantum group is refused, and both sides hear why`, async (t) => {
    const { client, server } = await pair(t);
    const accepting = createMeshTls({ clock: systemClock, groups: theirs }).accept(server, bob, { signal });
    const connecting = createMeshTls({ clock: systemClock, groups: ours }).connect(client, alice, [bob.identity], { signal });
    const [accepted, connected] = await Promise.allSettled([accepting, connecting]);
    if (accepted.status === "fulfilled" || connected.status === "fulfilled") return t.fail();
    t.is(errorCode(accepted.reason), "PKI_HANDSHAKE_FAILED");
    t.regex(String(accepted.reason), /offers no key exchange that we accept.*COMPLIANCE_POLICY/);
    t.regex(String(connected.reason), /accepts none of our key exchanges.*COMPLIANCE_POLICY/);
  });
}

test("an expired certificate is refused by either side", async (t) => {
  const past = new ManualClock(Date.now() - 172_800_000);
  const old = Authority.load(authority.exportPem(), past);
  const expired = certificateOf("spiffe://cluster.local/ns/default/sa/old", old, past.now());
  const tls = createMeshTls({ clock: systemClock });
  const { client, server } = await pair(t);
  const accepted = tls.accept(server, expired, { signal }).catch(() => undefined);
  const error = await t.throwsAsync(tls.connect(client, alice, [expired.identity], { signal }));
  t.regex(String(error?.message), /has expired/);
  await accepted;
  const other = await pair(t);
  tls.connect(other.client, expired, [bob.identity], { signal }).catch(() => undefined);
  t.regex(String((await t.throwsAsync(tls.accept(other.server, bob, { signal })))?.message), /has expired/, "the server");
});

test("a revoked peer is refused on both sides", async (t) => {
  const tls = createMeshTls({ clock: systemClock });
  const strict = createMeshTls({ clock: systemClock, isRevoked: ([leaf]) => leaf?.serialNumber === bob.serialNumber });
  const one = await pair(t);
  const accepted = tls.accept(one.server, bob, { signal }).catch(() => undefined);
  t.is(errorCode(await t.throwsAsync(strict.connect(one.client, alice, [bob.identity], { signal }))), "PKI_PEER_REVOKED");
  await accepted;
  const two = await pair(t);
  const connected = tls.connect(two.client, bob, [alice.identity], { signal }).catch(() => undefined);
  t.is(errorCode(await t.throwsAsync(strict.accept(two.server, alice, { signal }))), "PKI_PEER_REVOKED");
  await connected;
});

for (const [name, bytes] of [
  ["plain HTTP", Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n")],
  ["an HTTP/2 preface", Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
  ["zeros", Buffer.alloc(512)],
  ["a record of the longest length, cut off", Buffer.from([22, 3, 1, 255, 255, 1, 2, 3])],
  ["a broken ClientHello", Buffer.from([22, 3, 1, 0, 5, 1, 0, 0, 200, 3])],
] satisfies [string, Buffer][]) {
  test(`garbage before the ClientHello ends in a refusal: ${name}`, async (t) => {
    const { client, server } = await pair(t);
    const tls = createMeshTls({ clock: systemClock });
    client.on("error", () => undefined);
    client.end(bytes);
    t.is(errorCode(await t.throwsAsync(tls.accept(server, bob, { signal }))), "PKI_HANDSHAKE_FAILED");
    t.true(server.destroyed);

    const other = await pair(t);
    other.server.on("error", () => undefined);
    other.server.end(bytes);
    t.is(errorCode(await t.throwsAsync(tls.connect(other.client, alice, [bob.identity], { signal }))), "PKI_HANDSHAKE_FAILED");
  });
}

test("a silent peer is given up at the deadline", async (t) => {
  const clock = new ManualClock();
  const tls = createMeshTls({ clock });
  const { client, server } = await pair(t);
  const accepting = tls.accept(server, bob, { signal });
  await clock.advance(9_999);
  t.false(server.destroyed);
  const refused = t.throwsAsync(accepting);
  await clock.advance(1);
  t.is(errorCode(await refused), "PKI_HANDSHAKE_TIMEOUT");
  t.true(server.destroyed);
  client.destroy();
});

test("an aborted handshake rejects with the signal's reason, before or during", async (t) => {
  const tls = createMeshTls({ clock: systemClock });
  const reason = new Error("the pod left");
  const during = await pair(t);
  const controller = new AbortController();
  const accepting = tls.accept(during.server, bob, { signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(accepting), reason);
  t.true(during.server.destroyed);
  const before = await pair(t);
  t.is(await t.throwsAsync(tls.connect(before.client, alice, [bob.identity], { signal: controller.signal })), reason);
  t.true(before.client.destroyed);
});

test("a peer that resets after any number of bytes only ever rejects the promise", async (t) => {
  const tls = createMeshTls({ clock: systemClock });
  for (let allowed = 0; allowed < 3_000; allowed += 173) {
    const front = await pair(t);
    const back = await pair(t);
    let forwarded = 0;
    front.server.on("data", (data: Buffer) => {
      forwarded += data.length;
      if (forwarded > allowed) {
        back.client.resetAndDestroy();
        front.server.resetAndDestroy();
      } else back.client.write(data);
    });
    back.client.on("data", (data: Buffer) => front.server.write(data));
    for (const socket of [front.server, back.client]) socket.on("error", () => undefined);
    const [near, far] = await Promise.allSettled([tls.connect(front.client, alice, [bob.identity], { signal }), tls.accept(back.server, bob, { signal })]);
    for (const outcome of [near, far]) {
      if (outcome.status === "rejected") t.is(errorCode(outcome.reason), "PKI_HANDSHAKE_FAILED");
      else outcome.value.socket.destroy();
    }
    for (const socket of [front.client, front.server, back.client, back.server]) socket.destroy();
  }
  t.pass();
});

test("a reset right after the handshake does not become an uncaught exception", async (t) => {
  const { client, server } = await pair(t);
  const tls = createMeshTls({ clock: systemClock });
  const [far, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(client, alice, [bob.identity], { signal })]);
  const closed = once(far.socket, "close");
  client.resetAndDestroy();
  await closed;
  t.true(far.socket.destroyed);
  near.socket.destroy();
});

interface RawOptions {
  readonly certificate?: WorkloadCertificate;
  readonly alpn?: string[];
  readonly maxVersion?: SecureVersion;
  readonly ciphers?: string;
  readonly session?: Buffer;
}

/** A TLS client that checks nothing, to try what ours would never send. */
function rawClient(socket: Socket, { certificate, alpn = ["h2"], ...options }: RawOptions): TLSSocket {
  const identity =
    certificate === undefined
      ? {}
      : { cert: certificate.chain.join(""), key: detachCertificate(certificate).privateKey.export({ type: "pkcs8", format: "pem" }) };
  const tls = connectTls({ socket, rejectUnauthorized: false, ...identity, ...(alpn.length > 0 ? { ALPNProtocols: alpn } : {}), ...options });
  tls.on("error", () => undefined);
  return tls;
}

function certificateOf(identity: string, signer: Authority = authority, now: number = Date.now()): WorkloadCertificate {
  const key = generateKeyPair();
  const id = parseSpiffeId(identity);
  return workloadCertificate(signer.sign({ publicKey: key.publicKey, identity: id, ttlMs: 0 }), { identity: id, privateKey: key.privateKey, now });
}
