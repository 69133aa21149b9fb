/** Installs the mesh from the chart's own manifests, and follows what it does to pods. */
import { readFile } from "node:fs/promises";
import { applyManifests, waitForRollout } from "@fairway/kube";
import { type Cluster, checkoutFile } from "@fairway/local-cluster";
import { eventually } from "../eventually.ts";
import { isReady, type Pod, pods } from "./shop.ts";

export const meshNamespace = "fairway-system";
const redirection = "ambient.istio.io/redirection";
const rolloutTimeoutMs = 90_000;

/** Applies manifests of the checkout, server-side. */
export async function applyFile(cluster: Cluster, path: string): Promise<void> {
  await applyManifests(cluster.client, await readFile(checkoutFile(path), "utf8"), { fieldManager: "fairway-cli" });
}

/** What `helm install` would apply, waited for as `helm --wait` would. */
export async function installMesh(cluster: Cluster): Promise<void> {
  await applyFile(cluster, "charts/fairway/rendered/fairway.yaml");
  await allRolledOut(cluster, meshNamespace);
}

/** As `kubectl rollout status` for everything in a namespace. */
export function allRolledOut(cluster: Cluster, namespace: string): Promise<void> {
  return waitForRollout(cluster.client, namespace, { timeoutMs: rolloutTimeoutMs });
}

/** Ready pods of a namespace, once all of them carry (or none of them carries) the annotation that they are captured. */
export function podsOnceEnrolled(cluster: Cluster, namespace: string, enrolled: boolean): Promise<Pod[]> {
  return eventually(`every pod of ${namespace} ${enrolled ? "joining" : "leaving"} the mesh`, async () => {
    const found = await cluster.client.list(pods, { namespace });
    const settled = found.every((pod) => isReady(pod) && pod.metadata.annotations?.[redirection] === (enrolled ? "enabled" : undefined));
    return settled && found.length > 0 ? found : undefined;
  });
}

export interface AccessLine {
  readonly direction?: string;
  readonly "src.identity"?: string;
  readonly "dst.identity"?: string;
  readonly error?: string;
  readonly [field: string]: unknown;
}

const accessMessage = /\taccess(?:\{[^\t]*)?\t(?:connection complete|connection failed)\t(.*)$/;

/** Access log lines of every ztunnel, oldest first on each node, as fields. */
export async function accessLines(cluster: Cluster): Promise<{ node: string; line: AccessLine }[]> {
  const found = await cluster.client.list(pods, { namespace: meshNamespace, labelSelector: "app=ztunnel" });
  const logs = await Promise.all(
    found.map(async (pod) => {
      const text = await cluster.logs({ namespace: meshNamespace, name: pod.metadata.name });
      return text.split("\n").flatMap((line) => {
        const fields = accessMessage.exec(line)?.[1];
        return fields === undefined ? [] : [{ node: pod.spec.nodeName ?? "", line: parseFields(fields) }];
      });
    }),
  );
  return logs.flat();
}

/** `key=value key="quoted value"`. */
function parseFields(text: string): AccessLine {
  const fields: Record<string, unknown> = {};
  for (const [, key = "", quoted, bare] of text.matchAll(/([\w.]+)=(?:("(?:[^"\\]|\\.)*")|(\S*))/g))
    fields[key] = quoted === undefined ? bare : JSON.parse(quoted);
  return fields;
}
