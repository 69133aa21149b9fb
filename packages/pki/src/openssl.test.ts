/** OpenSSL's own command as the outside judge of what we write; skipped by name where it is missing. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseSpiffeId } from "@fairway/model";
import { errorCode, systemClock } from "@fairway/runtime";
import ava from "ava";
import { Authority } from "./authority.ts";
import { detachCertificate, workloadCertificate } from "./certificate.ts";
import type { WorkloadCertificate } from "./certificate-source.ts";
import { buildCsr, verifyCsr } from "./csr.ts";
import { generateKeyPair } from "./key.ts";
import { createMeshTls } from "./tls-context.ts";

const present = spawnSync("openssl", ["version"]).status === 0;
if (!present) process.stderr.write("SKIPPED: openssl interoperability (no openssl command on this machine)\n");
const test = present ? ava : ava.skip;

const folder = mkdtempSync(join(tmpdir(), "fairway-openssl-"));
ava.after.always(() => rmSync(folder, { recursive: true }));
const { signal } = new AbortController();
const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const alice = certificateOf("alice");
const bob = certificateOf("bob");

test("openssl verifies our request and reads the identity in it", (t) => {
  const csr = file("request.pem", buildCsr(alice.identity, generateKeyPair()));
  const { status, stdout, stderr } = spawnSync("openssl", ["req", "-in", csr, "-verify", "-noout", "-text"], { encoding: "utf8" });
  t.is(status, 0, stderr);
  t.regex(stderr + stdout, /verif(y|ication).*OK/i);
  t.regex(stdout, /URI:spiffe:\/\/cluster\.local\/ns\/default\/sa\/alice/);
});

test("we verify a request that openssl wrote", (t) => {
  const { stdout, stderr } = spawnSync(
    "openssl",
    [
      "req",
      "-new",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-keyout",
      "/dev/null",
      "-subj",
      "/O=x",
      "-addext",
      `subjectAltName=URI:${alice.identity},DNS:ignored`,
    ],
    { encoding: "utf8" },
  );
  t.deepEqual(verifyCsr(stdout, { identity: alice.identity }).uris, [alice.identity], stderr);
});

test("openssl verifies our leaf for both purposes, under the root and under its rotated successor", (t) => {
  const leaf = file("leaf.pem", alice.chain.join(""));
  for (const [name, bundle] of [
    ["root.pem", authority.rootBundle],
    ["next.pem", authority.rotated().rootBundle],
  ] as const) {
    for (const purpose of ["sslserver", "sslclient"]) {
      const { status, stdout, stderr } = spawnSync("openssl", ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", file(name, bundle), leaf], {
        encoding: "utf8",
      });
      t.is(status, 0, stdout + stderr);
    }
  }
});

test("openssl s_client completes a handshake with our server", async (t) => {
  const listener = createServer();
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const bound = listener.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : 0;
  const client = spawn("openssl", [
    "s_client",
    "-connect",
    `127.0.0.1:${port}`,
    "-noservername",
    "-alpn",
    "h2",
    "-verify_return_error",
    ...credentials("client", alice),
  ]);
  t.teardown(() => void client.kill("SIGKILL"));
  const [socket]: Socket[] = await once(listener, "connection");
  listener.close();
  if (socket === undefined) throw new Error("no connection");
  const { peer, socket: tls } = await createMeshTls({ clock: systemClock }).accept(socket, bob, { signal });
  t.is(peer, alice.identity);
  client.stdin.write("hello\n");
  t.is(String((await once(tls, "data"))[0]), "hello\n");
  tls.destroy();
});

test("openssl s_server completes a handshake with our client, and a wrong name is still refused", async (t) => {
  const server = spawn("openssl", ["s_server", "-accept", "127.0.0.1:0", "-alpn", "h2", "-Verify", "3", "-verify_return_error", ...credentials("server", bob)]);
  t.teardown(() => void server.kill("SIGKILL"));
  let printed = "";
  while (!/ACCEPT \S+:\d+/.test(printed)) printed += String((await once(server.stdout, "data"))[0]);
  const port = Number(/ACCEPT \S+:(\d+)/.exec(printed)?.[1]);
  const tls = createMeshTls({ clock: systemClock });
  const { peer, socket } = await tls.connect(await dial(port), alice, [bob.identity], { signal });
  t.is(peer, bob.identity);
  socket.destroy();
  t.is(errorCode(await t.throwsAsync(tls.connect(await dial(port), alice, [alice.identity], { signal }))), "PKI_PEER_IDENTITY_MISMATCH");
});

function credentials(name: string, certificate: WorkloadCertificate): string[] {
  const key = detachCertificate(certificate).privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  return [
    "-cert",
    file(`${name}.pem`, certificate.chain.join("")),
    "-key",
    file(`${name}-key.pem`, key),
    "-CAfile",
    file(`${name}-root.pem`, authority.rootBundle),
  ];
}

function certificateOf(account: string): WorkloadCertificate {
  const identity = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${account}`);
  const { publicKey, privateKey } = generateKeyPair();
  return workloadCertificate(authority.sign({ publicKey, identity, ttlMs: 0 }), { identity, privateKey, now: Date.now() });
}

async function dial(port: number): Promise<Socket> {
  const socket = connectTcp(port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}
