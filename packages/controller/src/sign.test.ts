import { resources } from "@fairway/kube";
import { parseSpiffeId } from "@fairway/model";
import { Authority, buildCsr, generateKeyPair, parseCertificates } from "@fairway/pki";
import { createRegistry, ManualClock, silentLogger } from "@fairway/runtime";
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
      trustDomain: "cluster.local",
      trustedNodeAccounts: new Set(["fairway-system/ztunnel"]),
    },
    defaultTtlMs: dayMs,
    maxTtlMs: 90 * dayMs,
    clock,
    log: silentLogger,
    metrics: createControllerMetrics(createRegistry(), clock),
  });
  const csr = buildCsr(web, generateKeyPair());
  const ask = (changes: { csr?: string; validityDuration?: number; requested?: string; authorization?: string | undefined } = {}) =>
    signing.sign(
      { csr: changes.csr ?? csr, validityDuration: changes.validityDuration ?? 0, metadata: { ImpersonatedIdentity: changes.requested ?? web } },
      "authorization" in changes ? changes.authorization : "Bearer ztunnel",
      never,
    );
  return { kube, clock, webPod, ask };
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

test("callers that are nobody are unauthenticated", async (t) => {
  const { kube, ask } = setUp();
  kube.tokens.set("wrong-audience", { namespace: "fairway-system", serviceAccount: "ztunnel", podName: "zt", podUid: "uid-zt", audiences: ["other"] });
  for (const authorization of [undefined, "", "Basic x", "Bearer unknown", "Bearer wrong-audience", `Bearer ${"x".repeat(20_000)}`]) {
    t.like(await ask({ authorization }), { code: status.UNAUTHENTICATED });
  }
});

test("requests that cannot be signed say why", async (t) => {
  const { kube, webPod, ask } = setUp();
  kube.set(resources.pods, webPod);
  t.like(await ask({ csr: "nonsense" }), { code: status.INVALID_ARGUMENT });
  t.like(await ask({ csr: "" }), { code: status.INVALID_ARGUMENT });
  t.like(await ask({ csr: buildCsr(parseSpiffeId("spiffe://cluster.local/ns/shop/sa/other"), generateKeyPair()) }), { code: status.INVALID_ARGUMENT });
  t.like(await ask({ validityDuration: 100 * 86_400 }), { code: status.INVALID_ARGUMENT });
});

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
