import { errorCode, MeshError } from "@fairway/runtime";
import test from "ava";
import { readConfig, type Surroundings } from "./environment.ts";

const bare: Surroundings = { exists: () => false, read: () => "", cores: 8 };
const withFiles = (files: Readonly<Record<string, string>>): Surroundings => ({ exists: (path) => path in files, read: (path) => files[path] ?? "", cores: 8 });

test("an empty environment is a shared proxy with the reference's defaults", (t) => {
  const config = readConfig({}, bare);
  t.deepEqual(config.mode, { kind: "shared", zdsSocket: "/var/run/ztunnel/ztunnel.sock" });
  t.is(config.proxy.mark, 1337);
  t.is(config.proxy.listenHost, "0.0.0.0");
  t.deepEqual(config.proxy.keepalive, { timeMs: 180_000, intervalMs: 180_000, retries: 9 });
  t.is(config.proxy.maxStreamsPerTunnel, 100);
  t.is(config.proxy.tunnelIdleMs, 300_000);
  t.deepEqual([config.proxy.streamWindow, config.proxy.connectionWindow, config.proxy.frameSize], [4_194_304, 16_777_216, 1_048_576]);
  t.is(config.proxy.keepSource, "best-effort");
  t.is(config.xds.address, "https://localhost:15012");
  t.deepEqual(config.xds.roots, { kind: "file", path: "./var/run/secrets/istio/root-cert.pem" });
  t.deepEqual(config.token, { kind: "none" });
  t.is(config.drainDeadlineMs, 5_000);
  t.is(config.ca.certificateTtlMs, 86_400_000);
  t.is(config.proxy.clusterId, "Kubernetes");
  t.is(config.node.id, "ztunnel~1.1.1.1~.~.svc.cluster.local");
});

test("every wrong variable is named at once", (t) => {
  const error = t.throws(() =>
    readConfig(
      {
        PROXY_MODE: "sidecar",
        KEEPALIVE_TIME: "soon",
        PACKET_MARK: "-1",
        ENABLE_ORIG_SRC: "maybe",
        LOG_FORMAT: "xml",
        HTTP2_FRAME_SIZE: "1",
        ZTUNNEL_WORKER_THREADS: "some",
      },
      bare,
    ),
  );
  t.is(errorCode(error), "RUNTIME_BAD_CONFIG");
  for (const name of ["PROXY_MODE", "KEEPALIVE_TIME", "PACKET_MARK", "ENABLE_ORIG_SRC", "LOG_FORMAT", "HTTP2_FRAME_SIZE", "ZTUNNEL_WORKER_THREADS"]) {
    t.true(error?.message.includes(name), name);
  }
});

for (const [what, env, name] of [
  ["a dedicated proxy without its workload", { PROXY_MODE: "dedicated" }, "PROXY_WORKLOAD_INFO"],
  ["two local meshes", { LOCAL_XDS: "{}", LOCAL_XDS_PATH: "x" }, "LOCAL_XDS"],
  ["on-demand discovery beside the DNS proxy", { XDS_ON_DEMAND: "true" }, "XDS_ON_DEMAND"],
  ["nothing to do", { ENABLE_PROXY: "false", ISTIO_META_DNS_CAPTURE: "false" }, "ENABLE_PROXY"],
] as const) {
  test(`${what} is refused`, (t) => {
    const error = t.throws(() => readConfig(env, bare), { instanceOf: MeshError });
    t.true(error?.message.includes(name));
  });
}

test("dedicated mode serves one workload and marks nothing", (t) => {
  const config = readConfig({ PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/cart/cart-sa" }, bare);
  t.deepEqual(config.mode, { kind: "dedicated", pod: { namespace: "shop", name: "cart", serviceAccount: "cart-sa" } });
  t.is(config.proxy.mark, 0);
});

for (const [address, env, expected] of [
  ["none in a cluster", { KUBERNETES_SERVICE_HOST: "10.0.0.1" }, "https://istiod.istio-system.svc:15012"],
  ["an empty one", { XDS_ADDRESS: "" }, undefined],
  ["one without a scheme", { XDS_ADDRESS: "istiod:15012" }, "https://istiod:15012"],
  ["one with a scheme", { XDS_ADDRESS: "http://localhost:15010" }, "http://localhost:15010"],
  ["that of PROXY_CONFIG", { PROXY_CONFIG: "discoveryAddress: other:15012" }, "https://other:15012"],
] as const) {
  test(`control plane address: ${address}`, (t) => {
    t.is(readConfig(env, bare).xds.address, expected);
    const ofCa = "XDS_ADDRESS" in env ? { CA_ADDRESS: env.XDS_ADDRESS } : env;
    t.is(readConfig(ofCa, bare).ca.address, expected, "the CA's");
  });
}

const resolverFile = "/etc/resolv.conf";
const ipv6Switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

test("the DNS proxy listens on loopback and asks whom this process would ask", (t) => {
  const files = {
    [resolverFile]: "# made by hand\nnameserver 10.96.0.10 ; first\nnameserver fe80::1%eth0\nnameserver fd00::a\nsearch Corp.Example.\n",
    [ipv6Switch]: "0\n",
  };
  t.deepEqual(readConfig({ CLUSTER_DOMAIN: "Mesh.Local", PREFERED_SERVICE_NAMESPACE: "shop" }, withFiles(files)).proxy.dns, {
    listen: [
      { host: "127.0.0.1", port: 15_053 },
      { host: "::1", port: 15_053 },
    ],
    clusterDomain: "mesh.local",
    searchDomains: undefined,
    preferredNamespace: "shop",
    upstreams: [
      { ip: "10.96.0.10", port: 53 },
      { ip: "fd00::a", port: 53 },
    ],
    ipv6: true,
  });
  const dedicated = readConfig({ PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "a/b/c" }, withFiles(files)).proxy.dns;
  t.deepEqual(dedicated?.searchDomains, ["corp.example"]);
});

for (const [address, listen] of [
  ["localhost:53", [{ host: "127.0.0.1", port: 53 }]],
  ["127.0.0.9:5353", [{ host: "127.0.0.9", port: 5_353 }]],
  ["[fd00::1]:5353", [{ host: "fd00::1", port: 5_353 }]],
] as const) {
  test(`the DNS proxy at ${address}`, (t) => {
    t.deepEqual(readConfig({ ISTIO_META_DNS_PROXY_ADDR: address }, bare).proxy.dns?.listen, listen);
  });
}

for (const address of ["example.org:53", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "1.2.3:53", "fd00::1:53"]) {
  test(`the DNS proxy at ${address} is refused`, (t) => {
    const error = t.throws(() => readConfig({ ISTIO_META_DNS_PROXY_ADDR: address }, bare));
    t.true(error?.message.includes("ISTIO_META_DNS_PROXY_ADDR"));
  });
}

test("without DNS capture there is no DNS proxy", (t) => t.is(readConfig({ ISTIO_META_DNS_CAPTURE: "false" }, bare).proxy.dns, undefined));

for (const [env, expected] of [
  [{}, 5_000],
  [{ TERMINATION_GRACE_PERIOD_SECONDS: "30" }, 25_000],
  [{ TERMINATION_GRACE_PERIOD_SECONDS: "10" }, 9_000],
  [{ TERMINATION_GRACE_PERIOD_SECONDS: "1" }, 1_000],
  [{ TERMINATION_GRACE_PERIOD_SECONDS: "30", CONNECTION_TERMINATION_DEADLINE: "1m30s" }, 90_000],
] as const) {
  test(`drain deadline of ${JSON.stringify(env)}`, (t) => {
    t.is(readConfig(env, bare).drainDeadlineMs, expected);
  });
}

for (const [env, expected] of [
  [{}, 2],
  [{ ZTUNNEL_WORKER_THREADS: "0" }, 8],
  [{ ZTUNNEL_WORKER_THREADS: "3" }, 3],
  [{ ZTUNNEL_WORKER_THREADS: "50%" }, 4],
  [{ ZTUNNEL_CPU_LIMIT: "1500m" }, 2],
  [{ ZTUNNEL_RESOURCE_CPU_REQUEST: "6" }, 6],
] as const) {
  test(`worker threads of ${JSON.stringify(env)} on eight cores`, (t) => {
    t.is(readConfig(env, bare).workerThreads, expected);
  });
}

test("a token file wins over a literal of the same name, and roots come in three forms", (t) => {
  t.deepEqual(readConfig({}, withFiles({ "./var/run/secrets/tokens/istio-token": "x" })).token, { kind: "file", path: "./var/run/secrets/tokens/istio-token" });
  t.deepEqual(readConfig({ AUTH_TOKEN: "abc" }, bare).token, { kind: "literal", token: "abc" });
  t.deepEqual(readConfig({ XDS_ROOT_CA: "SYSTEM" }, bare).xds.roots, { kind: "system" });
  t.is(readConfig({ CA_ROOT_CA: "-----BEGIN CERTIFICATE-----\nx" }, bare).ca.roots.kind, "pem");
});

test("headers and metadata are gathered by prefix, typed values last", (t) => {
  const config = readConfig(
    {
      "XDS_HEADER_x-tenant": "blue",
      "CA_HEADER_x-tenant": "green",
      ISTIO_META_CLUSTER_ID: "east",
      CLUSTER_ID: "west",
      ISTIO_META_ROLE: "edge",
      ISTIO_METAJSON_LIMITS: '{"a":1}',
      PROXY_CONFIG: "proxyMetadata: {ISTIO_META_FROM: config, ISTIO_META_ROLE: overridden}",
    },
    bare,
  );
  t.is(config.xds.headers.get("x-tenant"), "blue");
  t.is(config.ca.headers.get("x-tenant"), "green");
  t.is(config.proxy.clusterId, "east");
  t.is(config.node.metadata["ROLE"], "edge");
  t.is(config.node.metadata["FROM"], "config");
  t.deepEqual(config.node.metadata["LIMITS"], { a: 1 });
});

test("IPv6 follows the kernel's switch", (t) => {
  const path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
  t.is(readConfig({}, withFiles({ [path]: "0\n" })).proxy.listenHost, "::");
  t.is(readConfig({}, withFiles({ [path]: "1\n" })).proxy.listenHost, "0.0.0.0");
  t.is(readConfig({ IPV6_ENABLED: "false" }, withFiles({ [path]: "0\n" })).proxy.listenHost, "0.0.0.0");
});

test("a broken PROXY_CONFIG says what is wrong", (t) => {
  t.is(errorCode(t.throws(() => readConfig({ PROXY_CONFIG: "statsPort: many" }, bare))), "ZTUNNEL_BAD_PROXY_CONFIG");
  t.is(errorCode(t.throws(() => readConfig({ PROXY_CONFIG: "{" }, bare))), "ZTUNNEL_BAD_PROXY_CONFIG");
});
