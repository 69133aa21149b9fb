/** Clients whose first bytes come whole, in pieces, behind something else, or not all; no time passes unless a test says so. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { parseSpiffeId } from "@fairway/model";
import { errorCode, ManualClock, systemClock } from "@fairway/runtime";
import test from "ava";
import { Authority } from "./authority.ts";
import { workloadCertificate } from "./certificate.ts";
import type { WorkloadCertificate } from "./certificate-source.ts";
import { generateKeyPair } from "./key.ts";
import { pair } from "./test-socket-pair.ts";
import { createMeshTls } from "./tls-context.ts";

const asProxiesAccept = { allowHalfOpen: true, pauseOnConnect: true };

const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const alice = certificateOf("spiffe://cluster.local/ns/default/sa/alice");
const bob = certificateOf("spiffe://cluster.local/ns/default/sa/bob");
const { signal } = new AbortController();
/** Time stands still: what ends has not waited for the deadline. */
const tls = createMeshTls({ clock: new ManualClock(Date.now()) });
const hello = await clientHello();

for (const [what, size] of [
  ["nothing", 0],
  ["one byte", 1],
  ["the head of a record", 5],
  ["half a ClientHello", Math.floor(hello.length / 2)],
  ["all but one byte of a ClientHello", hello.length - 1],
  ["a whole ClientHello", hello.length],
] as const) {
  test(`${what} and a FIN is let go at once`, async (t) => {
    const { client, server } = await pair(t, asProxiesAccept);
    const refused = t.throwsAsync(tls.accept(server, bob, { signal }));
    client.end(hello.subarray(0, size));
    t.is(errorCode(await refused), "PKI_HANDSHAKE_FAILED");
    t.true(server.destroyed);
  });

  test(`${what} and a FIN that came before anybody looked is let go at once`, async (t) => {
    const { client, server } = await pair(t, asProxiesAccept);
    client.end(hello.subarray(0, size));
    await once(client, "finish");
    t.is(errorCode(await t.throwsAsync(tls.accept(server, bob, { signal }))), "PKI_HANDSHAKE_FAILED");
    t.true(server.destroyed);
  });
}

for (const [what, bytes] of [
  ["random bytes", Buffer.from([0, 1, 2, 3, 255, 254, 253, 0, 0, 0, 0, 0])],
  ["an HTTP/1.1 request", Buffer.from("GET / HTTP/1.1\r\nhost: b\r\n\r\n")],
  ["the preface of HTTP/2", Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
  ["a record of another kind", Buffer.from("170303000401020304", "hex")],
] as const) {
  test(`${what} before a ClientHello is refused at once, whatever follows`, async (t) => {
    const { client, server } = await pair(t, asProxiesAccept);
    const refused = t.throwsAsync(tls.accept(server, bob, { signal }));
    client.on("error", () => undefined);
    client.write(Buffer.concat([bytes, hello]));
    t.is(errorCode(await refused), "PKI_HANDSHAKE_FAILED");
    t.true(server.destroyed);
  });
}

test("a client whose bytes come one by one is served, and either side may end before the other", async (t) => {
  const { client, server } = await pair(t, asProxiesAccept);
  const [far, near] = await Promise.all([tls.accept(server, bob, { signal }), tls.connect(oneByOne(client), alice, [bob.identity], { signal })]);
  t.is(far.peer, alice.identity);
  t.is(near.peer, bob.identity);
  near.socket.end("last words");
  const heard: string[] = [];
  far.socket.on("data", (chunk) => heard.push(String(chunk)));
  await once(far.socket, "end");
  t.is(heard.join(""), "last words");
  t.true(far.socket.writable, "the client's FIN ends one direction");
  far.socket.end("answer");
  const [answer] = await once(near.socket, "data");
  t.is(String(answer), "answer");
});

/** What a TLS client says first. */
async function clientHello(): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const wire = new Duplex({ read: () => {}, write: (chunk: Buffer) => resolve(chunk) });
  const speaker = connectTls({ socket: wire, servername: "", ALPNProtocols: ["h2"], minVersion: "TLSv1.3" });
  speaker.on("error", () => undefined);
  const first = await promise;
  speaker.destroy();
  return first;
}

/** The same connection, each byte in a segment of its own. */
function oneByOne(socket: Socket): Duplex {
  socket.setNoDelay(true);
  socket.on("error", () => undefined);
  const wire = new Duplex({
    read: () => {},
    final: (done) => void socket.end(done),
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
    write: (chunk: Buffer, _encoding, done) => {
      const next = (at: number): void => {
        if (at === chunk.length) done();
        else socket.write(chunk.subarray(at, at + 1), () => setImmediate(() => next(at + 1)));
      };
      next(0);
    },
  });
  socket.on("data", (chunk) => wire.push(chunk));
  socket.once("end", () => wire.push(null));
  return wire;
}

function certificateOf(identity: string): WorkloadCertificate {
  const key = generateKeyPair();
  const id = parseSpiffeId(identity);
  return workloadCertificate(authority.sign({ publicKey: key.publicKey, identity: id, ttlMs: 0 }), {
    identity: id,
    privateKey: key.privateKey,
    now: Date.now(),
  });
}
