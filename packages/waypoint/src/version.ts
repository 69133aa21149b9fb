/** Which release this is. */
import { readFileSync } from "node:fs";

/** Read from the package; a bundle without it says so. */
export const version: { readonly version: string; readonly gitRevision: string } = { version: ownVersion(), gitRevision: "unknown" };

function ownVersion(): string {
  try {
    const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
    if (typeof manifest === "object" && manifest !== null && "version" in manifest && typeof manifest.version === "string") return manifest.version;
  } catch {
    // Bundled: there is no package beside the file.
  }
  return "unknown";
}
