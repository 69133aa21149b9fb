/** Who we are to the API server: the pod's own service account, or a user's kubeconfig. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type Agent as HttpAgent, Agent as PlainAgent } from "node:http";
import { type AgentOptions, Agent as TlsAgent } from "node:https";
import { isIPv6 } from "node:net";
import { MeshError } from "@fairway/runtime";
import { parse } from "yaml";
import type { Credentials } from "./transport.ts";

const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";
/** Watches hold a connection each; ordinary requests share the rest. */
const maxSockets = 256;

/** What the library knows of a kubeconfig (tokens, client certificates, exec and OIDC providers), applied to one request. */
export type KubeconfigAuthorizer = () => Promise<{
  headers: Record<string, string>;
  tls: AgentOptions;
  /** A proxy's own agent, when the kubeconfig names one. */
  agent: HttpAgent | undefined;
}>;

/** The token and CA files are read before every request: both rotate, and both are small. */
export function inClusterCredentials(env: Readonly<Record<string, string | undefined>>, folder: string = serviceAccountFolder): Credentials {
  const host = env["KUBERNETES_SERVICE_HOST"];
  if (host === undefined || host === "") {
    throw new MeshError("KUBE_BAD_CONFIG", "no kubeconfig was given and KUBERNETES_SERVICE_HOST is not set; run inside a cluster or name a kubeconfig");
  }
  const server = new URL(`https://${isIPv6(host) ? `[${host}]` : host}:${env["KUBERNETES_SERVICE_PORT"] ?? "443"}`);
  const agents = new AgentCache(server);
  return {
    server,
    authorize: async () => {
      const [token, ca] = await Promise.all([readFile(`${folder}/token`, "utf8"), readFile(`${folder}/ca.crt`)]).catch((cause: unknown) => {
        throw new MeshError("KUBE_BAD_CONFIG", `cannot read the service account's token or CA in ${folder}; is it mounted?`, { cause });
      });
      return { headers: { authorization: `Bearer ${token.trim()}` }, agent: agents.agent({ ca }) };
    },
  };
}

export function kubeconfigCredentials(path: string, authorizer: KubeconfigAuthorizer): Credentials {
  const server = currentServer(path);
  const agents = new AgentCache(server.url);
  return {
    server: server.url,
    authorize: async () => {
      const { headers, tls, agent } = await authorizer();
      return { headers, agent: agent ?? agents.agent(tls) };
    },
  };
}

interface Kubeconfig {
  "current-context"?: string;
  contexts?: { name: string; context?: { cluster?: string } }[];
  clusters?: { name: string; cluster?: { server?: string; "insecure-skip-tls-verify"?: boolean } }[];
}

/** A token in clear text over a network is refused; loopback and an explicit wish to skip TLS verification are not. */
function currentServer(path: string): { url: URL } {
  let config: Kubeconfig;
  try {
    config = (parse(readFileSync(path, "utf8")) ?? {}) as Kubeconfig;
  } catch (cause) {
    throw new MeshError("KUBE_BAD_CONFIG", `cannot read the kubeconfig ${path}`, { cause });
  }
  const context = config.contexts?.find(({ name }) => name === config["current-context"]);
  const cluster = config.clusters?.find(({ name }) => name === context?.context?.cluster)?.cluster;
  if (cluster?.server === undefined || !URL.canParse(cluster.server)) {
    throw new MeshError("KUBE_BAD_CONFIG", `the kubeconfig ${path} has no current context with a server; try kubectl config use-context`);
  }
  const url = new URL(cluster.server);
  const loopback = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !loopback && cluster["insecure-skip-tls-verify"] !== true) {
    throw new MeshError("KUBE_BAD_CONFIG", `the kubeconfig ${path} names ${url.origin}, which would send credentials in clear text; use https`);
  }
  return { url };
}

/** One agent per TLS setup, so that connections are kept; a changed certificate starts a new one. */
class AgentCache {
  readonly #server: URL;
  #key = "";
  #agent: HttpAgent | undefined;

  constructor(server: URL) {
    this.#server = server;
  }

  agent(tls: AgentOptions): HttpAgent {
    const key = [tls.ca, tls.cert, tls.key, tls.servername, tls.rejectUnauthorized].map(String).join("\n");
    if (this.#agent === undefined || key !== this.#key) {
      const secure = this.#server.protocol === "https:";
      this.#agent = secure ? new TlsAgent({ ...tls, keepAlive: true, maxSockets }) : new PlainAgent({ keepAlive: true, maxSockets });
      this.#key = key;
    }
    return this.#agent;
  }
}
