/** Decisions where the whole mesh is held: at once. */
import type { Snapshot } from "@fairway/model";
import type { Watch } from "@fairway/runtime";
import type { MeshChange } from "./mesh-source.ts";

/** See `MeshView.decide`. */
export async function decideNow<T>(changes: Watch<MeshChange>, decision: (snapshot: Snapshot) => T, { signal }: { signal: AbortSignal }): Promise<T> {
  signal.throwIfAborted();
  return decision(changes.current.snapshot);
}
