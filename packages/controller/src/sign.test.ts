import { resources } from "@fairway/kube";
import { parseSpiffeId } from "@fairway/model";
import { Authority, buildCsr, generateKeyPair, maxCsrBytes, parseCertificates } from "@fairway/pki";
import { createLogger, createRegistry, ManualClock } from "@fairway/runtime";
import { status } from "@grpc/grpc-js";
import test from "ava";
import { CallerReview } from "./callers.ts";
import { FakeKube } from "./fake-kube.ts";
import { pod } from "./fixtures.ts";
import { createControllerMetrics } from "./metrics.ts";
import { Signing } from "./sign.ts";

const web = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web");
const dayMs = 86_400_000;
const never = new AbortController().signal;

function setUp() {
  const kube = new FakeKube();
  const clock = new ManualClock(Date.now());
  kube.tokens.set("ztunnel", { namespace: "fairway-system", serviceAccount: "ztunnel", podName: "zt", podUid: "uid-zt" });
  kube.set(resources.pods, pod("zt", { metadata: { namespace: "fairway-system" }, spec: { nodeName: "n1", serviceAccountName: "ztunnel" } }));
  const webPod = pod("web", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled" } }, spec: { nodeName: "n1", serviceAccountName: "web" } });
  const lines: string[] = [];
  const registry = createRegistry();
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock });
  const pods = kube.store(resources.pods);
  const signing = new Signing({
    authority: () => authority,
    callers: new CallerReview({ client: kube, audiences: ["istio-ca"], clock }),
    facts: {
      pod: (namespace, name) => pods.get(`${namespace}/${name}`),
      podsOf: (node, namespace, account) =>
        [...pods.list()].filter(({ metadata, spec }) => metadata.namespace === namespace && spec?.nodeName === node && spec.serviceAccountName === account),
      namespace: () => undefined,
      gateway: () => undefined,
      trustDomain: "cluster.local",
      trustedNodeAccounts: new Set(["fairway-system/ztunnel"]),
    },
    defaultTtlMs: dayMs,
    maxTtlMs: 90 * dayMs,
    clock,
    log: createLogger("ca", { write: (line) => void lines.push(line) }),
    metrics: createControllerMetrics(registry, clock),
  });
  const csr = buildCsr(web, generateKeyPair());
  const ask = (changes: { csr?: string; validityDuration?: number; requested?: string; authorization?: string | undefined } = {}) =>
    signing.sign(
      { csr: changes.csr ?? csr, validityDuration: changes.validityDuration ?? 0, metadata: { ImpersonatedIdentity: changes.requested ?? web } },
      "authorization" in changes ? changes.authorization : "Bearer ztunnel",
      never,
    );
  return { kube, clock, webPod, ask, lines, registry };
}

test("a chain for a pod of the caller's node: leaf first, roots last, the identity that was proven, a day long", async (t) => {
  const { kube, clock, webPod, ask } = setUp();
  kube.set(resources.pods, webPod);
  const outcome = await ask();
  if (!("chain" in outcome)) return t.fail(outcome.message);
  const [leaf, root] = outcome.chain.map((pem) => parseCertificates(pem)[0]);
  t.deepEqual(leaf?.identities, [web]);
  t.true(Math.abs((leaf?.notAfter ?? 0) - clock.now() - dayMs) < 2_000);
  t.true(root?.x509.ca);
  t.true(outcome.chain.every((pem) => pem.endsWith("\n")));
  return t.is(outcome.chain.length, 2);
});

test("a pod that is seen a moment later still gets its certificate", async (t) => {
  const { kube, clock, webPod, ask } = setUp();
  const asking = ask();
  await clock.advance(300);
  kube.set(resources.pods, webPod);
  await clock.advance(300);
  t.true("chain" in (await asking));
});

test("a refusal tells the caller nothing but that", async (t) => {
  const { clock, ask } = setUp();
  let answered = false;
  const asking = ask().finally(() => {
    answered = true;
  });
  while (!answered) await clock.advance(500);
  t.deepEqual(await asking, { code: status.UNAUTHENTICATED, message: "request impersonation authentication failure" });
});

const zt = { namespace: "fairway-system", serviceAccount: "ztunnel", podName: "zt", podUid: "uid-zt" };
const other = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/other");
const requestOf = (text: string): string => `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(text).toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;

/** Who or what is refused, how the caller asks, and the code that the log line carries; and words that only the log has, or the caller too. */
const hostile: readonly [string, Parameters<ReturnType<typeof setUp>["ask"]>[0], status, string, RegExp][] = [
  ["no token", { authorization: undefined }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /no bearer token/],
  ["an empty header", { authorization: "" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /no bearer token/],
  ["another scheme", { authorization: "Basic x" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /no bearer token/],
  ["a token that nobody issued", { authorization: "Bearer unknown" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /does not accept the token/],
  ["a token of another audience", { authorization: "Bearer audience" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /does not accept the token/],
  ["an expired token", { authorization: "Bearer expired" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /token has expired/],
  ["a token of another issuer", { authorization: "Bearer issuer" }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /issuer/],
  ["a token too long to be one", { authorization: `Bearer ${"x".repeat(20_000)}` }, status.UNAUTHENTICATED, "CONTROLLER_UNAUTHENTICATED", /no bearer token/],
  [
    "another identity, by one who speaks for nobody",
    { authorization: "Bearer web", requested: other },
    status.UNAUTHENTICATED,
    "CONTROLLER_IDENTITY_REFUSED",
    /may not speak for/,
  ],
  ["a foreign trust domain", { requested: "spiffe://evil/ns/shop/sa/web" }, status.UNAUTHENTICATED, "CONTROLLER_IDENTITY_REFUSED", /trust domain evil/],
  ["a request that names another identity", { csr: buildCsr(other, generateKeyPair()) }, status.INVALID_ARGUMENT, "PKI_CSR_FOREIGN_IDENTITY", /sa\/other/],
  ["an oversized request", { csr: "x".repeat(maxCsrBytes + 1) }, status.INVALID_ARGUMENT, "PKI_CSR_TOO_LARGE", /bytes/],
  ["garbage", { csr: "nonsense" }, status.INVALID_ARGUMENT, "PKI_CSR_MALFORMED", /not a PEM/],
  ["nothing to sign", { csr: "" }, status.INVALID_ARGUMENT, "PKI_CSR_MALFORMED", /not a PEM/],
  ["garbage in PEM", { csr: requestOf("\u0000 nonsense") }, status.INVALID_ARGUMENT, "PKI_CSR_MALFORMED", /not a PEM/],
  ["too long a life", { validityDuration: 100 * 86_400 }, status.INVALID_ARGUMENT, "PKI_TTL_TOO_LONG", /at most/],
  ["a life that is no number", { validityDuration: Number.POSITIVE_INFINITY }, status.INVALID_ARGUMENT, "PKI_TTL_TOO_LONG", /at most/],
];
for (const [what, question, code, logged, words] of hostile) {
  test(`refused with a status and a line that carries ${logged}: ${what}`, async (t) => {
    const { kube, webPod, ask, lines, registry } = setUp();
    kube.set(resources.pods, webPod);
    kube.tokens.set("audience", { ...zt, audiences: ["other"] });
    kube.tokens.set("expired", { ...zt, refused: "service account token has expired" });
    kube.tokens.set("issuer", { ...zt, refused: 'token issuer "https://elsewhere" is not known' });
    kube.tokens.set("web", { namespace: "shop", serviceAccount: "web", podName: "web", podUid: "uid-web" });
    const outcome = await ask(question);
    if ("chain" in outcome) return t.fail("it was signed");
    t.is(outcome.code, code);
    t.is(lines.length, 1);
    t.regex(lines[0] ?? "", new RegExp(`\\twarn\\t.*code="?${logged}`));
    t.regex(lines[0] ?? "", words);
    // A caller that is refused learns nothing; one that is believed learns what is wrong with its request.
    if (code === status.UNAUTHENTICATED) t.notRegex(outcome.message, words);
    else t.regex(outcome.message, words);
    t.regex(await registry.metrics(), code === status.UNAUTHENTICATED ? /authentication_failure_count_total 1\n/ : /csr_parsing_err_count_total 1\n/);
    t.false(
      lines.some((line) => line.includes("xxxxxxxxxx")),
      "what a peer sent stays out of the log",
    );
    return t.true("chain" in (await ask()), "and the next honest request is served");
  });
}

test("an API server that is away means try again, and a believed token is not asked about again", async (t) => {
  const { kube, clock, webPod, ask } = setUp();
  kube.set(resources.pods, webPod);
  kube.away = true;
  t.like(await ask(), { code: status.UNAVAILABLE });
  kube.away = false;
  await ask();
  await ask();
  t.is(kube.reviews, 1);
  await clock.advance(11_000);
  await ask();
  t.is(kube.reviews, 2);
});
