/** One suite for every CA client: the one in this process and the one over gRPC must not be told apart. */
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { IstioCertificateServiceService } from "@fairway/protocol";
import { errorCode, MeshError, messageOf, systemClock } from "@fairway/runtime";
import { Metadata, Server, ServerCredentials, type sendUnaryData, status } from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import { Authority } from "./authority.ts";
import { type CaClient, localCaClient } from "./ca-client.ts";
import { parseCertificates, workloadCertificate } from "./certificate.ts";
import { type ControlPlaneOptions, controlPlane } from "./control-plane.ts";
import { buildCsr } from "./csr.ts";
import { grpcCaClient } from "./grpc-ca-client.ts";
import { generateKeyPair } from "./key.ts";

const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const alice = parseSpiffeId("spiffe://cluster.local/ns/default/sa/alice");
const mallory = parseSpiffeId("spiffe://cluster.local/ns/default/sa/mallory");
const { signal } = new AbortController();

function compliance(name: string, open: (t: ExecutionContext) => Promise<CaClient>): void {
  test(`${name}: the answer is a usable certificate of the asked lifetime`, async (t) => {
    const ca = await open(t);
    const key = generateKeyPair();
    const answer = await ca.sign({ csr: buildCsr(alice, key), identity: alice, ttlMs: 3_600_000 }, { signal });
    const certificate = workloadCertificate(answer, { identity: alice, privateKey: key.privateKey, now: Date.now() });
    t.is(certificate.identity, alice);
    t.true(Math.abs(certificate.notAfter - Date.now() - 3_600_000) < 30_000);
    t.deepEqual(certificate.roots, [authority.rootBundle]);
  });

  test(`${name}: a request that contradicts the identity is refused, not retried as an outage`, async (t) => {
    const ca = await open(t);
    const asking = ca.sign({ csr: buildCsr(mallory, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal });
    t.is(errorCode(await t.throwsAsync(asking)), "PKI_CA_REFUSED");
  });

  test(`${name}: a malformed request is refused`, async (t) => {
    const ca = await open(t);
    t.is(errorCode(await t.throwsAsync(ca.sign({ csr: "nonsense", identity: alice, ttlMs: 0 }, { signal }))), "PKI_CA_REFUSED");
  });

  test(`${name}: a lifetime beyond the limit is refused`, async (t) => {
    const ca = await open(t);
    const asking = ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 91 * 86_400_000 }, { signal });
    t.is(errorCode(await t.throwsAsync(asking)), "PKI_CA_REFUSED");
  });

  test(`${name}: an aborted signal is the reason of the rejection`, async (t) => {
    const ca = await open(t);
    const reason = new Error("stop");
    const asking = ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal: AbortSignal.abort(reason) });
    t.is(await t.throwsAsync(asking), reason);
  });

  test(`${name}: many requests at once are all answered`, async (t) => {
    const ca = await open(t);
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal })),
    );
    t.is(new Set(answers.map(([leaf]) => parseCertificates(leaf ?? "")[0]?.serialNumber)).size, 50);
  });
}

compliance("in this process", async () => localCaClient(authority));
compliance("over gRPC", async (t) => {
  const { address } = await serve(t);
  return client(t, { address });
});

test("the token is read for every request, and sent with the cluster and the configured headers", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fairway-pki-"));
  t.teardown(() => rm(folder, { recursive: true }));
  const path = join(folder, "token");
  await writeFile(path, "first\n");
  const { address, seen } = await serve(t);
  const ca = client(t, { address, token: { kind: "file", path }, headers: new Map([["X-Extra", "yes"]]) });
  const ask = () => ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal });
  await ask();
  await writeFile(path, "second\n");
  await ask();
  t.deepEqual(
    seen.map((metadata) => metadata.get("authorization")[0]),
    ["Bearer first", "Bearer second"],
  );
  t.deepEqual(seen[0]?.get("clusterid"), ["Kubernetes"]);
  t.deepEqual(seen[0]?.get("x-extra"), ["yes"]);
  await rm(path);
  const error = await t.throwsAsync(ask());
  t.is(errorCode(error), "PKI_CA_UNAVAILABLE");
  t.regex(messageOf(error), /token/);
});

test("changed roots open a new channel; roots that cannot be read keep the old one", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fairway-pki-"));
  t.teardown(() => rm(folder, { recursive: true }));
  const path = join(folder, "root-cert.pem");
  const other = Authority.createSelfSigned({ trustDomain: "other", clock: systemClock });
  await writeFile(path, other.rootBundle);
  const { address } = await serve(t);
  const ca = client(t, { address, roots: { kind: "file", path } });
  const ask = () => ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal });
  t.is(errorCode(await t.throwsAsync(ask())), "PKI_CA_UNAVAILABLE");
  await writeFile(`${path}.next`, authority.rootBundle);
  await rename(`${path}.next`, path);
  t.is((await ask()).length, 2);
  await writeFile(path, "");
  t.is((await ask()).length, 2);
});

test("the server's name is checked, and the alternative name is accepted beside it", async (t) => {
  const { address } = await serve(t, { dnsNames: ["istiod.istio-system.svc"], ips: [] });
  const ask = (ca: CaClient) => ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal });
  t.is(errorCode(await t.throwsAsync(ask(client(t, { address })))), "PKI_CA_UNAVAILABLE");
  t.is(errorCode(await t.throwsAsync(ask(client(t, { address, alternativeHostname: "another.svc" })))), "PKI_CA_UNAVAILABLE");
  t.is((await ask(client(t, { address, alternativeHostname: "istiod.istio-system.svc" }))).length, 2);
});

test("without impersonation the request names nobody", async (t) => {
  const { address, impersonated } = await serve(t);
  const ca = grpcCaClient({ controlPlane: controlPlane(options({ address })), impersonate: false });
  t.teardown(() => ca[Symbol.asyncDispose]());
  await t.throwsAsync(ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal }));
  t.deepEqual(impersonated, [undefined]);
});

test("a CA that does not answer is given up at the deadline, one that is not there at once or then", async (t) => {
  const silent = createServer((socket) => {
    socket.on("error", () => undefined);
    t.teardown(() => void socket.destroy());
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.teardown(() => void silent.close());
  const bound = silent.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : 0;
  const ca = grpcCaClient({ controlPlane: controlPlane(options({ address: `https://127.0.0.1:${port}` })), impersonate: true, deadlineMs: 300 });
  t.teardown(() => ca[Symbol.asyncDispose]());
  const error = await t.throwsAsync(ca.sign({ csr: buildCsr(alice, generateKeyPair()), identity: alice, ttlMs: 0 }, { signal }));
  t.is(errorCode(error), "PKI_CA_UNAVAILABLE");
});

test("addresses are read as the environment writes them", (t) => {
  const target = (address: string) => controlPlane(options({ address })).target;
  t.is(target("https://istiod.istio-system.svc:15012"), "istiod.istio-system.svc:15012");
  t.is(target("istiod.istio-system.svc:15012"), "istiod.istio-system.svc:15012");
  t.is(target("https://istiod.example:443"), "istiod.example:443");
  t.is(target("istiod"), "istiod:15012");
  t.is(target("https://[fd00::1]:15012"), "[fd00::1]:15012");
  for (const bad of ["", "ftp://x:1", "https://x:1/path", "https://x:99999", "https://user@x:1"])
    t.is(errorCode(t.throws(() => target(bad))), "PKI_BAD_ADDRESS", bad);
  t.is(errorCode(t.throws(() => controlPlane({ ...options({ address: "x:1" }), headers: new Map([["bad header", "x"]]) }))), "PKI_BAD_HEADER");
});

test("a token is never sent in plain text", async (t) => {
  const plain = controlPlane({ ...options({ address: "http://127.0.0.1:15010" }), token: { kind: "literal", token: "secret" } });
  t.deepEqual((await plain.metadata()).get("authorization"), []);
});

function options(given: Partial<ControlPlaneOptions> & { address: string }): ControlPlaneOptions {
  return { roots: { kind: "pem", pem: authority.rootBundle }, token: { kind: "literal", token: "token" }, clusterId: "Kubernetes", ...given };
}

function client(t: ExecutionContext, given: Partial<ControlPlaneOptions> & { address: string }): CaClient {
  const ca = grpcCaClient({ controlPlane: controlPlane(options(given)), impersonate: true });
  t.teardown(() => ca[Symbol.asyncDispose]());
  return ca;
}

/** The CA service with TLS on loopback; it believes every caller. */
async function serve(t: ExecutionContext, names: { dnsNames: string[]; ips: string[] } = { dnsNames: [], ips: ["127.0.0.1"] }) {
  const seen: Metadata[] = [];
  const impersonated: unknown[] = [];
  const server = new Server();
  server.addService(IstioCertificateServiceService, {
    createCertificate: (
      {
        request,
        metadata,
      }: { request: { csr: string; validityDuration: number; metadata: { readonly [key: string]: unknown } | undefined }; metadata: Metadata },
      done: sendUnaryData<{ certChain: string[] }>,
    ) => {
      seen.push(metadata);
      const name = request.metadata?.["ImpersonatedIdentity"];
      impersonated.push(name);
      try {
        const identity: SpiffeId = parseSpiffeId(String(name));
        done(null, { certChain: authority.sign({ csr: request.csr, identity, ttlMs: request.validityDuration * 1000 }) });
      } catch (thrown) {
        done({ code: status.UNAUTHENTICATED, details: MeshError.from(thrown, "TEST").message, metadata: new Metadata() });
      }
    },
  });
  const { key, cert } = authority.signServer(names);
  const credentials = ServerCredentials.createSsl(null, [{ private_key: Buffer.from(key), cert_chain: Buffer.from(cert) }]);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error === null ? resolve(bound) : reject(error))),
  );
  t.teardown(() => server.forceShutdown());
  return { address: `https://127.0.0.1:${port}`, seen, impersonated };
}
