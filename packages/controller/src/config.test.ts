import test from "ava";
import { readConfig } from "./config.ts";

test("without variables the defaults of the reference hold", (t) => {
  const config = readConfig({});
  t.like(config, { podName: `controller-${process.pid}`, tokenAudiences: ["istio-ca"], ports: { grpc: 15012, ready: 8080, metrics: 15014, debug: 9876 } });
  t.like(config.settings, {
    rootNamespace: "fairway-system",
    clusterId: "Kubernetes",
    trustDomain: "cluster.local",
    clusterDomain: "cluster.local",
    dryRunPolicies: false,
  });
  t.deepEqual([...config.trustedNodeAccounts], ["fairway-system/ztunnel"]);
  t.is(config.defaultCertificateTtlMs, 86_400_000);
});

test("what is set counts, and what is wrong is named, all of it", (t) => {
  const config = readConfig({ POD_NAMESPACE: "mesh", CA_TRUSTED_NODE_ACCOUNTS: "a/b, c/d", TRUST_DOMAIN: "example.org", DEFAULT_WORKLOAD_CERT_TTL: "1h" });
  t.deepEqual([...config.trustedNodeAccounts], ["a/b", "c/d"]);
  t.is(config.settings.trustDomain, "example.org");
  t.is(config.defaultCertificateTtlMs, 3_600_000);
  const error = t.throws(() => readConfig({ GRPC_PORT: "high", TRUST_DOMAIN: "a/b", DEFAULT_WORKLOAD_CERT_TTL: "soon" }), { code: "RUNTIME_BAD_CONFIG" });
  for (const name of ["GRPC_PORT", "TRUST_DOMAIN", "DEFAULT_WORKLOAD_CERT_TTL"]) t.true(error?.message.includes(name));
});

test("proxyless clients are served where a port is set", (t) => {
  t.is(readConfig({ PROXYLESS_PORT: "15010" }).ports.proxyless, 15_010);
  t.is(readConfig({ PROXYLESS_PORT: "" }).ports.proxyless, undefined);
  t.is(readConfig({}).ports.proxyless, undefined);
  t.throws(() => readConfig({ PROXYLESS_PORT: "plain" }), { message: /PROXYLESS_PORT/ });
});

test("an empty list of trusted accounts lets nobody speak for others", (t) => {
  t.deepEqual([...readConfig({ CA_TRUSTED_NODE_ACCOUNTS: "" }).trustedNodeAccounts], []);
});
