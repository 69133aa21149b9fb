/** Echo applications behind HTTP and gRPC Services, and what tests of a waypoint ask of them. */
import { execFile } from "node:child_process";
import type { ResourceType } from "@fairway/kube";
import { checkoutFile } from "@fairway/local-cluster";
import type { Fetched, FetchOptions, GrpcResult } from "./echo-client.ts";
import { eventually, type Mesh, type Pod, pods } from "./mesh.ts";

export const httpPort = 80;
export const grpcPort = 9090;

/** What the echo application received. */
export interface Echoed {
  readonly pod: string;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A Service of HTTP on 80 and 8080, gRPC on 9090, and other bytes on 7000. */
export function echoService(namespace: string, name: string, selector: object, labels: Readonly<Record<string, string>> = {}): object {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace, labels },
    spec: {
      selector,
      ipFamilyPolicy: "PreferDualStack",
      ports: [
        { name: "http", port: httpPort, targetPort: 8081 },
        { name: "http-alt", port: 8080, targetPort: 8081 },
        { name: "grpc", port: grpcPort, targetPort: 8082 },
        { name: "tcp-echo", port: 7000, targetPort: 7000 },
        { name: "undeclared", port: 8888, targetPort: 8081 },
      ],
    },
  };
}

/** `<name>-v1` on node 1 and `<name>-v2` on node 2, behind Services of their names and one of `name` in front of both. */
export async function raiseEcho(mesh: Mesh, namespace: string, name: string): Promise<void> {
  const versions = [1, 2] as const;
  await Promise.all(
    versions.map((version) => mesh.app({ namespace, name: `${name}-v${version}`, node: version, labels: { echo: name, version: `v${version}` } })),
  );
  await mesh.apply([
    echoService(namespace, name, { echo: name }),
    ...versions.map((version) => echoService(namespace, `${name}-v${version}-http`, { echo: name, version: `v${version}` })),
  ]);
}

/** After a test: the next one begins without the objects that this one applied. */
export async function removeAll(mesh: Mesh, types: readonly ResourceType[], namespace: string): Promise<void> {
  const { client } = mesh.cluster;
  for (const type of types) for (const { metadata } of await client.list(type, { namespace })) await client.delete(type, metadata.name, namespace);
}

export type Caller = { readonly namespace: string; readonly name: string };

export async function fetchFrom(mesh: Mesh, from: Caller, url: string, options: FetchOptions = {}): Promise<Fetched> {
  return mesh.act<Fetched>(from, "fetch", url, JSON.stringify(options));
}

/** The answer once its status is the wanted one: what was applied takes a moment to arrive. */
export async function untilStatus(mesh: Mesh, from: Caller, url: string, status: number, options: FetchOptions = {}): Promise<Fetched> {
  let last: Fetched | undefined;
  try {
    return await eventually(`${status} from ${url}`, async () => {
      last = await fetchFrom(mesh, from, url, options);
      return last.status === status ? last : undefined;
    });
  } catch (cause) {
    throw new Error(`${url} answered ${last?.status} ${JSON.stringify(last?.body || last?.error)}, not ${status}`, { cause });
  }
}

export function echoed({ body }: Fetched): Echoed {
  return JSON.parse(body) as Echoed;
}

/** The app that answered: its pod's name without the two generated parts. */
export function appOf({ pod }: Echoed): string {
  return pod.replace(/-[^-]+-[^-]+$/, "");
}

export async function grpcFrom(
  mesh: Mesh,
  from: Caller,
  target: string,
  kind: string,
  count: number,
  headers: Readonly<Record<string, string>> = {},
): Promise<GrpcResult> {
  return mesh.act<GrpcResult>(from, "grpc", target, kind, count, JSON.stringify({ headers }));
}

/** Runs the real CLI against the cluster. */
export function fairway(mesh: Mesh, ...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const env = { ...process.env, KUBECONFIG: mesh.cluster.kubeconfigPath, NO_COLOR: "1" };
  return new Promise((resolve) => {
    execFile(process.execPath, [checkoutFile("packages/cli/dist/main.js"), ...args], { env, timeout: 120_000 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : typeof error.code === "number" ? error.code : -1, out, err });
    });
  });
}

/** Creates a waypoint with the CLI and waits until it is ready; throws what the CLI said. */
export async function raiseWaypoint(mesh: Mesh, namespace: string, ...args: readonly string[]): Promise<void> {
  const { code, out, err } = await fairway(mesh, "waypoint", "apply", "-n", namespace, "--wait", ...args);
  if (code !== 0) throw new Error(`fairway waypoint apply exited ${code}: ${out}${err}`);
}

/** Lines of the logs of a waypoint's pods that contain every one of `parts`. */
export async function waypointLines(mesh: Mesh, namespace: string, name: string, ...parts: readonly string[]): Promise<string[]> {
  const found = await mesh.cluster.client.list<Pod>(pods, { namespace, labelSelector: `gateway.networking.k8s.io/gateway-name=${name}` });
  const logs = await Promise.all(found.map(({ metadata }) => mesh.cluster.logs({ namespace, name: metadata.name })));
  return logs.flatMap((log) => log.split("\n")).filter((line) => parts.every((part) => line.includes(part)));
}

/** A route with one rule on a Service, as tests write them. */
export function route(
  kind: "HTTPRoute" | "GRPCRoute",
  namespace: string,
  name: string,
  parent: string | { name: string; port: number },
  rules: readonly object[],
): object {
  const parentRef = typeof parent === "string" ? { name: parent } : parent;
  return {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind,
    metadata: { name, namespace },
    spec: { parentRefs: [{ group: "", kind: "Service", ...parentRef }], rules },
  };
}
