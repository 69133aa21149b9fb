/** A pod's volumes on disk, and the mounts that show them inside its containers. Object-backed ones follow their objects while the pod runs. */
import { existsSync, lstatSync, mkdirSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { MeshError } from "@fairway/runtime";
import type { Mount } from "../container/root-script.ts";
import type { Container, Pod, Volume } from "../resources.ts";
import { type ProjectedFile, writeAtomically } from "./atomic-directory.ts";
import { expandVariables } from "./expansion.ts";
import { hostPathMounts, machinePath } from "./host-path.ts";
import { type FileSources, volumeFiles } from "./projected-files.ts";

export interface NodePaths {
  /** The node's own root directory. */
  readonly root: string;
  /** The process that stands for the node's pid 1. */
  readonly initPid: number | undefined;
}

export class PodVolumes {
  readonly #directory: string;
  readonly #node: NodePaths;
  readonly #pod: Pod;
  readonly #written = new Map<string, string>();

  constructor(directory: string, node: NodePaths, pod: Pod) {
    this.#directory = directory;
    this.#node = node;
    this.#pod = pod;
  }

  /** Makes every volume of the pod what it should be now; cheap when nothing changed. Throws LOCAL_CLUSTER_VOLUME_FAILED. */
  refresh(sources: FileSources): void {
    for (const volume of this.#pod.spec.volumes ?? []) {
      const path = this.#path(volume);
      const files = volumeFiles(volume, sources);
      if (files !== undefined) this.#write(volume.name, path, files);
      else if (volume.hostPath !== undefined) prepareHostPath(machinePath(this.#node.root, volume.hostPath.path), volume.hostPath);
      else if (volume.emptyDir !== undefined) prepareEmptyDirectory(path);
      else throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `volume "${volume.name}" is of a kind this cluster does not have`);
    }
  }

  /** What a container mounts. Throws LOCAL_CLUSTER_CONTAINER_CONFIG for a mount of a volume the pod does not name. */
  mounts(container: Container, environment: Readonly<Record<string, string>>): Mount[] {
    const volumes = new Map((this.#pod.spec.volumes ?? []).map((volume) => [volume.name, volume]));
    return (container.volumeMounts ?? []).flatMap(({ name, mountPath, subPath, readOnly = false, ...rest }) => {
      const volume = volumes.get(name);
      if (volume === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `volumeMount "${name}" names no volume of the pod`);
      const target = posix.normalize(posix.isAbsolute(mountPath) ? mountPath : `/${mountPath}`).replace(/(.)\/$/, "$1");
      const part = "subPathExpr" in rest && typeof rest.subPathExpr === "string" ? expandVariables(rest.subPathExpr, environment) : subPath;
      return this.#mount(volume, target, part, readOnly || isObjectBacked(volume));
    });
  }

  /** Forgets the pod's files. */
  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #mount(volume: Volume, target: string, subPath: string | undefined, readOnly: boolean): Mount[] {
    if (volume.hostPath !== undefined) {
      const path = subPath === undefined ? volume.hostPath.path : posix.join(volume.hostPath.path, safeSubPath(subPath));
      const source = machinePath(this.#node.root, path);
      if (subPath !== undefined && !existsSync(source)) mkdirSync(source, { recursive: true });
      const [first, ...more] = hostPathMounts(this.#node, path, { target, readOnly, kind: kindOf(source) });
      return first === undefined ? [] : [{ ...first, source: realpathSync(first.source) }, ...more];
    }
    const base = this.#path(volume);
    const source = subPath === undefined ? base : join(base, safeSubPath(subPath));
    if (!existsSync(source)) mkdirSync(source, { recursive: true });
    return [{ source: realpathSync(source), target, readOnly, kind: kindOf(source) }];
  }

  #write(name: string, path: string, files: ReadonlyMap<string, ProjectedFile>): void {
    const state = JSON.stringify([...files].map(([file, { content, mode }]) => [file, mode, Buffer.from(content).toString("base64")]));
    if (this.#written.get(name) === state) return;
    writeAtomically(path, files);
    this.#written.set(name, state);
  }

  #path(volume: Volume): string {
    return join(this.#directory, "volumes", volume.name);
  }
}

function isObjectBacked({ configMap, secret, projected, downwardAPI }: Volume): boolean {
  return (configMap ?? secret ?? projected ?? downwardAPI) !== undefined;
}

function prepareEmptyDirectory(path: string): void {
  if (existsSync(path)) return;
  mkdirSync(path, { recursive: true, mode: 0o777 });
}

function prepareHostPath(path: string, { path: asked, type = "" }: { path: string; type?: string }): void {
  const exists = existsSync(path);
  if (!exists && (type === "" || type === "DirectoryOrCreate")) mkdirSync(path, { recursive: true });
  else if (!exists && type === "FileOrCreate") {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, "");
  } else if (!exists) throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `hostPath type check failed: ${asked} is not a ${type.toLowerCase()}`);
  const isDirectory = statSync(path).isDirectory();
  const fits = type.startsWith("Directory") ? isDirectory : type.startsWith("File") ? !isDirectory : type === "Socket" ? lstatSync(path).isSocket() : true;
  if (!fits) throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `hostPath type check failed: ${asked} is not a ${type.toLowerCase()}`);
}

function kindOf(path: string): "directory" | "file" {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === false ? "file" : "directory";
}

function safeSubPath(path: string): string {
  const normal = posix.normalize(path);
  if (posix.isAbsolute(normal) || normal.startsWith(".."))
    throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `subPath "${path}" does not stay inside its volume`);
  return normal;
}
