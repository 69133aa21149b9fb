/** Container output in files, one line each with its time and stream (the CRI log format), and reading it back, live if asked. */
import { createWriteStream, existsSync, mkdirSync, renameSync, type WriteStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";

/** A run's log is cut in two at this size, and the older part forgotten when it happens again. */
const maxLogBytes: number = 16 * 1024 * 1024;
/** A line longer than this is written in parts. */
const maxLineLength = 16 * 1024;

export interface ReadLogOptions {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines?: number | undefined;
  readonly sinceSeconds?: number | undefined;
  readonly limitBytes?: number | undefined;
}

export class ContainerLog {
  readonly path: string;
  readonly #now: () => number;
  readonly #listeners = new Set<() => void>();
  #stream: WriteStream;
  #written = 0;
  #open = 0;

  constructor(path: string, now: () => number) {
    this.path = path;
    this.#now = now;
    mkdirSync(dirname(path), { recursive: true });
    this.#stream = this.#openStream();
  }

  /** Whether more may come. */
  get live(): boolean {
    return this.#open > 0;
  }

  /** Writes everything a stream says until it ends. */
  attach(stream: Readable, name: "stdout" | "stderr"): void {
    this.#open += 1;
    const decoder = new StringDecoder("utf8");
    let rest = "";
    stream.on("data", (chunk: Buffer) => {
      const lines = (rest + decoder.write(chunk)).split("\n");
      rest = lines.pop() ?? "";
      let text = lines.map((line) => this.#line(name, "F", line)).join("");
      while (rest.length > maxLineLength) {
        text += this.#line(name, "P", rest.slice(0, maxLineLength));
        rest = rest.slice(maxLineLength);
      }
      if (text !== "" && !this.#write(text)) {
        stream.pause();
        this.#stream.once("drain", () => stream.resume());
      }
    });
    const end = (): void => {
      if (rest !== "") this.#write(this.#line(name, "F", rest));
      rest = "";
      this.#open -= 1;
      if (this.#open === 0) this.#stream.end(() => this.#changed());
    };
    stream.once("close", end);
    stream.on("error", () => undefined);
  }

  /** Calls `listener` whenever more was written or the end is reached. */
  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #openStream(): WriteStream {
    const stream = createWriteStream(this.path, { flags: "a" });
    // A full disk must not end the cluster; the container goes on, its log is short.
    stream.on("error", () => undefined);
    return stream;
  }

  #line(name: string, tag: "F" | "P", text: string): string {
    return `${new Date(this.#now()).toISOString().replace("Z", "000000Z")} ${name} ${tag} ${text}\n`;
  }

  #write(text: string): boolean {
    if (this.#written > maxLogBytes) this.#rotate();
    this.#written += text.length;
    return this.#stream.write(text, () => this.#changed());
  }

  #rotate(): void {
    this.#stream.end();
    if (existsSync(this.path)) renameSync(this.path, `${this.path}.1`);
    this.#stream = this.#openStream();
    this.#written = 0;
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Reads a log, oldest line first. With `follow`, waits for more while `log` is live; ends when the signal aborts. */
export async function* readLog(
  path: string,
  log: ContainerLog | undefined,
  options: ReadLogOptions,
  now: () => number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let budget = options.limitBytes ?? Number.POSITIVE_INFINITY;
  const take = (lines: readonly string[]): Uint8Array | undefined => {
    const bytes = Buffer.from(lines.map((line) => printed(line, options.timestamps)).join(""));
    const cut = bytes.length > budget ? bytes.subarray(0, budget) : bytes;
    budget -= cut.length;
    return cut.length === 0 ? undefined : cut;
  };
  const older = (await readAll(`${path}.1`)).lines;
  const current = await readAll(path);
  const since = options.sinceSeconds === undefined ? undefined : new Date(now() - options.sinceSeconds * 1000).toISOString();
  const wanted = [...older, ...current.lines].filter((line) => since === undefined || line.slice(0, since.length) >= since);
  const first = take(options.tailLines === undefined ? wanted : options.tailLines === 0 ? [] : wanted.slice(-options.tailLines));
  if (first !== undefined) yield first;
  let offset = current.offset;
  while (options.follow && log !== undefined && budget > 0 && !signal.aborted) {
    const wasLive = log.live;
    const more = await readAll(path, offset);
    offset = more.offset;
    const chunk = take(more.lines);
    if (chunk !== undefined) yield chunk;
    else if (!wasLive) return;
    else await change(log, signal);
  }
}

function change(log: ContainerLog, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      subscription[Symbol.dispose]();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const subscription = log.onChange(done);
    signal.addEventListener("abort", done, { once: true });
    if (!log.live || signal.aborted) done();
  });
}

/** Whole lines from an offset on; a file cut shorter in between (rotation) is read from its start. */
async function readAll(path: string, offset = 0): Promise<{ lines: string[]; offset: number }> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch {
    return { lines: [], offset };
  }
  try {
    const { size } = await file.stat();
    const start = size < offset ? 0 : offset;
    const buffer = Buffer.alloc(size - start);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, start);
    const end = buffer.subarray(0, bytesRead).lastIndexOf(0x0a) + 1;
    const text = buffer.subarray(0, end).toString("utf8");
    return { lines: text === "" ? [] : text.slice(0, -1).split("\n"), offset: start + end };
  } finally {
    await file.close();
  }
}

function printed(line: string, timestamps: boolean): string {
  const [time = "", , tag = "F"] = line.split(" ", 3);
  const text = line.slice(line.indexOf(` ${tag} `) + tag.length + 2);
  return `${timestamps ? `${time} ` : ""}${text}${tag === "P" ? "" : "\n"}`;
}
