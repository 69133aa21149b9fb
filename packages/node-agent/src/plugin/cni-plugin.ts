/**
 * The CNI plugin's behaviour (CNI spec 1.0.0, sections 2 and 5): chained last, it prints the result it was given once the node agent
 * says that the pod may start. Whatever goes wrong, the pod does not start: closed, never open.
 */
import { type AddRequest, type AddResponse, parseObject } from "../plugin-protocol.ts";

export interface PluginInput {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: string;
  readonly pid: number;
  /** Asks the agent at a socket; rejects when it cannot be reached in time. */
  readonly ask: (socket: string, request: AddRequest) => Promise<AddResponse>;
}

export interface PluginOutput {
  readonly exitCode: 0 | 1;
  readonly stdout: string;
}

export const supportedVersions = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
const newestVersion = "1.1.0";

/** Error codes of the spec's section 5, "Error". */
const incompatibleVersion = 1;
const invalidEnvironment = 4;
const decodingFailure = 6;
const invalidConfiguration = 7;
const tryAgainLater = 11;

export async function runPlugin(input: PluginInput): Promise<PluginOutput> {
  const config = parseObject(input.stdin);
  const version = typeof config?.["cniVersion"] === "string" ? config["cniVersion"] : newestVersion;
  const fail = (code: number, msg: string, details: string): PluginOutput => print(1, { cniVersion: version, code, msg, details });
  const command = input.env["CNI_COMMAND"];
  switch (command) {
    case "VERSION":
      return print(0, { cniVersion: version, supportedVersions });
    // What ADD did belongs to the pod's namespace and goes with it; the agent hears of the pod's end from Kubernetes.
    case "DEL":
    case "CHECK":
    case "GC":
    case "STATUS":
      return { exitCode: 0, stdout: "" };
    case "ADD":
      break;
    default:
      return fail(invalidEnvironment, "fairway-cni: unknown CNI_COMMAND", `CNI_COMMAND is "${command ?? ""}"; it must be ADD, DEL, CHECK or VERSION`);
  }
  if (config === undefined) return fail(decodingFailure, "fairway-cni: the network configuration is not a JSON object", "check the conflist in /etc/cni/net.d");
  if (!supportedVersions.some((supported) => supported === version)) {
    return fail(incompatibleVersion, `fairway-cni: cniVersion ${version} is not supported`, `supported: ${supportedVersions.join(", ")}`);
  }
  const result = config["prevResult"];
  if (typeof result !== "object" || result === null) {
    return fail(
      invalidConfiguration,
      "fairway-cni: there is no result of an earlier plugin",
      "fairway-cni must be the last of a chain: check the conflist in /etc/cni/net.d",
    );
  }
  const pass = print(0, { ...result, cniVersion: version });
  const args = parseArguments(input.env["CNI_ARGS"] ?? "");
  const podName = args.get("K8S_POD_NAME");
  const podNamespace = args.get("K8S_POD_NAMESPACE");
  // Not a pod of Kubernetes: nothing of ours.
  if (podName === undefined || podNamespace === undefined) return pass;
  if (textList(config["excludeNamespaces"]).includes(podNamespace)) return pass;
  // The agent cannot admit itself.
  if (podNamespace === config["agentNamespace"] && podName.startsWith(text(config["agentPodPrefix"], "fairway-node-agent-"))) return pass;
  const netns = input.env["CNI_NETNS"] ?? "";
  if (!netns.startsWith("/")) return fail(invalidEnvironment, "fairway-cni: CNI_NETNS is not a path", `CNI_NETNS is "${netns}"`);
  const socket = text(config["agentSocket"], "/var/run/fairway-cni/agent.sock");
  const request = { netns, podName, podNamespace, podUid: args.get("K8S_POD_UID") ?? "", ips: addressesIn(result), pid: input.pid };
  try {
    const answer = await input.ask(socket, request);
    if ("result" in answer) return pass;
    return fail(
      tryAgainLater,
      `fairway-cni: pod ${podNamespace}/${podName} could not be enrolled: ${answer.error}`,
      `code ${answer.code}; see the logs of the node agent`,
    );
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    return fail(
      tryAgainLater,
      `fairway-cni: the node agent did not answer at ${socket}: ${reason}`,
      "pods do not start without it, so that none runs outside the mesh; check that the node agent's pod runs on this node",
    );
  }
}

/** `K8S_POD_NAME=a;K8S_POD_NAMESPACE=b`. */
export function parseArguments(args: string): ReadonlyMap<string, string> {
  return new Map(
    args.split(";").flatMap((pair): [string, string][] => {
      const at = pair.indexOf("=");
      return at > 0 ? [[pair.slice(0, at), pair.slice(at + 1)]] : [];
    }),
  );
}

/** The addresses of a result, without their prefix lengths. */
export function addressesIn(result: object): readonly string[] {
  const ips: unknown = "ips" in result ? result.ips : undefined;
  if (!Array.isArray(ips)) return [];
  return ips.flatMap((entry: unknown) =>
    typeof entry === "object" && entry !== null && "address" in entry && typeof entry.address === "string" ? [entry.address.replace(/\/\d+$/, "")] : [],
  );
}

function print(exitCode: 0 | 1, value: unknown): PluginOutput {
  return { exitCode, stdout: `${JSON.stringify(value)}\n` };
}

function text(value: unknown, fallback: string): string {
  return typeof value === "string" && value !== "" ? value : fallback;
}

function textList(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === "string") : [];
}
