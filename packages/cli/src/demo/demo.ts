/** `fairway demo`: raises a mesh on this machine, walks through what it is for, and says what it observed. */
import { rm } from "node:fs/promises";
import type { Cluster } from "@fairway/local-cluster";
import { enterLine } from "../enter-line.ts";
import { type Progress, progressOn } from "../output.ts";
import { raiseCluster } from "../raise.ts";
import { allRolledOut, applyFile, installMesh } from "./mesh.ts";
import { Observations } from "./observation.ts";
import { change, enrolTheNamespace, policy, type Stage, withoutTheMesh } from "./stages.ts";
import { requestPolicy, routing, waypointByNamespace, waypointByServiceAccount } from "./waypoint-stages.ts";

export interface DemoOptions {
  readonly stateFolder: string;
  readonly hold: boolean;
  readonly json: boolean;
  /** Aborts on SIGINT or SIGTERM: take everything down and leave. */
  readonly stop: AbortSignal;
}

const nodeCount = 2;

/** Runs the demo. Resolves with the exit code: 0 when every claim was observed. */
export async function demo({ stateFolder, hold, json, stop }: DemoOptions): Promise<number> {
  const progress = progressOn(process.stderr);
  const observations = new Observations((observation) => {
    if (json) process.stdout.write(`${JSON.stringify(observation)}\n`);
    else progress.note(`${observation.holds ? "✔" : "✘"} ${observation.claim}: ${observation.observed}`);
  });
  const cluster = await raiseCluster({ name: `demo${process.pid}`, stateFolder, nodes: nodeCount, progress });
  try {
    await walk({ cluster, observations, note: progress.note }, progress, stop);
    if (!json) process.stdout.write(`\n${observations.toTable()}`);
    if (hold) await holdUp(cluster, stop);
  } finally {
    await progress.step("taking everything down", async () => cluster[Symbol.asyncDispose]());
    await rm(stateFolder, { recursive: true, force: true });
  }
  return observations.allHold ? 0 : 1;
}

async function walk(stage: Stage, progress: Progress, stop: AbortSignal): Promise<void> {
  const { cluster } = stage;
  const steps: readonly (readonly [string, () => Promise<void>])[] = [
    ["installing the mesh from charts/fairway", () => installMesh(cluster)],
    [
      "installing the shop and an outsider",
      async () => {
        await applyFile(cluster, "examples/shop/shop.yaml");
        await applyFile(cluster, "examples/shop/outside.yaml");
        await allRolledOut(cluster, "shop");
        await allRolledOut(cluster, "outside");
      },
    ],
    ["1 the shop without the mesh", () => withoutTheMesh(stage)],
    ["2 one label enrols the namespace", () => enrolTheNamespace(stage)],
    ["3 policy", () => policy(stage)],
    ["4 change and failure", () => change(stage)],
    ["5 a waypoint for a namespace", () => waypointByNamespace(stage)],
    ["6 routing: canary, retries, streams", () => routing(stage)],
    ["7 policy on requests", () => requestPolicy(stage)],
    ["8 a waypoint for one service account, and gRPC without a proxy", () => waypointByServiceAccount(stage)],
  ];
  for (const [title, work] of steps) {
    stop.throwIfAborted();
    await progress.step(title, work);
  }
}

async function holdUp(cluster: Cluster, stop: AbortSignal): Promise<void> {
  process.stderr.write(
    `\nThe cluster stays up until Ctrl-C. In another terminal:\n\n${enterLine(process.pid)}  export KUBECONFIG=${cluster.kubeconfigPath}\n  kubectl get pods -A -o wide\n  kubectl label namespace shop istio.io/dataplane-mode=ambient\n  kubectl logs -n fairway-system -l app=ztunnel -f\n\n`,
  );
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve(), { once: true });
  });
}
