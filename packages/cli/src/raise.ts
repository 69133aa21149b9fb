/** Raises the embedded cluster with the project's own images. */

import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { type Cluster, projectImages, startCluster } from "@fairway/local-cluster";
import { createLogger } from "@fairway/runtime";
import type { Progress } from "./output.ts";

export interface RaiseOptions {
  /** Prefix of the network namespaces; short, unique on this machine. */
  readonly name: string;
  readonly stateFolder: string;
  readonly nodes: number;
  readonly progress: Progress;
}

/** A running cluster whose own log is `<stateFolder>/cluster.log`. */
export async function raiseCluster({ name, stateFolder, nodes, progress }: RaiseOptions): Promise<Cluster> {
  await mkdir(stateFolder, { recursive: true });
  const logFile = createWriteStream(`${stateFolder}/cluster.log`, { flags: "a" });
  const log = createLogger("cluster", { write: (line) => void logFile.write(line) });
  return progress.step(`raising a cluster of ${nodes} nodes`, () =>
    startCluster({ name, stateDir: stateFolder, nodes, families: ["ipv4", "ipv6"], images: projectImages(), log }),
  );
}
