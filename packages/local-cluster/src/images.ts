/** What stands for an image here: a command of this machine. Pure. */

export interface ImageEntry {
  readonly command: readonly string[];
  /** Arguments when the container gives none, as an image's CMD. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Run `command` alone, whatever the container says: for a stand-in that does not know the real program's arguments. */
  readonly ignoreContainerCommand?: boolean;
}

/** Image name without registry default, tag and digest, to what runs. */
export type ImageCatalog = Readonly<Record<string, ImageEntry>>;

/** Images people use in examples, as the programs of the same name on this machine. */
export const wellKnownImages: ImageCatalog = {
  busybox: { command: [], args: ["sh"] },
  alpine: { command: [], args: ["sh"] },
  debian: { command: [], args: ["bash"] },
  ubuntu: { command: [], args: ["bash"] },
  node: { command: [process.execPath] },
  redis: { command: ["redis-server"], args: ["--save", "", "--protected-mode", "no"] },
  nginx: { command: ["nginx", "-g", "daemon off;"] },
  "curlimages/curl": { command: ["curl"] },
};

/** The catalog key of an image reference: `docker.io/library/redis:7` is `redis`. */
export function imageName(reference: string): string {
  const withoutDigest = reference.split("@")[0] ?? reference;
  const lastSlash = withoutDigest.lastIndexOf("/");
  const colon = withoutDigest.indexOf(":", lastSlash + 1);
  const name = colon === -1 ? withoutDigest : withoutDigest.slice(0, colon);
  return name.replace(/^(docker\.io|index\.docker\.io)\//, "").replace(/^library\//, "");
}

/**
 * The entry of an image: by its full name, or by the end of it, so that `ghcr.io/acme/fairway/ztunnel` finds `fairway/ztunnel`.
 * Undefined when the catalog has none.
 */
export function findImage(catalog: ImageCatalog, reference: string): ImageEntry | undefined {
  const name = imageName(reference);
  const parts = name.split("/");
  for (let from = 0; from < parts.length; from += 1) {
    const entry = catalog[parts.slice(from).join("/")];
    if (entry !== undefined) return entry;
  }
  return wellKnownImages[name];
}

/**
 * The argument vector of a container, as Kubernetes combines image and spec: `command` replaces the entry point and the image's
 * arguments, `args` replace the arguments. Undefined when neither the catalog nor the spec names a program.
 */
export function containerCommand(
  entry: ImageEntry | undefined,
  command: readonly string[] | undefined,
  args: readonly string[] | undefined,
): string[] | undefined {
  if (entry?.ignoreContainerCommand === true) return [...entry.command, ...(entry.args ?? [])];
  const entryPoint = command !== undefined && command.length > 0 ? command : entry?.command;
  if (entryPoint === undefined) return undefined;
  const hasCommand = command !== undefined && command.length > 0;
  const argv = [...entryPoint, ...(args !== undefined && args.length > 0 ? args : hasCommand ? [] : (entry?.args ?? []))];
  return argv.length === 0 ? undefined : argv;
}
