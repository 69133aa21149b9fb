/** What a person sees: progress on standard error, results on standard output. */
import pc from "picocolors";

/** One line per step, finished with ✔ or ✘ and its time; no cursor tricks, so that a log file reads the same. */
export interface Progress {
  step<T>(title: string, work: () => Promise<T>): Promise<T>;
  note(text: string): void;
}

export function progressOn(stream: NodeJS.WriteStream, { quiet = false }: { quiet?: boolean } = {}): Progress {
  const print = (line: string): void => {
    if (!quiet) stream.write(`${line}\n`);
  };
  return {
    note: (text) => print(pc.dim(`  ${text}`)),
    step: async (title, work) => {
      const started = performance.now();
      const live = stream.isTTY && !quiet;
      if (live) stream.write(`${pc.cyan("…")} ${title}`);
      const finish = (mark: string): void => {
        if (live) stream.write("\r\u001b[2K");
        print(`${mark} ${title} ${pc.dim(`${((performance.now() - started) / 1000).toFixed(1)} s`)}`);
      };
      try {
        const result = await work();
        finish(pc.green("✔"));
        return result;
      } catch (thrown) {
        finish(pc.red("✘"));
        throw thrown;
      }
    },
  };
}

/** Columns padded to their widest cell; colours do not count as width. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => visibleLength(row[column] ?? ""))));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell + " ".repeat(Math.max(0, (widths[column] ?? 0) - visibleLength(cell))))
      .join("  ")
      .trimEnd();
  return `${[line(header.map((title) => pc.bold(title))), ...rows.map(line)].join("\n")}\n`;
}

function visibleLength(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences begin with the escape character
  return [...text.replace(/\u001b\[\d+m/g, "")].length;
}
