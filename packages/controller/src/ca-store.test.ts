import { resources } from "@fairway/kube";
import { Authority } from "@fairway/pki";
import { ManualClock, silentLogger } from "@fairway/runtime";
import test from "ava";
import { CaStore } from "./ca-store.ts";
import { FakeKube } from "./fake-kube.ts";

const namespace = "fairway-system";
const encode = (text: string): string => Buffer.from(text).toString("base64");
const secret = (name: string, authority: Authority) => {
  const { caCert, caKey, certChain, rootCert } = authority.exportPem();
  return {
    metadata: { name, namespace },
    data: { "ca-cert.pem": encode(caCert), "ca-key.pem": encode(caKey), "cert-chain.pem": encode(certChain), "root-cert.pem": encode(rootCert) },
  };
};

function setUp() {
  const kube = new FakeKube();
  const clock = new ManualClock(Date.now());
  const open = () =>
    CaStore.open({ client: kube, namespace, trustDomain: "cluster.local", clock, log: silentLogger }, { signal: new AbortController().signal });
  return { kube, clock, open };
}

test("replicas that start together end with one CA", async (t) => {
  const { kube, open } = setUp();
  const [a, b] = await Promise.all([open(), open()]);
  t.is(a.authority.current.rootBundle, b.authority.current.rootBundle);
  t.is(kube.writes.length, 1);
});

test("a plugged-in CA goes before the stored one, also under the names of a TLS Secret", async (t) => {
  const { kube, clock, open } = setUp();
  const plugged = Authority.createSelfSigned({ trustDomain: "corp", clock });
  kube.set(resources.secrets, secret("istio-ca-secret", Authority.createSelfSigned({ trustDomain: "cluster.local", clock })));
  const { caCert, caKey } = plugged.exportPem();
  kube.set(resources.secrets, {
    metadata: { name: "cacerts", namespace },
    data: { "tls.crt": encode(caCert), "tls.key": encode(caKey), "ca.crt": encode(caCert) },
  });
  const store = await open();
  t.is(store.authority.current.rootBundle, plugged.rootBundle);
});

test("a changed root that running peers would not trust is refused, and the mesh goes on with the old one", async (t) => {
  const { kube, clock, open } = setUp();
  const store = await open();
  const before = store.authority.current.rootBundle;
  kube.set(resources.secrets, secret("istio-ca-secret", Authority.createSelfSigned({ trustDomain: "other", clock })));
  t.is(store.authority.current.rootBundle, before);
  kube.set(resources.secrets, {
    metadata: { name: "istio-ca-secret", namespace },
    data: { "ca-cert.pem": encode("nonsense"), "ca-key.pem": encode("nonsense") },
  });
  t.is(store.authority.current.rootBundle, before);
  kube.store(resources.secrets).delete(`${namespace}/istio-ca-secret`);
  t.is(store.authority.current.rootBundle, before);
});

test("the leader replaces a root near its end by one of the same key, and every replica takes it", async (t) => {
  const { kube, clock, open } = setUp();
  const shortLived = Authority.createSelfSigned({ trustDomain: "cluster.local", clock, ttlMs: 3_600_000 });
  kube.set(resources.secrets, secret("istio-ca-secret", shortLived));
  const [leader, follower] = [await open(), await open()];
  const leading = new AbortController();
  const rotating = leader.rotate(leading.signal);
  await clock.advance(0);
  t.is(leader.authority.current.rootBundle, shortLived.rootBundle, "not yet");
  await clock.advance(3_600_000 - 60_000);
  leading.abort(new Error("stop"));
  await rotating;
  const again = new AbortController();
  const second = leader.rotate(again.signal);
  while (leader.authority.current.rootBundle === shortLived.rootBundle) await clock.advance(1);
  again.abort(new Error("stop"));
  await second;
  t.true(leader.authority.current.notAfter > shortLived.notAfter);
  t.is(follower.authority.current.rootBundle, leader.authority.current.rootBundle);
});

test("an API server that is away is an error with its code", async (t) => {
  const { kube, open } = setUp();
  kube.away = true;
  await t.throwsAsync(open(), { code: "KUBE_UNAVAILABLE" });
});
