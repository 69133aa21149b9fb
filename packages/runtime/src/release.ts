/** Which release a program is. */
import { readFileSync } from "node:fs";

export interface Release {
  readonly version: string;
  readonly gitRevision: string;
}

/** Read from the package.json at `manifest`; a bundle without it says so. */
export function releaseOf(manifest: URL): Release {
  return { version: versionIn(manifest), gitRevision: "unknown" };
}

function versionIn(manifest: URL): string {
  try {
    const read: unknown = JSON.parse(readFileSync(manifest, "utf8"));
    if (typeof read === "object" && read !== null && "version" in read && typeof read.version === "string") return read.version;
  } catch {
    // Bundled: there is no package beside the file.
  }
  return "unknown";
}
