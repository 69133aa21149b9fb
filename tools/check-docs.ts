/** Documents name files; this says which of them do not exist, so that documents cannot drift in silence. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dirname, "..");
const folders = ["", "docs", "charts/fairway", "examples/shop", ...readdirSync(join(root, "packages")).map((name) => `packages/${name}`)];
const documents = folders.flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith(".md"))
    .map((name) => join(root, folder, name)),
);

/** Paths in backticks from the root, and the targets of relative links. */
function namedFiles(document: string): string[] {
  const text = readFileSync(document, "utf8");
  const quoted = [...text.matchAll(/`((?:packages|docs|tools|test|examples|charts)\/[\w./-]+)`/g)].map((match) => join(root, match[1] ?? ""));
  const linked = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map((match) => join(dirname(document), match[1] ?? ""));
  return [...quoted, ...linked];
}

const missing = documents.flatMap((document) =>
  namedFiles(document)
    .filter((file) => !existsSync(file))
    .map((file) => `${relative(root, document)} names ${relative(root, file)}, which does not exist`),
);
for (const line of missing) process.stdout.write(`${line}\n`);
process.stdout.write(`${documents.length} documents, ${missing.length} missing files\n`);
process.exitCode = missing.length === 0 ? 0 : 1;
