import { resources } from "@fairway/kube";
import { parseSpiffeId } from "@fairway/model";
import { Authority, buildCsr, controlPlane, generateKeyPair, grpcCaClient, parseCertificates } from "@fairway/pki";
import {
  AggregatedDiscoveryServiceClient,
  addressTypeUrl,
  authorizationTypeUrl,
  DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  DiscoveryRequest,
  type DiscoveryResponse,
  IstioCertificateServiceClient,
  listenerTypeUrl,
} from "@fairway/protocol";
import { createRegistry, silentLogger, systemClock } from "@fairway/runtime";
import { credentials, status } from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import { type Controller, startController } from "./app.ts";
import { readConfig } from "./config.ts";
import { FakeKube } from "./fake-kube.ts";
import { gateway, namespace, pod, policy, service } from "./fixtures.ts";

const never = new AbortController().signal;
const web = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web");
const rootKey = "fairway-system/istio-ca-root-cert";

function cluster(): FakeKube {
  const kube = new FakeKube();
  for (const name of ["fairway-system", "shop", "kube-public"]) kube.set(resources.namespaces, namespace(name));
  kube.set(resources.pods, pod("zt", { metadata: { namespace: "fairway-system" }, spec: { nodeName: "n1", serviceAccountName: "ztunnel" } }));
  kube.set(
    resources.pods,
    pod("web", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled" } }, spec: { nodeName: "n1", serviceAccountName: "web" } }),
  );
  kube.set(resources.services, service("web"));
  kube.set(resources.authorizationPolicies, policy("p", { rules: [{}] }, { generation: 1 }));
  kube.tokens.set("ztunnel", { namespace: "fairway-system", serviceAccount: "ztunnel", podName: "zt", podUid: "uid-zt" });
  kube.tokens.set("web", { namespace: "shop", serviceAccount: "web", podName: "web", podUid: "uid-web" });
  return kube;
}

async function start(t: ExecutionContext, kube: FakeKube, variables: Record<string, string> = {}): Promise<Controller> {
  const config = readConfig({ ...variables, GRPC_PORT: "0", READY_PORT: "0", METRICS_PORT: "0", DEBUG_PORT: "0", POD_NAME: "controller-1" });
  const controller = await startController(
    { config, client: kube, clock: systemClock, log: silentLogger, registry: createRegistry(), host: "127.0.0.1" },
    never,
  );
  t.teardown(() => controller[Symbol.asyncDispose]());
  return controller;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

async function rootOf(kube: FakeKube): Promise<string> {
  const roots = kube.store(resources.configMaps);
  await until(() => roots.get(rootKey) !== undefined);
  return roots.get(rootKey)?.data?.["root-cert.pem"] ?? "";
}

function planeFor(controller: Controller, root: string, token: string) {
  return controlPlane({
    address: `https://localhost:${controller.ports.grpc}`,
    roots: { kind: "pem", pem: root },
    token: { kind: "literal", token },
    clusterId: "Kubernetes",
  });
}

async function discover(controller: Controller, root: string, token: string, metadata: Record<string, string> = {}) {
  const plane = planeFor(controller, root, token);
  const channel = await plane.credentials();
  const client = new AggregatedDiscoveryServiceClient(plane.target, channel.credentials);
  const stream = client.deltaAggregatedResources(await plane.metadata());
  const responses: DeltaDiscoveryResponse[] = [];
  const failure = new Promise<{ code: number }>((resolve) => stream.on("error", resolve));
  const node = { id: "ztunnel~10.0.0.9~zt.fairway-system~fairway-system.svc.cluster.local", metadata };
  stream.on("data", (response: DeltaDiscoveryResponse) => {
    responses.push(response);
    stream.write(DeltaDiscoveryRequest.fromPartial({ typeUrl: response.typeUrl, responseNonce: response.nonce }));
  });
  // In this order: the server waits but a second for a sibling that was asked for later.
  for (const typeUrl of [authorizationTypeUrl, addressTypeUrl]) stream.write(DeltaDiscoveryRequest.fromPartial({ typeUrl, node }));
  return { responses, stream, failure, close: () => client.close() };
}

test("a ztunnel learns the mesh over TLS that the distributed root proves, policies first", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube);
  const root = await rootOf(kube);
  const { responses, failure, close } = await discover(controller, root, "ztunnel", { NAMESPACE: "fairway-system", NODE_NAME: "n1" });
  failure.catch(() => undefined);
  t.teardown(close);
  await until(() => responses.length >= 2);
  t.deepEqual(
    responses.map(({ typeUrl, resources: sent }) => [typeUrl, sent.map(({ name }) => name).sort()]),
    [
      [authorizationTypeUrl, ["shop/p"]],
      [addressTypeUrl, ["Kubernetes//Pod/fairway-system/zt", "Kubernetes//Pod/shop/web", "shop/web.shop.svc.cluster.local"]],
    ],
  );
  kube.store(resources.pods).delete("shop/web");
  await until(() => responses.length >= 3);
  t.deepEqual(responses[2]?.removedResources, ["Kubernetes//Pod/shop/web"]);
  let known = "";
  while (!known.includes("ztunnel~10.0.0.9")) known = await (await fetch(`http://127.0.0.1:${controller.ports.debug}/debug/syncz`)).text();
});

test("who is not one of the mesh's own, or says to be on another node, watches nothing", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube);
  const root = await rootOf(kube);
  const permissionDenied = 7;
  const unauthenticated = 16;
  for (const [token, metadata, code] of [
    ["web", {}, permissionDenied],
    ["ztunnel", { NODE_NAME: "n2" }, permissionDenied],
    ["nobody", {}, unauthenticated],
  ] as const) {
    const { failure, close, responses } = await discover(controller, root, token, metadata);
    t.is((await failure).code, code);
    t.deepEqual(responses, []);
    close();
  }
});

test("a waypoint is told the addresses and no policies of others; a pod that only looks like one is told nothing", async (t) => {
  const kube = cluster();
  const labels = { "gateway.networking.k8s.io/gateway-name": "wp", "gateway.istio.io/managed": "istio.io-mesh-controller" };
  kube.set(resources.gateways, gateway("wp"));
  kube.set(resources.pods, pod("wp-1", { metadata: { labels }, spec: { nodeName: "n1", serviceAccountName: "wp" } }));
  kube.set(resources.pods, pod("fake", { metadata: { labels }, spec: { nodeName: "n1", serviceAccountName: "web" } }));
  kube.tokens.set("waypoint", { namespace: "shop", serviceAccount: "wp", podName: "wp-1", podUid: "uid-wp-1" });
  kube.tokens.set("fake", { namespace: "shop", serviceAccount: "web", podName: "fake", podUid: "uid-fake" });
  const controller = await start(t, kube);
  const root = await rootOf(kube);
  const waypoint = await discover(controller, root, "waypoint", { NAMESPACE: "shop", SERVICE_ACCOUNT: "wp", NODE_NAME: "n1" });
  waypoint.failure.catch(() => undefined);
  t.teardown(waypoint.close);
  await until(() => waypoint.responses.length >= 1);
  t.deepEqual(
    waypoint.responses.map(({ typeUrl }) => typeUrl),
    [addressTypeUrl],
  );
  const fake = await discover(controller, root, "fake", { NAMESPACE: "shop" });
  t.teardown(fake.close);
  const permissionDenied = 7;
  t.is((await fake.failure).code, permissionDenied);
});

test("a gRPC client in an enrolled pod asks for a service by name on the plain port; other pods are refused, and without a port nobody is served", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube, { PROXYLESS_PORT: "0" });
  const ask = async (metadata: Record<string, unknown>): Promise<readonly string[] | number> => {
    const client = new AggregatedDiscoveryServiceClient(`127.0.0.1:${controller.ports.proxyless}`, credentials.createInsecure());
    t.teardown(() => client.close());
    const stream = client.streamAggregatedResources();
    const answer = new Promise<readonly string[] | number>((resolve) => {
      stream.on("data", ({ resources: sent }: DiscoveryResponse) => resolve(sent.map(({ typeUrl }) => typeUrl)));
      stream.on("error", ({ code }: { code: number }) => resolve(code));
    });
    stream.write(DiscoveryRequest.fromPartial({ node: { id: "app", metadata }, typeUrl: listenerTypeUrl, resourceNames: ["web.shop:80"] }));
    return answer;
  };
  t.is(await ask({ GENERATOR: "grpc" }), status.PERMISSION_DENIED, "127.0.0.1 is nobody's address");
  const here = { podIP: "127.0.0.1", podIPs: [{ ip: "127.0.0.1" }] };
  kube.set(resources.pods, pod("app", { metadata: { annotations: { "ambient.istio.io/redirection": "enabled" } }, status: here }));
  t.deepEqual(await ask({ GENERATOR: "grpc" }), [listenerTypeUrl]);
  t.is(await ask({}), status.PERMISSION_DENIED);
  let known = "";
  while (!known.includes('"grpc-')) known = await (await fetch(`http://127.0.0.1:${controller.ports.debug}/debug/connections`)).text();
  const metrics = await (await fetch(`http://127.0.0.1:${controller.ports.metrics}/metrics`)).text();
  t.regex(metrics, /pilot_xds_pushes_total\{type="lds"\} 1/);
  t.is((await start(t, cluster())).ports.proxyless, undefined);
});

test("a ztunnel is given the certificate of its node's pod, by the CA that is stored", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube);
  const plane = planeFor(controller, await rootOf(kube), "ztunnel");
  await using ca = grpcCaClient({ controlPlane: plane, impersonate: true });
  const chain = await ca.sign({ csr: buildCsr(web, generateKeyPair()), identity: web, ttlMs: 3_600_000 }, { signal: never });
  t.deepEqual(parseCertificates(chain[0] ?? "")[0]?.identities, [web]);
  t.is(kube.store(resources.secrets).get("fairway-system/istio-ca-secret")?.type, "istio.io/ca-root");
  const other = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/other");
  await using impostor = grpcCaClient({ controlPlane: planeFor(controller, await rootOf(kube), "web"), impersonate: true });
  await t.throwsAsync(impostor.sign({ csr: buildCsr(other, generateKeyPair()), identity: other, ttlMs: 0 }, { signal: never }), { code: "PKI_CA_REFUSED" });
});

test("a request larger than gRPC reads is refused by gRPC, and the next one is served", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube);
  const plane = planeFor(controller, await rootOf(kube), "ztunnel");
  const channel = await plane.credentials();
  const client = new IstioCertificateServiceClient(plane.target, channel.credentials);
  t.teardown(() => client.close());
  const metadata = await plane.metadata();
  const ask = (csr: string): Promise<number> =>
    new Promise((resolve) => client.createCertificate({ csr, validityDuration: 0, metadata: undefined }, metadata, (error) => resolve(error?.code ?? 0)));
  t.is(await ask("x".repeat(5_000_000)), status.RESOURCE_EXHAUSTED);
  t.is(await ask("x".repeat(100_000)), status.INVALID_ARGUMENT);
  t.is(await ask(buildCsr(parseSpiffeId("spiffe://cluster.local/ns/fairway-system/sa/ztunnel"), generateKeyPair())), status.OK);
});

test("the root is in every namespace that wants it, is put back when edited, and follows a rotated CA", async (t) => {
  const kube = cluster();
  const controller = await start(t, kube);
  const root = await rootOf(kube);
  const roots = kube.store(resources.configMaps);
  await until(() => roots.get("shop/istio-ca-root-cert") !== undefined);
  t.is(roots.get("kube-public/istio-ca-root-cert"), undefined);
  kube.set(resources.configMaps, { metadata: { name: "istio-ca-root-cert", namespace: "shop" }, data: { "root-cert.pem": "edited" } });
  await until(() => roots.get("shop/istio-ca-root-cert")?.data?.["root-cert.pem"] === root);
  kube.set(resources.namespaces, namespace("later"));
  await until(() => roots.get("later/istio-ca-root-cert") !== undefined);

  const secret = await kube.get(resources.secrets, "istio-ca-secret", "fairway-system");
  const decode = (name: string): string => Buffer.from(secret.data?.[name] ?? "", "base64").toString();
  const next = Authority.load({ caCert: decode("ca-cert.pem"), caKey: decode("ca-key.pem") }, systemClock)
    .rotated()
    .exportPem();
  const encode = (text: string): string => Buffer.from(text).toString("base64");
  kube.set(resources.secrets, {
    ...secret,
    data: { "ca-cert.pem": encode(next.caCert), "ca-key.pem": encode(next.caKey), "root-cert.pem": encode(next.rootCert) },
  });
  await until(() => roots.get("shop/istio-ca-root-cert")?.data?.["root-cert.pem"] === next.rootCert);
  const { responses, close } = await discover(controller, next.rootCert, "ztunnel");
  t.teardown(close);
  await until(() => responses.length >= 1);
  t.pass("the serving certificate is signed by the new root");
});

test("a stored CA is used again, and one that cannot be used stops the start", async (t) => {
  const kube = cluster();
  const first = await start(t, kube);
  const root = await rootOf(kube);
  await first[Symbol.asyncDispose]();
  await start(t, kube);
  t.is(kube.writes.filter(({ type, verb }) => type === "secrets" && verb === "create").length, 1);
  t.is(await rootOf(kube), root);
  const broken = cluster();
  broken.set(resources.secrets, { metadata: { name: "cacerts", namespace: "fairway-system" }, data: { "ca-cert.pem": "bm8=", "ca-key.pem": "bm8=" } });
  await t.throwsAsync(start(t, broken), { code: "PKI_CA_MATERIAL" });
});

test("readiness and metrics answer where they are scraped", async (t) => {
  const controller = await start(t, cluster());
  const ready = await fetch(`http://127.0.0.1:${controller.ports.ready}/ready`);
  t.deepEqual([ready.status, await ready.text()], [200, "ready\n"]);
  const metrics = await (await fetch(`http://127.0.0.1:${controller.ports.metrics}/metrics`)).text();
  t.regex(metrics, /citadel_server_root_cert_expiry_timestamp \d+/);
  t.regex(metrics, /fairway_controller_resources\{type="address"\} 3/);
});

test("told to stop while its inputs are awaited, it stops, and was never ready", async (t) => {
  const kube = cluster();
  const endless = Object.assign(Object.create(kube) as FakeKube, {
    collection: (...args: Parameters<FakeKube["collection"]>) => Object.assign(kube.collection(...args), { synced: new Promise<void>(() => undefined) }),
  });
  const config = readConfig({ GRPC_PORT: "0", READY_PORT: "0", METRICS_PORT: "0", DEBUG_PORT: "0" });
  const stop = new AbortController();
  const starting = startController(
    { config, client: endless, clock: systemClock, log: silentLogger, registry: createRegistry(), host: "127.0.0.1" },
    stop.signal,
  );
  await new Promise((resolve) => setImmediate(resolve));
  stop.abort(new Error("stop"));
  await t.throwsAsync(starting, { message: "stop" });
});
