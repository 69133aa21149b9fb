/** `fairway version`. */
import { readFileSync } from "node:fs";

export function version({ json }: { json: boolean }): void {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  process.stdout.write(
    json ? `${JSON.stringify({ fairway: manifest.version, node: process.versions.node })}\n` : `fairway ${manifest.version} (Node ${process.versions.node})\n`,
  );
}
