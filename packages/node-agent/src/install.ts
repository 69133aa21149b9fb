/**
 * Puts the CNI plugin on the node and keeps it there: the executable, a Node runtime beside it, and the last entry of the network
 * configuration. All of it stays when the agent stops, because pods must not start outside the mesh meanwhile.
 */
import { constants, type FSWatcher, watch } from "node:fs";
import { chmod, copyFile, link, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup } from "@fairway/runtime";
import { type ConfigFile, isConfigName, type PluginEntry, pluginType, primaryConfig, withoutPlugin, withPlugin } from "./cni-config.ts";

/** Between looks at the configuration directory; changes are usually heard of at once. */
const checkIntervalMs = 5_000;
const runtimePrefix = `${pluginType}-node-`;
/** The kernel reads no more of a script's first line (BINPRM_BUF_SIZE). */
const shebangLimit = 255;

export interface InstallOptions {
  readonly binDir: string;
  /** `binDir` as the node sees it. */
  readonly hostBinDir: string;
  readonly confDir: string;
  /** The plugin's single file. */
  readonly pluginFile: string;
  /** A Node executable to put beside it. */
  readonly nodeFile: string;
  /** A Node executable that is on the node already; nothing is copied then. */
  readonly hostNodeFile: string | undefined;
  readonly entry: PluginEntry;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called once, when the configuration has our entry. */
  readonly onInstalled: () => void;
}

export class CniInstallation implements AsyncDisposable {
  readonly #options: InstallOptions;
  readonly #tasks: TaskGroup;
  #watcher: FSWatcher | undefined;
  #wake: () => void = () => {};
  /** Something changed since the last look began. */
  #changed = false;
  #installed = false;

  private constructor(options: InstallOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup(options.log);
  }

  /** Installs the executable now, and the entry as soon as there is a configuration to add it to. Throws NODE_AGENT_INSTALL_FAILED. */
  static async start(options: InstallOptions): Promise<CniInstallation> {
    const installation = new CniInstallation(options);
    await installation.#installExecutable();
    try {
      installation.#watcher = watch(options.confDir, () => installation.#onChange());
      installation.#watcher.on("error", (error) =>
        options.log.warn("the configuration directory can no longer be watched; looking regularly instead", { error }),
      );
    } catch (cause) {
      throw new MeshError("NODE_AGENT_INSTALL_FAILED", `cannot watch ${options.confDir}; is the node's CNI configuration directory mounted?`, { cause });
    }
    installation.#tasks.run("CNI configuration", (signal) => installation.#keep(signal));
    return installation;
  }

  /** Takes entry and executable off the node: the mesh is being uninstalled. Never throws. */
  async uninstall(): Promise<void> {
    await this[Symbol.asyncDispose]();
    const { confDir, binDir, log } = this.#options;
    try {
      for (const file of await configFiles(confDir)) {
        const without = withoutPlugin(file);
        if (without !== undefined) await writeAtomically(join(confDir, file.name), without.text, 0o644);
      }
      for (const name of await readdir(binDir)) {
        if (name === pluginType || name.startsWith(runtimePrefix)) await rm(join(binDir, name), { force: true });
      }
      log.info("the CNI plugin was removed from the node");
    } catch (thrown) {
      log.error("the CNI plugin could not be removed from the node", { error: MeshError.from(thrown, "NODE_AGENT_UNINSTALL_FAILED") });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watcher?.close();
    await this.#tasks[Symbol.asyncDispose]();
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    for (;;) {
      this.#changed = false;
      try {
        await this.#ensureEntry();
      } catch (thrown) {
        log.error("the network configuration could not be changed", { error: MeshError.from(thrown, "NODE_AGENT_INSTALL_FAILED") });
      }
      await this.#nextLook(clock, signal);
    }
  }

  #onChange(): void {
    this.#changed = true;
    this.#wake();
  }

  /** The next change, or the next regular look. */
  async #nextLook(clock: Clock, signal: AbortSignal): Promise<void> {
    if (this.#changed) return;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    try {
      await clock.sleep(checkIntervalMs, { signal: AbortSignal.any([signal, woken.signal]) });
    } catch {
      signal.throwIfAborted();
    }
  }

  async #ensureEntry(): Promise<void> {
    const { confDir, entry, log, onInstalled } = this.#options;
    const primary = primaryConfig(await configFiles(confDir));
    if (primary === undefined) return;
    const chained = withPlugin(primary, entry);
    if (chained !== undefined) {
      const { mode } = await stat(join(confDir, primary.name));
      await writeAtomically(join(confDir, chained.file.name), chained.file.text, mode & 0o777);
      if (chained.replaces !== undefined) await rm(join(confDir, chained.replaces), { force: true });
      log.info(this.#installed ? "the network configuration had lost our plugin; added it again" : "added our plugin to the network configuration", {
        file: chained.file.name,
      });
    }
    if (!this.#installed) onInstalled();
    this.#installed = true;
  }

  async #installExecutable(): Promise<void> {
    const { binDir, hostBinDir, pluginFile, hostNodeFile } = this.#options;
    try {
      const runtime = hostNodeFile ?? join(hostBinDir, await this.#installRuntime());
      const shebang = `#!${runtime}\n`;
      if (Buffer.byteLength(shebang) > shebangLimit)
        throw new MeshError("NODE_AGENT_INSTALL_FAILED", `the path ${runtime} is too long for a script's first line`);
      const program = await readFile(pluginFile, "utf8");
      await writeAtomically(join(binDir, pluginType), `${shebang}${program.replace(/^#!.*\n/, "")}`, 0o755);
    } catch (cause) {
      throw new MeshError("NODE_AGENT_INSTALL_FAILED", `cannot install the CNI plugin in ${binDir}; is the node's CNI directory mounted and writable?`, {
        cause,
      });
    }
  }

  /** The runtime's file name carries its version, so that it is copied once and a plugin that runs keeps the one it started with. */
  async #installRuntime(): Promise<string> {
    const { binDir, nodeFile, log } = this.#options;
    const name = `${runtimePrefix}${process.version}-${process.arch}`;
    const target = join(binDir, name);
    const { size } = await stat(nodeFile);
    const standing = await stat(target).catch(() => undefined);
    if (standing?.size === size) return name;
    const temporary = `${target}.tmp`;
    await rm(temporary, { force: true });
    try {
      await link(nodeFile, temporary);
    } catch (thrown) {
      // Another file system, or one without links: a copy.
      if (!["EXDEV", "EPERM", "EMLINK", "EACCES"].includes(errorCode(thrown) ?? "")) throw thrown;
      await copyFile(nodeFile, temporary, constants.COPYFILE_FICLONE);
      await chmod(temporary, 0o755);
    }
    await rename(temporary, target);
    for (const old of await readdir(binDir)) if (old.startsWith(runtimePrefix) && old !== name) await rm(join(binDir, old), { force: true });
    log.info("installed the plugin's runtime", { file: name });
    return name;
  }
}

async function configFiles(confDir: string): Promise<ConfigFile[]> {
  const names = (await readdir(confDir)).filter(isConfigName);
  const files = await Promise.all(
    names.map(async (name) => {
      // A file that vanished in between is none.
      const text = await readFile(join(confDir, name), "utf8").catch(() => undefined);
      return text === undefined ? [] : [{ name, text }];
    }),
  );
  return files.flat();
}

/** Readers see the old file or the new one. The name in between is none that a runtime takes for a configuration. */
async function writeAtomically(path: string, text: string, mode: number): Promise<void> {
  const temporary = `${path}.tmp`;
  await writeFile(temporary, text, { mode });
  await chmod(temporary, mode);
  await rename(temporary, path);
}
