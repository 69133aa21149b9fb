/** Which cluster and namespace a command speaks to: what kubectl would take. */
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { connectKube, type KubeClient } from "@fairway/kube";
import { MeshError } from "@fairway/runtime";
import { parse } from "yaml";

export interface Target {
  readonly client: KubeClient;
  /** Of the current context, else "default". */
  readonly namespace: string;
}

/** `path` goes before KUBECONFIG, KUBECONFIG before ~/.kube/config. Throws CLI_NO_KUBECONFIG, KUBE_BAD_CONFIG. */
export function connectTarget(path: string | undefined, environment: Readonly<Record<string, string | undefined>> = process.env): Target {
  const candidates = path === undefined ? (environment["KUBECONFIG"]?.split(delimiter) ?? [join(homedir(), ".kube", "config")]) : [path];
  const kubeconfig = candidates.find((candidate) => candidate !== "" && existsSync(candidate));
  if (kubeconfig === undefined) {
    throw new MeshError(
      "CLI_NO_KUBECONFIG",
      `there is no kubeconfig at ${candidates.join(" or ")}; name one with --kubeconfig, or raise a cluster with: fairway up`,
    );
  }
  return { client: connectKube({ kubeconfig }), namespace: currentNamespace(kubeconfig) };
}

function currentNamespace(kubeconfig: string): string {
  const config = parse(readFileSync(kubeconfig, "utf8")) as {
    "current-context"?: string;
    contexts?: readonly { name?: string; context?: { namespace?: string } }[];
  } | null;
  const current = config?.contexts?.find(({ name }) => name === config["current-context"]);
  return current?.context?.namespace ?? "default";
}
