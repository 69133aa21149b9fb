/** A cluster with the mesh and the test application, for tests that drive it only from outside. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { applyManifests, type KubeObject, parseManifests, type ResourceType, waitForRollout } from "@fairway/kube";
import { type Cluster, checkoutFile, projectImages, startCluster } from "@fairway/local-cluster";
import { createLogger, silentLogger } from "@fairway/runtime";
import { stringify } from "yaml";

export const meshNamespace = "fairway-system";
const appCommand = [process.execPath, fileURLToPath(new URL("./app.js", import.meta.url))];
const rolloutTimeoutMs = 180_000;
const eventuallyTimeoutMs = 60_000;
const pollMs = 100;
/** The application's last port to listen. Without it a pod counts as ready before; a machine with much else to do must not make it unready. */
const readinessProbe = { httpGet: { path: "/", port: 8080 }, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 10 };

export interface Pod extends KubeObject {
  spec: { nodeName?: string };
  status?: { podIP?: string; podIPs?: { ip: string }[]; conditions?: { type: string; status: string }[]; containerStatuses?: { restartCount: number }[] };
}
export interface Service extends KubeObject {
  spec: { clusterIP?: string; clusterIPs?: string[] };
}
export const pods: ResourceType<Pod> = { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };
export const services: ResourceType<Service> = { group: "", version: "v1", plural: "services", kind: "Service", namespaced: true };
export const namespaces: ResourceType = { group: "", version: "v1", plural: "namespaces", kind: "Namespace", namespaced: false };

/** Changes to the chart's objects before they are applied; returns what to apply. */
export type Customise = (object: KubeObject) => KubeObject;

export interface AppOptions {
  readonly namespace: string;
  readonly name: string;
  /** 1 or 2. */
  readonly node: number;
  /** On the pod, besides `app`. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Besides readiness. */
  readonly probes?: object;
  /** Also a headless Service `<name>-headless`. */
  readonly headless?: boolean;
  /** Of the pod. */
  readonly annotations?: Readonly<Record<string, string>>;
}

export class Mesh implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly #folder: string;

  private constructor(cluster: Cluster, folder: string) {
    this.cluster = cluster;
    this.#folder = folder;
  }

  /** Two dual-stack nodes with the mesh from the chart. */
  static async raise(name: string, customise: Customise = (object) => object, more: { dnsUpstream?: string } = {}): Promise<Mesh> {
    const folder = await mkdtemp(join(tmpdir(), `fairway-${name}-`));
    const log = process.env["FAIRWAY_E2E_LOG"] === undefined ? silentLogger : createLogger("cluster", { write: (line) => void process.stderr.write(line) });
    const images = { ...projectImages(), "fairway/e2e-app": { command: appCommand } };
    const cluster = await startCluster({ name: `${name}${process.pid}`, stateDir: folder, nodes: 2, families: ["ipv4", "ipv6"], images, log, ...more });
    const mesh = new Mesh(cluster, folder);
    try {
      const chart = parseManifests(await readFile(checkoutFile("charts/fairway/rendered/fairway.yaml"), "utf8")).map(customise);
      await mesh.apply(chart);
      await waitForRollout(cluster.client, meshNamespace, { timeoutMs: rolloutTimeoutMs });
    } catch (thrown) {
      await mesh[Symbol.asyncDispose]();
      throw thrown;
    }
    return mesh;
  }

  async apply(objects: readonly object[] | string): Promise<void> {
    const text = typeof objects === "string" ? objects : objects.map((object) => stringify(object)).join("---\n");
    await applyManifests(this.cluster.client, text, { fieldManager: "e2e" });
  }

  /** A namespace, enrolled from the start or not at all. */
  async namespace(name: string, { enrolled }: { enrolled: boolean }): Promise<void> {
    await this.apply([{ apiVersion: "v1", kind: "Namespace", metadata: { name, labels: enrolled ? { "istio.io/dataplane-mode": "ambient" } : {} } }]);
  }

  /** One pod of the test application behind a dual-stack Service of its name, under a service account of its name. Waits until it is ready. */
  async app({ namespace, name, node, labels = {}, env = {}, probes = {}, headless = false, annotations = {} }: AppOptions): Promise<void> {
    const nodeName = this.cluster.nodes[node - 1]?.name;
    const variables = Object.entries(env).map(([key, value]) => ({ name: key, value }));
    const ports = [7000, 7001, 7002, 7003, 7004, 7005, 7006, 8080].map((port) => ({ name: `tcp-${port}`, port, protocol: "TCP" }));
    const service = { selector: { app: name }, ipFamilyPolicy: "PreferDualStack", ports: [...ports, { name: "udp", port: 7053, protocol: "UDP" }] };
    await this.apply([
      { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } },
      {
        apiVersion: "apps/v1",
        kind: "Deployment",
        metadata: { name, namespace },
        spec: {
          replicas: 1,
          selector: { matchLabels: { app: name } },
          template: {
            metadata: { labels: { app: name, ...labels }, annotations },
            spec: {
              serviceAccountName: name,
              nodeSelector: { "kubernetes.io/hostname": nodeName },
              containers: [{ name: "app", image: "fairway/e2e-app:0.1.0", env: variables, readinessProbe, ...probes }],
            },
          },
        },
      },
      { apiVersion: "v1", kind: "Service", metadata: { name, namespace }, spec: service },
      ...(headless ? [{ apiVersion: "v1", kind: "Service", metadata: { name: `${name}-headless`, namespace }, spec: { ...service, clusterIP: "None" } }] : []),
    ]);
    await waitForRollout(this.cluster.client, namespace, { timeoutMs: rolloutTimeoutMs });
  }

  /** The pod of an app, ready. */
  async pod(namespace: string, name: string): Promise<Pod> {
    return eventually(`a ready pod of ${namespace}/${name}`, async () => {
      const found = (await this.cluster.client.list(pods, { namespace, labelSelector: `app=${name}` })).filter(
        ({ metadata }) => metadata.deletionTimestamp === undefined,
      );
      const [only] = found;
      return found.length === 1 && only !== undefined && isReady(only) ? only : undefined;
    });
  }

  async addresses(namespace: string, name: string): Promise<{ v4: string; v6: string }> {
    const ips = (await this.pod(namespace, name)).status?.podIPs?.map(({ ip }) => ip) ?? [];
    return byFamily(ips);
  }

  async serviceAddresses(namespace: string, name: string): Promise<{ v4: string; v6: string }> {
    return byFamily((await this.cluster.client.get(services, name, namespace)).spec.clusterIPs ?? []);
  }

  /** Performs one action of the test client inside an app's pod. */
  async act<T = Record<string, unknown>>(from: { namespace: string; name: string }, ...args: readonly (string | number)[]): Promise<T> {
    const pod = await this.pod(from.namespace, from.name);
    const { stdout, stderr, code } = await this.cluster.exec({ namespace: from.namespace, name: pod.metadata.name }, [...appCommand, ...args.map(String)], {
      timeoutMs: 90_000,
    });
    if (code !== 0) throw new Error(`${args.join(" ")} in ${from.namespace}/${from.name} exited ${code}: ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** Starts an action that goes on (`load`, `stay`); its lines arrive as they are printed. */
  async start<T>(from: { namespace: string; name: string }, ...args: readonly (string | number)[]): Promise<{ lines: T[]; stop: () => Promise<void> }> {
    const pod = await this.pod(from.namespace, from.name);
    const child = this.cluster.spawnIn({ namespace: from.namespace, name: pod.metadata.name }, [...appCommand, ...args.map(String)]);
    const lines: T[] = [];
    let pending = "";
    child.stdout.on("data", (chunk: Buffer) => {
      pending += chunk.toString();
      const whole = pending.split("\n");
      pending = whole.pop() ?? "";
      for (const line of whole) if (line !== "") lines.push(JSON.parse(line) as T);
    });
    return {
      lines,
      stop: async () => {
        child.kill();
        await child.exit;
      },
    };
  }

  /** The ztunnel of the node that runs an app's pod. */
  async ztunnelOf(namespace: string, name: string): Promise<Pod> {
    const { spec } = await this.pod(namespace, name);
    return eventually("a ready ztunnel", async () =>
      (await this.cluster.client.list(pods, { namespace: meshNamespace, labelSelector: "app=ztunnel" })).find(
        (pod) => pod.spec.nodeName === spec.nodeName && isReady(pod),
      ),
    );
  }

  /** Lines of a ztunnel's log that contain every one of `parts`. */
  async logLines(ztunnel: Pod, ...parts: readonly string[]): Promise<string[]> {
    const text = await this.cluster.logs({ namespace: meshNamespace, name: ztunnel.metadata.name });
    return text.split("\n").filter((line) => parts.every((part) => line.includes(part)));
  }

  /** GET on an admin port of a mesh pod, from inside it. */
  async admin(pod: Pod, port: number, path: string): Promise<{ status: number; body: string }> {
    const script = `fetch("http://127.0.0.1:${port}${path}").then(async (r) => process.stdout.write(JSON.stringify({ status: r.status, body: await r.text() })))`;
    const { stdout, stderr, code } = await this.cluster.exec({ namespace: meshNamespace, name: pod.metadata.name }, [process.execPath, "-e", script], {
      timeoutMs: 20_000,
    });
    if (code !== 0) throw new Error(`GET :${port}${path} in ${pod.metadata.name} exited ${code}: ${stderr}`);
    return JSON.parse(stdout) as { status: number; body: string };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export function isReady(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp === undefined && pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") === true;
}

/** Asks every 100 ms until there is an answer; throws naming what was awaited. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>, timeoutMs: number = eventuallyTimeoutMs): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await ask();
    if (value !== undefined) return value;
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${timeoutMs / 1000} s`);
    await pause(pollMs);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function byFamily(ips: readonly string[]): { v4: string; v6: string } {
  const v4 = ips.find((ip) => !ip.includes(":"));
  const v6 = ips.find((ip) => ip.includes(":"));
  if (v4 === undefined || v6 === undefined) throw new Error(`expected both families, got ${ips.join(", ")}`);
  return { v4, v6 };
}
