/** Answers the CNI plugin: may this pod start, and is it captured? A pod that should be captured and is not does not start. */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";
import { join } from "node:path";
import { type KubeClient, resources } from "@fairway/kube";
import { type NetworkNamespace, openNamespace } from "@fairway/linux";
import { errorCode, type Logger, MeshError, messageOf } from "@fairway/runtime";
import type { AgentMetrics } from "./metrics.ts";
import { type AddRequest, type AddResponse, addPath, parseAddRequest, pluginTimeoutMs } from "./plugin-protocol.ts";
import type { Pods } from "./pods.ts";

const bodyLimit = 65_536;
/** A little less than the plugin waits, so that it hears the reason. */
const enrolTimeoutMs = pluginTimeoutMs - 500;

export interface PluginServerOptions {
  readonly path: string;
  readonly client: Pick<KubeClient, "get">;
  readonly pods: Pick<Pods, "enrolNew">;
  readonly hostProc: string;
  readonly metrics: Pick<AgentMetrics, "cniRequests">;
  readonly log: Logger;
}

export class PluginServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #stop = new AbortController();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Throws NODE_AGENT_PLUGIN_SOCKET. */
  static async listen(options: PluginServerOptions): Promise<PluginServer> {
    const { path, metrics, log } = options;
    const server = createServer((request, response) => {
      void answer(request, options, self.#stop.signal).then((reply) => {
        metrics.cniRequests.inc({ result: "result" in reply ? reply.result : "failed" });
        if ("error" in reply) log.warn("a pod was not let start", { code: reply.code, error: reply.error });
        send(response, reply);
      });
    });
    const self = new PluginServer(server);
    server.on("clientError", (_error, socket) => socket.destroy());
    // The file of an agent that was killed; there is one agent on a node.
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => reject(new MeshError("NODE_AGENT_PLUGIN_SOCKET", `cannot listen at ${path}; does its directory exist?`, { cause })));
      server.listen(path, () => resolve());
    });
    chmodSync(path, 0o600);
    server.on("error", (error) => log.warn("the plugin's socket failed", { error }));
    return self;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new MeshError("NODE_AGENT_STOPPING", "the node agent is stopping; the pod will be tried again"));
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeIdleConnections();
    });
  }
}

/** Never rejects. */
async function answer(request: IncomingMessage, options: PluginServerOptions, stop: AbortSignal): Promise<AddResponse> {
  try {
    if (request.method !== "POST" || request.url !== addPath) return { error: `no such request; POST ${addPath}`, code: "NODE_AGENT_BAD_REQUEST" };
    const wanted = parseAddRequest(await body(request));
    if (wanted === undefined) return { error: "the request was not understood; are plugin and agent of one version?", code: "NODE_AGENT_BAD_REQUEST" };
    return { result: await admit(wanted, options, AbortSignal.any([stop, AbortSignal.timeout(enrolTimeoutMs)])) };
  } catch (thrown) {
    const error = MeshError.from(thrown, "NODE_AGENT_ENROL_FAILED");
    return { error: messageOf(error), code: error.code };
  }
}

async function admit(wanted: AddRequest, { client, pods, hostProc }: PluginServerOptions, signal: AbortSignal): Promise<"enrolled" | "left-out"> {
  const pod = await client.get(resources.pods, wanted.podName, wanted.podNamespace);
  if (wanted.podUid !== "" && pod.metadata.uid !== wanted.podUid) {
    throw new MeshError("NODE_AGENT_POD_REPLACED", `pod ${wanted.podNamespace}/${wanted.podName} has another UID by now`);
  }
  // Both fresh from the API: a namespace that was labelled a moment ago must not be missed because a watch is behind.
  const namespace = await client.get(resources.namespaces, wanted.podNamespace);
  const ips = wanted.ips.filter((ip) => isIP(ip) !== 0);
  return await pods.enrolNew({ pod, namespace, ips, open: () => openPodNamespace(wanted, hostProc) }, { signal });
}

/** The path is the runtime's; where it is not ours too, the plugin's own view of it is reachable through /proc. */
function openPodNamespace({ netns, pid }: AddRequest, hostProc: string): NetworkNamespace {
  try {
    return openNamespace(netns);
  } catch (thrown) {
    if (errorCode(thrown) !== "LINUX_NAMESPACE_NOT_FOUND" || pid <= 0) throw thrown;
    return openNamespace(join(hostProc, String(pid), "root", netns));
  }
}

async function body(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length > bodyLimit) throw new MeshError("NODE_AGENT_BAD_REQUEST", `the request is longer than ${bodyLimit} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function send(response: ServerResponse, reply: AddResponse): void {
  const status = "result" in reply ? 200 : reply.code === "NODE_AGENT_BAD_REQUEST" ? 400 : 500;
  response.on("error", () => {});
  // One request a connection: a body that was not read to its end must not hold it open.
  response.writeHead(status, { "content-type": "application/json", connection: "close" });
  response.end(JSON.stringify(reply));
}
