/** The node's network configuration with our plugin at the end of the chain (ztunnel contract 7.10). Pure text to text. */
import { parseObject } from "./plugin-protocol.ts";

export const pluginType = "fairway-cni";

export interface PluginEntry {
  readonly agentSocket: string;
  readonly agentNamespace: string;
  readonly agentPodPrefix: string;
  readonly excludeNamespaces: readonly string[];
}

export interface ConfigFile {
  readonly name: string;
  readonly text: string;
}

export interface ChainedConfig {
  /** What is to stand on the node. */
  readonly file: ConfigFile;
  /** The single configuration that `file` replaces; undefined when `file` is the one that stands. */
  readonly replaces: string | undefined;
}

interface PluginList {
  readonly rest: Readonly<Record<string, unknown>>;
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
}

/** A single configuration has neither a list's name nor its version. */
const convertedName = "k8s-pod-network";
const convertedVersion = "0.3.1";

/** The file that runtimes use: the first valid one by name. */
export function primaryConfig(files: readonly ConfigFile[]): ConfigFile | undefined {
  return files.toSorted((a, b) => (a.name < b.name ? -1 : 1)).find(({ name, text }) => isConfigName(name) && parseList(name, text) !== undefined);
}

export function isConfigName(name: string): boolean {
  return /\.(conf|conflist|json)$/.test(name);
}

/** `file` with our entry as its last plugin; undefined when it is so already. */
export function withPlugin(file: ConfigFile, entry: PluginEntry): ChainedConfig | undefined {
  const list = parseList(file.name, file.text);
  if (list === undefined) return undefined;
  const wanted = { type: pluginType, ...entry };
  const isList = file.name.endsWith(".conflist");
  const last = list.plugins.at(-1);
  const ours = list.plugins.filter(({ type }) => type === pluginType);
  if (isList && ours.length === 1 && JSON.stringify(last) === JSON.stringify(wanted)) return undefined;
  return chained(file, list, [...withoutOurs(list), wanted]);
}

/** `file` without our entry; undefined when it has none. */
export function withoutPlugin(file: ConfigFile): ConfigFile | undefined {
  const list = parseList(file.name, file.text);
  if (list === undefined || !list.plugins.some(({ type }) => type === pluginType)) return undefined;
  return chained(file, list, withoutOurs(list)).file;
}

function chained(file: ConfigFile, { rest }: PluginList, plugins: readonly unknown[]): ChainedConfig {
  const isList = file.name.endsWith(".conflist");
  const name = isList ? file.name : `${file.name.replace(/\.(conf|json)$/, "")}.conflist`;
  return { file: { name, text: `${JSON.stringify({ ...rest, plugins }, undefined, 2)}\n` }, replaces: isList ? undefined : file.name };
}

function withoutOurs({ plugins }: PluginList): readonly Readonly<Record<string, unknown>>[] {
  return plugins.filter(({ type }) => type !== pluginType);
}

/** A list as it is, a single plugin as the list of one; undefined for what runtimes would not take either. */
function parseList(fileName: string, text: string): PluginList | undefined {
  const value = parseObject(text);
  if (value === undefined) return undefined;
  if (!fileName.endsWith(".conflist")) {
    if (typeof value["type"] !== "string") return undefined;
    return { rest: { name: convertedName, cniVersion: convertedVersion }, plugins: [value] };
  }
  const { plugins, ...rest } = value;
  if (typeof rest["name"] !== "string" || !Array.isArray(plugins) || plugins.length === 0 || !plugins.every(isPlugin)) return undefined;
  return { rest, plugins };
}

function isPlugin(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
}
