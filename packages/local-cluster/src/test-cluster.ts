/** What this package's own tests share: whether they may run, the programs their pods run, and waiting for what the API shows. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KubeObject } from "@fairway/kube";
import { MeshError, silentLogger } from "@fairway/runtime";
import { type Cluster, type ClusterOptions, startCluster } from "./cluster.ts";
import type { Container, Pod } from "./resources.ts";
import { pods } from "./resources.ts";

export interface TestCluster extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly stateDir: string;
}

/** A cluster whose namespaces carry this process's pid. */
export async function startTestCluster(name: string, options: Partial<ClusterOptions> = {}): Promise<TestCluster> {
  const stateDir = mkdtempSync(join(tmpdir(), `fairway-${name}-`));
  const cluster = await startCluster({
    name: `${name}${process.pid}`,
    nodes: 2,
    stateDir,
    images: {},
    families: ["ipv4", "ipv6"],
    log: silentLogger,
    ...options,
  });
  return {
    cluster,
    stateDir,
    [Symbol.asyncDispose]: async () => {
      await cluster[Symbol.asyncDispose]();
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

/** An HTTP server that names its pod and its caller, says on stdout which version it is, and turns sick on request. */
export const webServer = `
const server = require("http").createServer((request, response) => {
  if (request.url === "/sick") globalThis.sick = true;
  if (request.url === "/healthz" && globalThis.sick) response.statusCode = 503;
  response.end([process.env.POD_NAME, request.socket.remoteAddress.replace("::ffff:", ""), process.env.VERSION].join(" "));
});
server.listen(8080, "::", () => console.log("version", process.env.VERSION));
process.on("SIGTERM", () => process.exit(0));
`;

/** A container that runs a Node program. */
export function nodeContainer(program: string, extra: Partial<Container> = {}): Container {
  return { name: "main", image: "node:24", command: ["node", "-e", program], ...extra };
}

/** A pod that does nothing until it is told to stop. */
export function idlePod(name: string, spec: Partial<Pod["spec"]> = {}): Pod {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default", labels: { app: name } },
    spec: { containers: [{ name: "main", image: "busybox", command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"] }], ...spec },
  };
}

const waitMs = 60_000;
const pollMs = 50;

/** Reads again and again until `accept` is content. Throws TEST_NOT_SEEN with the last value. */
export async function eventually<T>(what: string, read: () => T | Promise<T>, accept: (value: T) => boolean): Promise<T> {
  const deadline = Date.now() + waitMs;
  for (;;) {
    const value = await read();
    if (accept(value)) return value;
    if (Date.now() > deadline) throw new MeshError("TEST_NOT_SEEN", `${what} was not seen within ${waitMs} ms; last: ${JSON.stringify(value).slice(0, 2_000)}`);
    // Real processes set the pace here; there is no clock to move.
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** The pods with a label, once there are `count` and all are ready. */
export function readyPods(cluster: Cluster, labelSelector: string, count: number): Promise<Pod[]> {
  return eventually(
    `${count} ready pods of ${labelSelector}`,
    () => cluster.client.list(pods, { namespace: "default", labelSelector }),
    (found) => found.length === count && found.every(isReadyPod),
  );
}

export function isReadyPod(pod: Pod): boolean {
  return pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") === true;
}

/** The text a command in a pod prints, with its exit code when that is not 0. */
export async function output(cluster: Cluster, pod: string, ...argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.exec({ namespace: "default", name: pod }, argv, { timeoutMs: 60_000 });
  return code === 0 ? stdout.trim() : `exit ${code}: ${stderr.trim()}`;
}

/** A URL for an address of either family. */
export function urlOf(ip: string, port: number, path = "/"): string {
  return `http://${ip.includes(":") ? `[${ip}]` : ip}:${port}${path}`;
}

/** The messages of an object's events. */
export async function eventMessages(cluster: Cluster, name: string): Promise<string[]> {
  const { items } = await cluster.client.request<{ items: (KubeObject & { involvedObject: { name: string }; reason: string; message: string })[] }>(
    "GET",
    "/api/v1/namespaces/default/events",
  );
  return items.filter((event) => event.involvedObject.name === name).map(({ reason, message }) => `${reason}: ${message}`);
}
