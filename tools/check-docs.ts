/**
 * Documents name files, and the page on compatibility names tests; this says which of them do not exist, so that documents cannot drift in
 * silence. A test is named by its file in backticks and, behind it, its titles in double quotes; of a title that is put together from parts, the
 * part that stands in the file.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dirname, "..");
const compatibility = join(root, "docs/compatibility.md");
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

/** Cells of the table rows of a page, with the number of the line; heads and rules left out. */
function rows(text: string): { line: number; cells: string[] }[] {
  return text.split("\n").flatMap((row, index) => {
    if (!row.startsWith("|") || /^\|[\s|:-]+\|$/.test(row)) return [];
    const cells = row.split("|").slice(1, -1);
    return cells[0]?.trim() === "behaviour" ? [] : [{ line: index + 1, cells: cells.map((cell) => cell.trim()) }];
  });
}

/** The parts of a template and whole strings end so. */
function holds(source: string, title: string): boolean {
  return ['"', "`", "${", " ${"].some((end) => source.includes(`${title}${end}`));
}

const states = /^_(same|safer|differs|not yet|ours)_/;

/** What is wrong with one row: behaviour, how it compares, tests. */
function complaints({ line, cells }: { line: number; cells: readonly string[] }): string[] {
  const place = `${relative(root, compatibility)}:${line}`;
  const [, state = "", tests = ""] = cells;
  if (cells.length !== 3) return [`${place} has ${cells.length} cells instead of 3`];
  if (!states.test(state)) return [`${place} does not begin its second cell with _same_, _safer_, _differs_, _not yet_ or _ours_`];
  const named = [...tests.matchAll(/`([^`]+\.ts)`((?:,? "[^"]*")*)/g)].map(([, file = "", titles = ""]) => ({
    file,
    titles: [...titles.matchAll(/"([^"]*)"/g)].map((match) => match[1] ?? ""),
  }));
  if (!state.startsWith("_not yet_") && named.every(({ titles }) => titles.length === 0)) return [`${place} names no test by its title`];
  return named.flatMap(({ file, titles }) => {
    if (!existsSync(join(root, file))) return [];
    const source = readFileSync(join(root, file), "utf8");
    return titles.filter((title) => !holds(source, title)).map((title) => `${place} names a test that ${file} does not have: ${title}`);
  });
}

const missing = documents.flatMap((document) =>
  namedFiles(document)
    .filter((file) => !existsSync(file))
    .map((file) => `${relative(root, document)} names ${relative(root, file)}, which does not exist`),
);
const untrue = rows(readFileSync(compatibility, "utf8")).flatMap(complaints);
for (const line of [...missing, ...untrue]) process.stdout.write(`${line}\n`);
process.stdout.write(`${documents.length} documents, ${missing.length} missing files, ${untrue.length} wrong rows in ${relative(root, compatibility)}\n`);
process.exitCode = missing.length + untrue.length === 0 ? 0 : 1;
