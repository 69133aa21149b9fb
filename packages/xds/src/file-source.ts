/** A mesh from a local YAML text instead of a control plane (`LOCAL_XDS_PATH`, `LOCAL_XDS`; ztunnel contract 3.6). Read once. */
import { readFile } from "node:fs/promises";
import { applyChange, emptySnapshot, type SnapshotChange } from "@fairway/model";
import { type Clock, MeshError, Watched } from "@fairway/runtime";
import { decideNow } from "./decide-now.ts";
import { parseMesh } from "./mesh-file.ts";
import type { MeshChange, MeshView } from "./mesh-source.ts";
import { waitForWorkload } from "./wait-for-workload.ts";

/** Throws MeshError XDS_FILE_UNREADABLE or XDS_FILE_INVALID. */
export async function readMeshFile(path: string): Promise<SnapshotChange> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new MeshError("XDS_FILE_UNREADABLE", `cannot read the local mesh file ${path}`, { cause });
  });
  return parseMesh(text, path);
}

/** A mesh that never changes: synced from the start. */
export function staticMeshView(change: SnapshotChange, options: { readonly nodeName: string | undefined; readonly clock: Clock }): MeshView {
  const snapshot = applyChange(emptySnapshot, change);
  const changes = new Watched<MeshChange>({ snapshot, policiesChanged: true, workloadsChanged: true });
  return {
    changes,
    snapshot,
    synced: new Watched(true),
    decide: (decision, wait) => decideNow(changes, decision, wait),
    waitForWorkload: (pod, wait) => waitForWorkload({ changes, ...options }, pod, wait),
    async [Symbol.asyncDispose]() {},
  };
}
