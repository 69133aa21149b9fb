/**
 * The file of `CRL_PATH` (ztunnel contract 1.3), read on the main thread and followed. Kubernetes changes a mounted file by swapping symlinks in
 * its directory, so the directory is watched; a slow look now and then finds what the watch did not see.
 * Stricter than the reference: what is no list stops the start, and later leaves the last good lists in force.
 */
import { createHash } from "node:crypto";
import { type FSWatcher, watch } from "node:fs";
import { open } from "node:fs/promises";
import { dirname } from "node:path";
import { maxRevocationBytes, parseRevocationLists, type RevocationList } from "@fairway/pki";
import { type Clock, errorCode, type Logger, MeshError, messageOf, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";

/** Changes come in bursts: a swap of symlinks is several. */
const debounceMs = 200;
const lookAgainMs = 30_000;

interface RevocationFileOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class RevocationFile implements AsyncDisposable {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #tasks: TaskGroup;
  readonly #lists = new Watched<readonly RevocationList[]>([]);
  #watcher: FSWatcher | undefined;
  #due: Disposable | undefined;
  #lookAgain: Disposable | undefined;
  #reading = false;
  #changedMeanwhile = false;
  /** Of the content seen last, good or bad; undefined while the file is missing. */
  #seen: string | undefined;

  private constructor({ path, clock, log }: RevocationFileOptions) {
    this.#path = path;
    this.#clock = clock;
    this.#log = log;
    this.#tasks = new TaskGroup(log);
  }

  /** A file that is not there yet may come later. Throws ZTUNNEL_CRL for one that cannot be read, or is no list. */
  static async open(options: RevocationFileOptions): Promise<RevocationFile> {
    const { path, log } = options;
    const file = new RevocationFile(options);
    // Before the first look, so that no change falls between.
    file.#watchDirectory();
    try {
      const bytes = await readBounded(path);
      if (bytes === undefined) log.warn("the revocation lists of CRL_PATH are not there yet: nobody is revoked until they are", { path });
      else file.#take(bytes);
    } catch (cause) {
      await file[Symbol.asyncDispose]();
      throw ztunnelError("ZTUNNEL_CRL", `the revocation lists of CRL_PATH (${path}) cannot be used; correct the file, or unset CRL_PATH`, cause);
    }
    file.#lookAgain = options.clock.schedule(lookAgainMs, file.#onLookAgain);
    return file;
  }

  get lists(): Watch<readonly RevocationList[]> {
    return this.#lists;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watcher?.close();
    this.#due?.[Symbol.dispose]();
    this.#lookAgain?.[Symbol.dispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }

  readonly #onLookAgain = (): void => {
    this.#lookAgain = this.#clock.schedule(lookAgainMs, this.#onLookAgain);
    // The directory may be another one than before.
    this.#watchDirectory();
    this.#read();
  };

  #watchDirectory(): void {
    const before = this.#watcher;
    try {
      const watcher = watch(dirname(this.#path), { persistent: false }, this.#onChange);
      watcher.on("error", () => watcher.close());
      this.#watcher = watcher;
    } catch (thrown) {
      this.#watcher = undefined;
      this.#log.debug("the directory of CRL_PATH cannot be watched; it is looked at now and then", { error: messageOf(thrown) });
    }
    before?.close();
  }

  readonly #onChange = (): void => {
    this.#due ??= this.#clock.schedule(debounceMs, () => {
      this.#due = undefined;
      this.#read();
    });
  };

  #read(): void {
    this.#changedMeanwhile = true;
    if (this.#reading) return;
    this.#reading = true;
    this.#tasks.run("reading the revocation lists", async (signal) => {
      while (this.#changedMeanwhile && !signal.aborted) {
        this.#changedMeanwhile = false;
        await this.#reload();
      }
      this.#reading = false;
    });
  }

  /** Never throws. */
  async #reload(): Promise<void> {
    try {
      const bytes = await readBounded(this.#path);
      if (bytes !== undefined) this.#take(bytes);
      else if (this.#seen !== undefined) {
        this.#seen = undefined;
        this.#log.error("the revocation lists are gone; the last ones stay in force", { path: this.#path });
      }
    } catch (thrown) {
      this.#log.error("the revocation lists cannot be used; the last good ones stay in force", { path: this.#path, error: messageOf(thrown) });
    }
  }

  /** Throws PKI_BAD_CRL, once for each content. */
  #take(bytes: Uint8Array): void {
    const content = createHash("sha256").update(bytes).digest("hex");
    if (content === this.#seen) return;
    this.#seen = content;
    const lists = parseRevocationLists(bytes);
    const revoked = lists.reduce((total, { serialNumbers }) => total + serialNumbers.size, 0);
    this.#log.info("revocation lists loaded", { path: this.#path, lists: lists.length, revoked });
    this.#lists.set(lists);
  }
}

/** Undefined when there is no such file. */
async function readBounded(path: string): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    if (size > maxRevocationBytes) throw new MeshError("PKI_BAD_CRL", `the file has ${size} bytes; at most ${maxRevocationBytes} are accepted`);
    return await file.readFile();
  } catch (thrown) {
    if (errorCode(thrown) === "ENOENT" || errorCode(thrown) === "ENOTDIR") return undefined;
    throw thrown;
  }
}
