/** The API server put together: storage, types, handlers and one HTTPS server. `startApiServer` returns it working. */
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import { type AddressInfo, isIP, type Socket } from "node:net";
import { Authority, maxCertificateTtlMs } from "@fairway/pki";
import { type Clock, type Logger, MeshError, silentLogger, systemClock } from "@fairway/runtime";
import { ApiError } from "./api-error.ts";
import { Authenticator, groupsOf, impersonationOf } from "./authentication.ts";
import { Authorizer, refusal } from "./authorization.ts";
import { bootstrap } from "./bootstrap.ts";
import { ClusterIps } from "./cluster-ips.ts";
import { type Exchange, sendError } from "./exchange.ts";
import { GarbageCollector } from "./garbage-collector.ts";
import { kubeconfigText } from "./kubeconfig.ts";
import type { KubeletGateway } from "./kubelet-gateway.ts";
import { ObjectWriter } from "./object-writer.ts";
import { Reader } from "./read-handlers.ts";
import { defaultMaxBodyBytes } from "./request-body.ts";
import { attributesOf, parseRequest, type RequestInfo } from "./request-info.ts";
import { ResourceTypes } from "./resource-types.ts";
import { ReviewHandlers } from "./review-handlers.ts";
import { Router } from "./router.ts";
import { TokenIssuer } from "./service-account-token.ts";
import { defaultHistoryLength, Storage } from "./storage.ts";
import { SubresourceHandlers } from "./subresource-handlers.ts";
import { UpgradeHandler } from "./upgrade-handler.ts";
import { defaultWatchLimits, Watcher, type WatchLimits } from "./watch-handler.ts";
import { WriteHandlers } from "./write-handlers.ts";

export interface ApiServerLimits extends WatchLimits {
  /** The largest request body. */
  readonly maxBodyBytes: number;
  /** Changes remembered per type for watches that resume. */
  readonly historyLength: number;
  readonly maxConnections: number;
  /** Exec and port-forward sessions at once. */
  readonly maxSessions: number;
}

export const defaultApiServerLimits: ApiServerLimits = {
  ...defaultWatchLimits,
  maxBodyBytes: defaultMaxBodyBytes,
  historyLength: defaultHistoryLength,
  maxConnections: 8192,
  maxSessions: 256,
};

export interface ApiServerOptions {
  /** Where to listen: loopback and a port of the system's choice unless told. */
  readonly host?: string;
  readonly port?: number;
  /** Further names and addresses the server's certificate holds, besides loopback and the API's cluster IP. */
  readonly names?: readonly string[];
  /** The issuer and default audience of service account tokens. */
  readonly serviceAccountIssuer?: string;
  readonly kubelet: KubeletGateway;
  /** Serve equivalents of the Gateway API's definitions; on unless told. */
  readonly gatewayApi?: boolean;
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly limits?: Partial<ApiServerLimits>;
}

export interface ApiServer extends AsyncDisposable {
  /** `https://host:port` of the listener. */
  readonly url: string;
  readonly port: number;
  readonly caPem: string;
  readonly adminToken: string;
  readonly serviceAccountIssuer: string;
  /** Serves a connection accepted elsewhere, such as inside another network namespace. */
  accept(socket: Socket): void;
  /** A kubeconfig as YAML, for the admin unless a token is given. */
  kubeconfig(options?: { readonly server?: string; readonly user?: string; readonly token?: string }): string;
  /** Forgets the history of all watches, as etcd's compaction does: those that resume get 410 and list again. */
  compact(): void;
  /** Breaks every open connection; clients reconnect. */
  resetConnections(): void;
}

/** How long the rest of a refused body is read. */
const discardMs = 2000;
const headerLimits = { maxHeaderSize: 65_536, headersTimeout: 30_000, requestTimeout: 120_000, keepAliveTimeout: 90_000 };

/** Starts the server; it serves when the promise resolves. */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const {
    host = "127.0.0.1",
    port = 0,
    clock = systemClock,
    log = silentLogger,
    serviceAccountIssuer = "https://kubernetes.default.svc.cluster.local",
  } = options;
  const limits = { ...defaultApiServerLimits, ...options.limits };
  const dnsNames = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
  const extra = options.names ?? [];
  const authority = Authority.createSelfSigned({ trustDomain: "fairway-local-cluster", clock });
  const { cert, key } = authority.signServer({
    dnsNames: [...dnsNames, ...extra.filter((name) => isIP(name) === 0)],
    ips: [...new Set(["127.0.0.1", "::1", "10.96.0.1", "fd00:10:96::1", ...extra.filter((name) => isIP(name) !== 0)])],
    ttlMs: maxCertificateTtlMs,
  });
  const server = createServer({ cert, key, minVersion: "TLSv1.2", ...headerLimits });
  server.maxConnections = limits.maxConnections;
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (thrown) {
    throw new MeshError("LOCAL_CLUSTER_API_LISTEN", `the API server cannot listen on ${host}:${port}; is the port in use?`, { cause: thrown });
  }
  return new RunningApiServer(server, { ...options, clock, log, serviceAccountIssuer }, limits, authority.rootBundle);
}

class RunningApiServer implements ApiServer {
  readonly url: string;
  readonly port: number;
  readonly caPem: string;
  readonly adminToken: string;
  readonly serviceAccountIssuer: string;
  readonly #server: Server;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #storage: Storage;
  readonly #authenticator: Authenticator;
  readonly #authorizer: Authorizer;
  readonly #router: Router;
  readonly #collector: GarbageCollector;
  readonly #upgrades: UpgradeHandler;
  readonly #limits: ApiServerLimits;
  readonly #closing = new AbortController();
  readonly #sockets = new Set<Socket>();

  constructor(server: Server, options: ApiServerOptions & { clock: Clock; log: Logger; serviceAccountIssuer: string }, limits: ApiServerLimits, caPem: string) {
    const { clock, log, kubelet, serviceAccountIssuer } = options;
    const address = server.address() as AddressInfo;
    this.url = `https://${address.family === "IPv6" ? `[${address.address}]` : address.address}:${address.port}`;
    this.port = address.port;
    this.caPem = caPem;
    this.adminToken = randomBytes(32).toString("base64url");
    this.serviceAccountIssuer = serviceAccountIssuer;
    this.#server = server;
    this.#log = log;
    this.#clock = clock;
    this.#limits = limits;
    const storage = new Storage({ clock, historyLength: limits.historyLength });
    this.#storage = storage;
    const types = new ResourceTypes();
    const issuer = new TokenIssuer(serviceAccountIssuer, clock);
    this.#authenticator = new Authenticator({ adminToken: this.adminToken, issuer, storage, audience: serviceAccountIssuer });
    this.#authorizer = new Authorizer(storage);
    this.#collector = new GarbageCollector({ storage, types, clock, log, caPem });
    const writer = new ObjectWriter({ storage, ips: new ClusterIps(storage), clock, suffix: nameSuffix });
    const reader = new Reader(storage, () => clock.now());
    this.#router = new Router({
      types,
      storage,
      reader,
      watcher: new Watcher(storage, clock, limits),
      writes: new WriteHandlers({ storage, writer, reader, clock }),
      subresources: new SubresourceHandlers({ storage, writer, issuer, audience: serviceAccountIssuer, clock }),
      reviews: new ReviewHandlers(this.#authenticator, this.#authorizer),
      issuer,
      gateway: kubelet,
      nowMs: () => clock.now(),
    });
    this.#upgrades = new UpgradeHandler({ storage, gateway: kubelet, log, maxSessions: limits.maxSessions, signal: this.#closing.signal });
    bootstrap({ storage, types, writer, nowMs: clock.now(), securePort: this.port, gatewayApi: options.gatewayApi ?? true });
    // The rejection of an async listener would be unhandled: #serve never rejects.
    server.on("request", (request, response) => void this.#serve(request, response));
    server.on("upgrade", (request, socket, head) => void this.#upgrade(request, socket as Socket, head));
    server.on("secureConnection", (socket) => this.#track(socket));
    server.on("tlsClientError", (error) => log.debug("TLS handshake failed", { error }));
    server.on("clientError", (error, socket) => {
      log.debug("malformed request", { error });
      if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
      else socket.destroy();
    });
    server.on("error", (error) => log.error("the API server's listener failed", { error }));
  }

  accept(socket: Socket): void {
    this.#server.emit("connection", socket);
  }

  kubeconfig({
    server = this.url,
    user = "admin",
    token = this.adminToken,
  }: {
    readonly server?: string;
    readonly user?: string;
    readonly token?: string;
  } = {}): string {
    return kubeconfigText({ server, caPem: this.caPem, user, token });
  }

  compact(): void {
    this.#storage.compact();
  }

  resetConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MeshError("LOCAL_CLUSTER_API_CLOSED", "the API server closed"));
    this.#collector[Symbol.dispose]();
    const closed = once(this.#server, "close");
    this.#server.close();
    await this.#upgrades[Symbol.asyncDispose]();
    this.resetConnections();
    await closed;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", (error) => this.#log.debug("connection failed", { error }));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once("close", () => gone.abort(new MeshError("LOCAL_CLUSTER_API_CLIENT_GONE", "the client closed the connection")));
    response.on("error", (error) => this.#log.debug("response failed", { error }));
    const warnings: string[] = [];
    try {
      const { info, user } = this.#admitted(request);
      const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
      const exchange: Exchange = { request, response, user, signal, maxBodyBytes: this.#limits.maxBodyBytes, warnings };
      if (info.kind === "path") this.#router.path(exchange, info);
      else await this.#router.resource(exchange, info);
    } catch (thrown) {
      sendError({ response, warnings }, this.#failure(thrown, request, gone.signal));
      this.#discardBody(request, response);
    }
  }

  /** What remains of a refused body is thrown away for a moment, so that the client reads its answer; then the connection ends. */
  #discardBody(request: IncomingMessage, response: ServerResponse): void {
    const hasBody = request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) > 0;
    if (!hasBody || request.complete || request.destroyed) return;
    request.resume();
    const timer = this.#clock.schedule(discardMs, () => request.destroy());
    response.once("close", () => timer[Symbol.dispose]());
    request.once("end", () => timer[Symbol.dispose]());
  }

  async #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    try {
      const { info } = this.#admitted(request, "create");
      if (info.kind !== "resource") throw ApiError.badRequest("this path does not upgrade");
      this.#router.typeOf(info);
      await this.#upgrades.handle(request, socket, head, info);
    } catch (thrown) {
      const error = this.#failure(thrown, request, this.#closing.signal);
      if (!socket.writable) return;
      const body = JSON.stringify(error.status());
      socket.end(
        `HTTP/1.1 ${error.httpCode} ${error.reason}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      );
    }
  }

  /** Parses, authenticates and authorizes. `verb` overrides what the method means: an exec is a create even by GET. */
  #admitted(request: IncomingMessage, verb?: string): { info: RequestInfo; user: Exchange["user"] } {
    const info = parseRequest(request.method ?? "GET", request.url ?? "/");
    const caller = this.#authenticator.authenticate(request.headers.authorization);
    if (caller === undefined) throw ApiError.unauthorized();
    const user = this.#impersonated(caller, request);
    const attributes = verb === undefined ? attributesOf(info) : { ...attributesOf(info), verb };
    if (!this.#authorizer.allowed(user, attributes)) {
      const target = info.kind === "resource" ? { group: info.group, plural: info.plural } : { group: "", plural: "" };
      const why = refusal(user, attributes);
      if (info.kind === "resource") throw ApiError.forbidden(target, info.name, why);
      throw new ApiError(403, "Forbidden", `forbidden: ${why}`);
    }
    return { info, user };
  }

  /** The user the request asks to act as (`kubectl --as`), if the caller may; otherwise the caller. */
  #impersonated(caller: Exchange["user"], request: IncomingMessage): Exchange["user"] {
    const wanted = impersonationOf(request.headers);
    if (wanted === undefined) return caller;
    const targets = [{ resource: "users", name: wanted.name }, ...wanted.groups.map((name) => ({ resource: "groups", name }))];
    for (const target of targets) {
      const attributes = { kind: "resource", verb: "impersonate", group: "", subresource: "", namespace: "", ...target } as const;
      if (!this.#authorizer.allowed(caller, attributes)) {
        throw ApiError.forbidden({ group: "", plural: target.resource }, target.name, refusal(caller, attributes));
      }
    }
    return { ...wanted, groups: [...wanted.groups, ...groupsOf(wanted)] };
  }

  #failure(thrown: unknown, request: IncomingMessage, gone: AbortSignal): ApiError {
    if (thrown instanceof ApiError) return thrown;
    if (thrown instanceof MeshError && !gone.aborted) return new ApiError(500, "InternalError", thrown.message, {}, thrown);
    const error = ApiError.internal(thrown);
    if (!gone.aborted) this.#log.error("request failed", { method: request.method ?? "", path: (request.url ?? "").slice(0, 200), error });
    return error;
  }
}

const suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789";

/** Five characters without vowels, as generateName appends. */
function nameSuffix(): string {
  return Array.from({ length: 5 }, () => suffixAlphabet.charAt(randomInt(suffixAlphabet.length))).join("");
}
