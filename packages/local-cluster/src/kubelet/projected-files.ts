/** Which files a volume holds, from its spec and the objects it names. Pure. */
import { MeshError } from "@fairway/runtime";
import type { ConfigMap, Container, DownwardItem, KeyToPath, Pod, ProjectedSource, Secret, Volume } from "../resources.ts";
import type { ProjectedFile } from "./atomic-directory.ts";
import { type PodAddresses, podField, resourceField } from "./pod-field.ts";

export interface FileSources extends PodAddresses {
  readonly pod: Pod;
  readonly configMap: (name: string) => ConfigMap | undefined;
  readonly secret: (name: string) => Secret | undefined;
  /** A current token for the wish; undefined while there is none yet. */
  readonly token: (wish: TokenWish) => string | undefined;
}

export interface TokenWish {
  readonly audience: string | undefined;
  readonly expirationSeconds: number;
}

const defaultMode = 0o644;
/** Kubernetes' default life of a projected token. */
const defaultTokenSeconds = 3_600;

/** The files of a volume that is made of API objects; undefined for volumes of other kinds. Throws LOCAL_CLUSTER_VOLUME_FAILED naming what is absent. */
export function volumeFiles(volume: Volume, sources: FileSources): Map<string, ProjectedFile> | undefined {
  const { configMap, secret, projected, downwardAPI } = volume;
  if (configMap !== undefined) return configMapFiles(configMap, configMap.defaultMode ?? defaultMode, sources);
  if (secret !== undefined) return secretFiles({ ...secret, name: secret.secretName }, secret.defaultMode ?? defaultMode, sources);
  if (downwardAPI !== undefined) return downwardFiles(downwardAPI.items, downwardAPI.defaultMode ?? defaultMode, sources);
  if (projected === undefined) return undefined;
  const files = new Map<string, ProjectedFile>();
  for (const source of projected.sources ?? []) {
    for (const [path, file] of sourceFiles(source, projected.defaultMode ?? defaultMode, sources)) files.set(path, file);
  }
  return files;
}

/** The tokens that a volume needs. */
export function tokenWishes(volume: Volume): TokenWish[] {
  return (volume.projected?.sources ?? []).flatMap(({ serviceAccountToken }) =>
    serviceAccountToken === undefined
      ? []
      : [{ audience: serviceAccountToken.audience, expirationSeconds: serviceAccountToken.expirationSeconds ?? defaultTokenSeconds }],
  );
}

function sourceFiles(source: ProjectedSource, mode: number, sources: FileSources): Map<string, ProjectedFile> {
  const { configMap, secret, downwardAPI, serviceAccountToken } = source;
  if (configMap !== undefined) return configMapFiles(configMap, mode, sources);
  if (secret !== undefined) return secretFiles(secret, mode, sources);
  if (downwardAPI !== undefined) return downwardFiles(downwardAPI.items, mode, sources);
  if (serviceAccountToken === undefined) return new Map();
  const { audience, expirationSeconds = defaultTokenSeconds, path } = serviceAccountToken;
  const token = sources.token({ audience, expirationSeconds });
  if (token === undefined) throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", "the service account token has not been issued yet");
  return new Map([[path, { content: Buffer.from(token), mode }]]);
}

interface Reference {
  readonly name: string;
  readonly items?: KeyToPath[];
  readonly optional?: boolean;
}

function configMapFiles(ref: Reference, mode: number, sources: FileSources): Map<string, ProjectedFile> {
  const object = sources.configMap(ref.name);
  if (object === undefined) return absent("configmap", ref);
  const content = new Map<string, Uint8Array>(Object.entries(object.data ?? {}).map(([key, text]) => [key, Buffer.from(text)]));
  for (const [key, text] of Object.entries(object.binaryData ?? {})) content.set(key, Buffer.from(text, "base64"));
  return picked("configmap", ref, content, mode);
}

function secretFiles(ref: Reference, mode: number, sources: FileSources): Map<string, ProjectedFile> {
  const object = sources.secret(ref.name);
  if (object === undefined) return absent("secret", ref);
  return picked("secret", ref, new Map(Object.entries(object.data ?? {}).map(([key, text]) => [key, Buffer.from(text, "base64")])), mode);
}

function downwardFiles(items: readonly DownwardItem[] | undefined, mode: number, sources: FileSources): Map<string, ProjectedFile> {
  return new Map(
    (items ?? []).map((item) => {
      const { fieldRef, resourceFieldRef } = item;
      const container: Container = sources.pod.spec.containers.find(({ name }) => name === resourceFieldRef?.containerName) ?? { name: "" };
      const text =
        fieldRef === undefined
          ? resourceFieldRef === undefined
            ? ""
            : resourceField(resourceFieldRef, container, sources.pod)
          : podField(fieldRef.fieldPath, sources.pod, sources);
      return [item.path, { content: Buffer.from(text), mode: item.mode ?? mode }];
    }),
  );
}

function picked(kind: string, { name, items, optional }: Reference, content: ReadonlyMap<string, Uint8Array>, mode: number): Map<string, ProjectedFile> {
  if (items === undefined || items.length === 0) return new Map([...content].map(([key, bytes]) => [key, { content: bytes, mode }]));
  const files = new Map<string, ProjectedFile>();
  for (const item of items) {
    const bytes = content.get(item.key);
    if (bytes !== undefined) files.set(item.path, { content: bytes, mode: item.mode ?? mode });
    else if (optional !== true) throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `${kind} "${name}" has no key "${item.key}"`);
  }
  return files;
}

function absent(kind: string, { name, optional }: Reference): Map<string, ProjectedFile> {
  if (optional === true) return new Map();
  throw new MeshError("LOCAL_CLUSTER_VOLUME_FAILED", `${kind} "${name}" not found`);
}
