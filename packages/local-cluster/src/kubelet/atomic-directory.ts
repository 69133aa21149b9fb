/**
 * Files that change together: a new directory is filled, then one symlink (`..data`) is swapped, as the kubelet does it. Readers see
 * the old set or the new one; watchers of `..data` are woken.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { MeshError } from "@fairway/runtime";

export interface ProjectedFile {
  readonly content: Uint8Array;
  readonly mode: number;
}

/** Makes `directory` hold exactly these files (relative paths). Throws LOCAL_CLUSTER_VOLUME_FAILED for a path that leaves it. */
export function writeAtomically(directory: string, files: ReadonlyMap<string, ProjectedFile>): void {
  mkdirSync(directory, { recursive: true });
  const data = mkdtempSync(join(directory, "..data-"));
  // Made private by mkdtemp; a container's user need not be ours.
  chmodSync(data, 0o755);
  for (const [path, { content, mode }] of files) {
    if (posix.isAbsolute(path) || posix.normalize(path).startsWith("..")) {
      throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `"${path}" does not stay inside its volume`);
    }
    const target = join(data, path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, content, { mode });
  }
  const link = join(directory, "..data");
  const previous = existsSync(link) ? readlinkSync(link) : undefined;
  const next = join(directory, "..data-next");
  rmSync(next, { force: true });
  symlinkSync(posix.basename(data), next);
  renameSync(next, link);
  const wanted = new Set([...files.keys()].map((path) => posix.normalize(path).split("/")[0] ?? ""));
  for (const name of wanted) if (!existsSync(join(directory, name))) symlinkSync(`..data/${name}`, join(directory, name));
  for (const name of readdirSync(directory)) if (!name.startsWith("..") && !wanted.has(name)) rmSync(join(directory, name), { force: true });
  if (previous !== undefined) rmSync(join(directory, previous), { recursive: true, force: true });
}
