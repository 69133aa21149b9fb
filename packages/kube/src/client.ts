/** The Kubernetes API as the rest of Fairway sees it. The only place that knows the Kubernetes client library, and loads it only for a kubeconfig. */
import type { RequestOptions } from "node:https";
import { type Clock, type Logger, MeshError, type MetricRegistry, silentLogger, systemClock } from "@fairway/runtime";
import type { Collection, KubeClient, KubeObject, ResourceType, Selection } from "./collection.ts";
import { inClusterCredentials, type KubeconfigAuthorizer, kubeconfigCredentials } from "./credentials.ts";
import { createKubeMetrics, type KubeMetrics } from "./metrics.ts";
import { apiVersionOf, queryOf, resourcePath, selectionQuery } from "./paths.ts";
import { Reflector } from "./reflector.ts";
import { type Credentials, Transport } from "./transport.ts";

export interface ConnectOptions {
  /** Path of a kubeconfig. Without it the pod's own service account is used. */
  readonly kubeconfig?: string;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly registry?: MetricRegistry;
  readonly random?: () => number;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Nothing is sent yet; a server that is away shows in the first request. Throws KUBE_BAD_CONFIG when there is nothing to connect with. */
export function connectKube(options: ConnectOptions = {}): KubeClient {
  const { kubeconfig, env = process.env } = options;
  const credentials = kubeconfig === undefined ? inClusterCredentials(env) : kubeconfigCredentials(kubeconfig, authorizerFor(kubeconfig));
  return createKubeClient(credentials, options);
}

/** The client over credentials of any kind; what tests use. */
export function createKubeClient(credentials: Credentials, options: Omit<ConnectOptions, "kubeconfig" | "env"> = {}): KubeClient {
  const { log = silentLogger, clock = systemClock, random = Math.random, registry } = options;
  return new ApiClient(new Transport(credentials), { log: log.scope("kube"), clock, random, metrics: registry && createKubeMetrics(registry) });
}

interface ApiClientContext {
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: KubeMetrics | undefined;
}

/** Objects per page of a plain list. */
const pageSize = 500;

class ApiClient implements KubeClient {
  readonly #transport: Transport;
  readonly #context: ApiClientContext;

  constructor(transport: Transport, context: ApiClientContext) {
    this.#transport = transport;
    this.#context = context;
  }

  get server(): string {
    return this.#transport.server;
  }

  get<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string): Promise<T> {
    return this.request("GET", resourcePath(type, { namespace, name }));
  }

  async list<T extends KubeObject>(type: ResourceType<T>, options: Selection = {}): Promise<T[]> {
    const items: T[] = [];
    let cursor: string | undefined;
    do {
      const query = queryOf({ ...selectionQuery(options), limit: pageSize, continue: cursor });
      const page = await this.request<{ metadata?: { continue?: string }; items?: T[] }>("GET", `${resourcePath(type, options)}${query}`);
      for (const item of page.items ?? []) items.push({ ...item, apiVersion: apiVersionOf(type), kind: type.kind });
      cursor = page.metadata?.continue;
    } while (cursor !== undefined && cursor !== "");
    return items;
  }

  create<T extends KubeObject>(type: ResourceType<T>, object: T): Promise<T> {
    return this.request("POST", resourcePath(type, { namespace: object.metadata.namespace }), named(type, object));
  }

  replace<T extends KubeObject>(type: ResourceType<T>, object: T, options: { subresource?: "status" } = {}): Promise<T> {
    const { name, namespace } = object.metadata;
    return this.request("PUT", resourcePath(type, { namespace, name, ...options }), named(type, object));
  }

  mergePatch<T extends KubeObject>(
    type: ResourceType<T>,
    name: string,
    namespace: string | undefined,
    patch: unknown,
    options: { subresource?: "status" } = {},
  ): Promise<T> {
    const path = resourcePath(type, { namespace, name, ...options });
    return this.#transport.json({ method: "PATCH", path, body: patch, contentType: "application/merge-patch+json" });
  }

  apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: { fieldManager: string; force?: boolean; subresource?: "status" }): Promise<T> {
    const { name, namespace } = object.metadata;
    const { fieldManager, force = true, subresource } = options;
    const path = `${resourcePath(type, { namespace, name, subresource })}${queryOf({ fieldManager, force })}`;
    return this.#transport.json({ method: "PATCH", path, body: named(type, object), contentType: "application/apply-patch+yaml" });
  }

  async delete<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string, options: { gracePeriodSeconds?: number } = {}): Promise<void> {
    await this.request("DELETE", `${resourcePath(type, { namespace, name })}${queryOf(options)}`);
  }

  request<R>(method: string, path: string, body?: unknown): Promise<R> {
    const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    return this.#transport.json<R>({ method, path, contentType, ...(body === undefined ? {} : { body }) });
  }

  collection<T extends KubeObject>(type: ResourceType<T>, options: Selection & { reduce?: (object: T) => T } = {}): Collection<T> & AsyncDisposable {
    const { reduce, ...selection } = options;
    return new Reflector({ type, selection, reduce, transport: this.#transport, ...this.#context });
  }
}

function named<T extends KubeObject>(type: ResourceType<T>, object: T): T {
  return { ...object, apiVersion: apiVersionOf(type), kind: type.kind };
}

/** The library reads the kubeconfig once and keeps what it must (exec tokens until they expire, token files for a minute). */
function authorizerFor(path: string): KubeconfigAuthorizer {
  let loading: Promise<InstanceType<typeof import("@kubernetes/client-node")["KubeConfig"]>> | undefined;
  return async () => {
    loading ??= import("@kubernetes/client-node").then(({ KubeConfig }) => {
      const config = new KubeConfig();
      config.loadFromFile(path);
      return config;
    });
    try {
      const config = await loading;
      // Without a user the library leaves out the cluster's CA as well; an anonymous user brings it back.
      if (config.getCurrentUser() === null) config.loadFromClusterAndUser(clusterOf(config), { name: "anonymous" });
      const options: RequestOptions = {};
      await config.applyToHTTPSOptions(options);
      const proxied = config.getCurrentCluster()?.proxyUrl !== undefined && typeof options.agent === "object";
      const headers = Object.entries(options.headers ?? {}).map(([name, value]) => [name.toLowerCase(), String(value)]);
      if (typeof options.auth === "string") headers.push(["authorization", `Basic ${Buffer.from(options.auth).toString("base64")}`]);
      const { ca, cert, key, servername, rejectUnauthorized } = options;
      return {
        headers: Object.fromEntries(headers) as Record<string, string>,
        tls: { ca, cert, key, servername, ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }) },
        agent: proxied && typeof options.agent === "object" ? options.agent : undefined,
      };
    } catch (thrown) {
      if (thrown instanceof MeshError) throw thrown;
      throw new MeshError("KUBE_BAD_CONFIG", `the kubeconfig ${path} gives no usable credentials`, { cause: thrown });
    }
  };
}

function clusterOf(config: InstanceType<typeof import("@kubernetes/client-node")["KubeConfig"]>): { name: string; server: string; skipTLSVerify: boolean } {
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new MeshError("KUBE_BAD_CONFIG", "the kubeconfig has no current cluster");
  return cluster;
}
