/**
 * The runtime's side of CNI (spec 1.0.0): finds the network configuration on the node, runs its plugins in order for ADD and in
 * reverse for DEL, and threads the result through. Plugins are executed for real, except the built-in `local-bridge`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MeshError, messageOf } from "@fairway/runtime";
import type { CommandResult } from "../command.ts";
import { type BridgePlugin, bridgePluginType } from "./bridge-plugin.ts";
import type { CniResult } from "./cni-result.ts";
import { namespacePath } from "./namespaces.ts";

export interface NetworkConfiguration {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly Readonly<Record<string, unknown> & { type: string }>[];
}

export interface PodAttachment {
  readonly containerId: string;
  /** The name of the pod's network namespace. */
  readonly namespace: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
}

/** Runs a plugin binary by its name as the node would: its network, its view of /opt/cni, /etc/cni and /run. */
export type RunPlugin = (request: { type: string; env: Readonly<Record<string, string>>; stdin: string; signal: AbortSignal }) => Promise<CommandResult>;

export const configurationDirectory = "/etc/cni/net.d";
const interfaceName = "eth0";
const undoTimeoutMs = 15_000;

export class Cni {
  readonly #configurationDir: string;
  readonly #bridge: BridgePlugin;
  readonly #run: RunPlugin;
  /** The configuration and result of each ADD: DEL must use the same (spec, section 4). */
  readonly #attached = new Map<string, { configuration: NetworkConfiguration; result: CniResult }>();

  constructor(options: { configurationDir: string; bridge: BridgePlugin; run: RunPlugin }) {
    this.#configurationDir = options.configurationDir;
    this.#bridge = options.bridge;
    this.#run = options.run;
  }

  /** ADD through the whole chain; on failure what was done is undone. Throws LOCAL_CLUSTER_CNI_FAILED. */
  async add(attachment: PodAttachment, { signal }: { signal: AbortSignal }): Promise<CniResult> {
    const configuration = firstConfiguration(this.#configurationDir);
    let result: CniResult | undefined;
    try {
      for (const plugin of configuration.plugins) result = await this.#addOne(configuration, plugin, attachment, result, signal);
    } catch (thrown) {
      // With a time of its own: the pod's signal may be why the ADD failed.
      await this.#delAll(configuration, attachment, result, AbortSignal.timeout(undoTimeoutMs));
      throw thrown;
    }
    if (result === undefined) throw new MeshError("LOCAL_CLUSTER_CNI_FAILED", `network "${configuration.name}" has no plugins`);
    this.#attached.set(attachment.containerId, { configuration, result });
    return result;
  }

  /** DEL through the chain in reverse; every plugin is asked even when one fails, as the spec demands. Never throws. */
  async del(attachment: PodAttachment, { signal }: { signal: AbortSignal }): Promise<readonly string[]> {
    const attached = this.#attached.get(attachment.containerId);
    this.#attached.delete(attachment.containerId);
    if (attached === undefined) {
      await this.#bridge.del(attachment.containerId);
      return [];
    }
    return await this.#delAll(attached.configuration, attachment, attached.result, signal);
  }

  async #addOne(
    configuration: NetworkConfiguration,
    plugin: NetworkConfiguration["plugins"][number],
    attachment: PodAttachment,
    previous: CniResult | undefined,
    signal: AbortSignal,
  ): Promise<CniResult> {
    if (plugin.type === bridgePluginType) {
      return await this.#bridge.add({
        containerId: attachment.containerId,
        podNamespace: attachment.namespace,
        interfaceName,
        cniVersion: configuration.cniVersion,
      });
    }
    const { code, stdout, stderr } = await this.#run({
      type: plugin.type,
      env: pluginEnvironment("ADD", attachment),
      stdin: pluginInput(configuration, plugin, previous),
      signal,
    });
    if (code !== 0) throw new MeshError("LOCAL_CLUSTER_CNI_FAILED", `CNI plugin "${plugin.type}" failed (add): ${pluginError(stdout, stderr, code)}`);
    return parseResult(plugin.type, stdout);
  }

  async #delAll(configuration: NetworkConfiguration, attachment: PodAttachment, previous: CniResult | undefined, signal: AbortSignal): Promise<string[]> {
    const problems: string[] = [];
    for (const plugin of configuration.plugins.toReversed()) {
      try {
        if (plugin.type === bridgePluginType) {
          await this.#bridge.del(attachment.containerId);
          continue;
        }
        const { code, stdout, stderr } = await this.#run({
          type: plugin.type,
          env: pluginEnvironment("DEL", attachment),
          stdin: pluginInput(configuration, plugin, previous),
          signal,
        });
        if (code !== 0) problems.push(`CNI plugin "${plugin.type}" failed (delete): ${pluginError(stdout, stderr, code)}`);
      } catch (thrown) {
        problems.push(messageOf(thrown));
      }
    }
    return problems;
  }
}

/** The first file, by name, that is a valid configuration: what container runtimes do. Throws LOCAL_CLUSTER_CNI_NOT_CONFIGURED. */
function firstConfiguration(directory: string): NetworkConfiguration {
  let names: string[] = [];
  try {
    names = readdirSync(directory).sort();
  } catch {
    // An absent directory is an empty one: the message below says what to do.
  }
  for (const name of names) {
    if (!/\.(conflist|conf|json)$/.test(name)) continue;
    try {
      const configuration = parseConfiguration(readFileSync(join(directory, name), "utf8"));
      if (configuration !== undefined) return configuration;
    } catch {
      // A file that vanished or is being written: the next one by name may be good, and the pod is tried again.
    }
  }
  throw new MeshError("LOCAL_CLUSTER_CNI_NOT_CONFIGURED", "cni plugin not initialized: no valid network configuration in /etc/cni/net.d");
}

/** A list (`plugins`) or a single plugin; undefined when it is neither. */
export function parseConfiguration(text: string): NetworkConfiguration | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { name, cniVersion, plugins, type } = value as { name?: unknown; cniVersion?: unknown; plugins?: unknown; type?: unknown };
  const candidates: unknown[] = Array.isArray(plugins) ? plugins : typeof type === "string" ? [value] : [];
  const parsed = candidates.filter(isPlugin);
  if (typeof name !== "string" || parsed.length === 0 || parsed.length !== candidates.length) return undefined;
  return { name, cniVersion: typeof cniVersion === "string" ? cniVersion : "0.4.0", plugins: parsed };
}

function isPlugin(value: unknown): value is Record<string, unknown> & { type: string } {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string" && /^[\w.-]+$/.test(value.type);
}

function pluginEnvironment(command: "ADD" | "DEL", { containerId, namespace, pod }: PodAttachment): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: namespacePath(namespace),
    CNI_IFNAME: interfaceName,
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${containerId};K8S_POD_UID=${pod.uid}`,
    CNI_PATH: "/opt/cni/bin",
  };
}

function pluginInput(configuration: NetworkConfiguration, plugin: NetworkConfiguration["plugins"][number], previous: CniResult | undefined): string {
  const { name, cniVersion } = configuration;
  return JSON.stringify({ ...plugin, name, cniVersion, ...(previous === undefined ? {} : { prevResult: previous }) });
}

function parseResult(type: string, text: string): CniResult {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as CniResult;
  } catch {
    // Reported below, with the plugin's name.
  }
  throw new MeshError("LOCAL_CLUSTER_CNI_FAILED", `CNI plugin "${type}" did not print a result object`);
}

function pluginError(stdout: string, stderr: string, code: number): string {
  try {
    const { msg, details } = JSON.parse(stdout) as { msg?: unknown; details?: unknown };
    if (typeof msg === "string") return typeof details === "string" && details !== "" ? `${msg}; ${details}` : msg;
  } catch {
    // Not the spec's error object: what it wrote is the best there is.
  }
  return (stderr || stdout).trim().slice(0, 1_000) || `exit code ${code}`;
}
