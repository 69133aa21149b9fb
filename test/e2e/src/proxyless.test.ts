/**
 * The unmodified client of @grpc/grpc-js-xds against the controller's program: it asks for services by name on the plain port and follows
 * what it is told. The pods are addresses of loopback, so that no privileges are needed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectKube, type KubeClient, type KubeObject, resources } from "@fairway/kube";
import { checkoutFile, startApiServer } from "@fairway/local-cluster";
import { Client, credentials, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { register } from "@grpc/grpc-js-xds";
import test, { type ExecutionContext, registerCompletionHandler } from "ava";
import { eventually } from "./mesh.ts";

register();
// The library goes on looking for its control plane after its last channel was closed.
registerCompletionHandler(() => process.exit());

const port = 8080;
const path = "/demo.Echo/Say";
/** Of a call that is to be answered, and of one that is sent where nobody answers. */
const deadlineMs = 20_000;
const briefDeadlineMs = 2_000;
/** A DiscoveryRequest for all listeners of a node with the id "x" that says GENERATOR: grpc. */
const listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener";
const listenerRequest = Buffer.concat([
  field(
    2,
    Buffer.concat([
      field(1, Buffer.from("x")),
      field(3, field(1, Buffer.concat([field(1, Buffer.from("GENERATOR")), field(2, field(3, Buffer.from("grpc")))]))),
    ]),
  ),
  field(4, Buffer.from(listenerType)),
]);

interface Bench {
  readonly kube: KubeClient;
  /** Port that gRPC clients ask. */
  readonly discovery: string;
  /** Opens a channel to `xds:///<target>`; who answered, or the status, comes of each call. */
  readonly dial: (target: string) => (withinMs?: number) => Promise<string>;
}

async function start(t: ExecutionContext): Promise<Bench> {
  const unused = (): never => {
    throw new Error("no pod of this cluster runs");
  };
  const api = await startApiServer({ kubelet: { logs: unused, exec: unused, dial: unused } });
  const folder = await mkdtemp(join(tmpdir(), "fairway-proxyless-"));
  const kubeconfig = join(folder, "kubeconfig");
  await writeFile(kubeconfig, api.kubeconfig(), { mode: 0o600 });
  const kube = connectKube({ kubeconfig });
  for (const name of ["fairway-system", "shop"]) await kube.create(resources.namespaces, { metadata: { name } });
  const ports = { GRPC_PORT: await freePort(), READY_PORT: await freePort(), METRICS_PORT: await freePort(), DEBUG_PORT: await freePort() };
  const discovery = await freePort();
  const env = { ...process.env, ...ports, KUBECONFIG: kubeconfig, PROXYLESS_PORT: discovery, POD_NAME: "controller-1", LOG_LEVEL: "warn" };
  const controller = spawn(process.execPath, [checkoutFile("packages/controller/dist/main.js")], { env, stdio: ["ignore", "ignore", "inherit"] });
  t.teardown(async () => {
    await stop(controller);
    await api[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });
  const isReady = (): Promise<boolean> =>
    fetch(`http://127.0.0.1:${ports.READY_PORT}/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  await eventually("a controller that is ready", async () => ((await isReady()) ? true : undefined));
  return {
    kube,
    discovery,
    dial: (target) => {
      const bootstrap = {
        xds_servers: [{ server_uri: `127.0.0.1:${discovery}`, channel_creds: [{ type: "insecure" }], server_features: ["xds_v3"] }],
        node: { id: "app", locality: {}, metadata: { GENERATOR: "grpc" } },
      };
      const client = new Client(`xds:///${target}`, credentials.createInsecure(), {
        "grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config": JSON.stringify(bootstrap),
      });
      t.teardown(() => client.close());
      const text = (bytes: Buffer): string => bytes.toString();
      return (withinMs = deadlineMs) =>
        new Promise((resolve) => {
          client.makeUnaryRequest(path, Buffer.from, text, "who", { deadline: Date.now() + withinMs }, (error, value) =>
            resolve(error === null ? (value ?? "") : (status[error.code] ?? "")),
          );
        });
    },
  };
}

/** Opens a stream of its own, as a new process does. */
function ask(discovery: string): Promise<string> {
  const client = new Client(`127.0.0.1:${discovery}`, credentials.createInsecure());
  const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
  const stream = client.makeBidiStreamRequest(method, (request: Buffer) => request, String);
  return new Promise<string>((resolve) => {
    stream.on("data", () => resolve("told"));
    stream.on("error", ({ code }: { code?: number }) => resolve(status[code ?? status.UNKNOWN] ?? ""));
    stream.write(listenerRequest);
  }).finally(() => client.close());
}

async function stop(controller: ChildProcess): Promise<void> {
  if (controller.exitCode !== null) return;
  const gone = new Promise((resolve) => controller.once("exit", resolve));
  controller.kill("SIGTERM");
  await gone;
}

/** A length-delimited protobuf field, shorter than 128 bytes. */
function field(number: number, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([number * 8 + 2, value.length]), value]);
}

/** Below what the kernel gives away, where a port that was found free may be anybody's a moment later. */
const lastPort = 29_999;
let nextPort = 28_000 + (process.pid % 50) * 40;

async function freePort(): Promise<string> {
  while (nextPort <= lastPort) {
    const tried = nextPort++;
    const server = createServer();
    const listens = new Promise<boolean>((resolve) => server.once("listening", () => resolve(true)).once("error", () => resolve(false)));
    server.listen(tried);
    if (!(await listens)) continue;
    await new Promise((resolve) => server.close(resolve));
    return String(tried);
  }
  throw new Error("no port is free");
}

/** A gRPC server at `ip` that answers every call with `name`, its pod, and the Service of that name. */
async function app(t: ExecutionContext, { kube }: Bench, name: string, ip: string): Promise<void> {
  const server = new Server();
  const bytes = (value: string): Buffer => Buffer.from(value);
  const method = {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: bytes,
    requestDeserialize: String,
    responseSerialize: bytes,
    responseDeserialize: String,
  } as const;
  server.addService({ say: method }, { say: (_call: unknown, done: (error: null, value: string) => void) => done(null, name) });
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`${ip}:${port}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error))),
  );
  t.teardown(() => server.forceShutdown());
  await pod(kube, name, ip);
  await kube.create(resources.services, {
    metadata: { name, namespace: "shop" },
    spec: { selector: { app: name }, ports: [{ name: "grpc", port, protocol: "TCP", targetPort: port }] },
  });
}

async function pod(kube: KubeClient, name: string, ip: string): Promise<void> {
  const metadata = { name, namespace: "shop", labels: { app: name, "istio.io/dataplane-mode": "ambient" } };
  const created = await kube.create(resources.pods, {
    metadata,
    spec: { nodeName: "n1", serviceAccountName: "default", containers: [{ name: "app", image: "app" }] },
  } as KubeObject);
  const ready = { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: "True" }] };
  await kube.replace(resources.pods, { ...created, status: ready }, { subresource: "status" });
}

const route = (weights: Readonly<Record<string, number>>) => ({
  apiVersion: "gateway.networking.k8s.io/v1",
  kind: "HTTPRoute",
  metadata: { name: "api", namespace: "shop" },
  spec: {
    parentRefs: [{ group: "", kind: "Service", name: "api", port }],
    rules: [{ backendRefs: Object.entries(weights).map(([name, weight]) => ({ name, port, weight })) }],
  },
});

async function counts(call: (withinMs?: number) => Promise<string>, calls: number, withinMs = deadlineMs): Promise<Readonly<Record<string, number>>> {
  const found: Record<string, number> = {};
  for (let left = calls; left > 0; left -= 50) {
    for (const answer of await Promise.all(Array.from({ length: Math.min(50, left) }, () => call(withinMs)))) found[answer] = (found[answer] ?? 0) + 1;
  }
  return found;
}

test.serial("the unmodified client resolves a service by its names, follows its endpoints and a weighted split, and does not pass a waypoint by", async (t) => {
  const bench = await start(t);
  const { kube, dial } = bench;
  await pod(kube, "client", "127.0.0.1");
  await app(t, bench, "api", "127.0.0.2");
  await app(t, bench, "canary", "127.0.0.3");

  const call = dial(`api.shop.svc.cluster.local:${port}`);
  t.is(await eventually("an answer", async () => ((await call()) === "api" ? "api" : undefined)), "api");
  for (const name of ["api", "api.shop", "api.shop.svc"]) {
    const short = dial(`${name}:${port}`);
    t.is(await short(), "api", name);
  }

  await kube.apply(resources.httpRoutes, route({ api: 90, canary: 10 }), { fieldManager: "e2e" });
  await eventually("the split", async () => ((await counts(call, 50))["canary"] === undefined ? undefined : true));
  const { api: stable = 0, canary = 0, ...others } = await counts(call, 2_000);
  t.deepEqual(others, {});
  t.is(stable + canary, 2_000);
  t.true(canary > 140 && canary < 260, `${canary} of 2000 for 10 %`);

  await kube.apply(resources.httpRoutes, route({ canary: 1 }), { fieldManager: "e2e" });
  await eventually("the canary alone", async () => ((await counts(call, 20))["canary"] === 20 ? true : undefined));
  const ready = await kube.get(resources.pods, "canary", "shop");
  await kube.replace(resources.pods, { ...ready, status: { ...ready.status, conditions: [{ type: "Ready", status: "False" }] } }, { subresource: "status" });
  await eventually("nobody to call", async () => ((await call()) === "UNAVAILABLE" ? true : undefined));
  await kube.delete(resources.httpRoutes, "api", "shop");
  await eventually("the service's own endpoint", async () => ((await call()) === "api" ? true : undefined));

  await kube.mergePatch(resources.services, "api", "shop", { metadata: { labels: { "istio.io/use-waypoint": "waypoint" } } });
  await eventually("calls to the virtual address, which nobody answers here", async () => ((await call(briefDeadlineMs)) === "api" ? undefined : true));
  t.deepEqual(Object.keys(await counts(call, 20, briefDeadlineMs)).includes("api"), false);
});

test.serial("a client in a pod that is not enrolled is told nothing", async (t) => {
  const bench = await start(t);
  const { kube, dial } = bench;
  await pod(kube, "client", "127.0.0.1");
  await app(t, bench, "api", "127.0.0.2");
  const trusted = dial(`api.shop:${port}`);
  await eventually("an answer", async () => ((await trusted()) === "api" ? true : undefined));
  await kube.mergePatch(resources.pods, "client", "shop", { metadata: { labels: { "istio.io/dataplane-mode": "none" } } });
  // Its open stream is let be, as everywhere; another process of the pod would ask anew, which the plain question stands for here.
  const refused = await eventually("a refusal", async () => {
    const answer = await ask(bench.discovery);
    return answer === "told" ? undefined : answer;
  });
  t.is(refused, "PERMISSION_DENIED");
});
