/** From a request to its handler: the paths that are not objects, then types by verb and subresource. */
import { ApiError } from "./api-error.ts";
import { aggregated, legacyGroup, legacyGroups, legacyResources, legacyVersions, virtualResources } from "./discovery.ts";
import { acceptedTypes, type Exchange, type ResourceExchange, sendJson, sendText } from "./exchange.ts";
import type { KubeletGateway } from "./kubelet-gateway.ts";
import { serveLog } from "./log-handler.ts";
import { openApiDocument, openApiIndex } from "./openapi.ts";
import type { Reader } from "./read-handlers.ts";
import type { PathRequest, ResourceRequest } from "./request-info.ts";
import type { ResourceTypes } from "./resource-types.ts";
import type { ReviewHandlers } from "./review-handlers.ts";
import type { TokenIssuer } from "./service-account-token.ts";
import type { Storage } from "./storage.ts";
import type { SubresourceHandlers } from "./subresource-handlers.ts";
import type { Watcher } from "./watch-handler.ts";
import type { WriteHandlers } from "./write-handlers.ts";

export interface RouterOptions {
  readonly types: ResourceTypes;
  readonly storage: Storage;
  readonly reader: Reader;
  readonly watcher: Watcher;
  readonly writes: WriteHandlers;
  readonly subresources: SubresourceHandlers;
  readonly reviews: ReviewHandlers;
  readonly issuer: TokenIssuer;
  readonly gateway: KubeletGateway;
  readonly nowMs: () => number;
}

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/** The version this server says it is; features follow kubectl 1.32. */
export const serverVersion = {
  major: "1",
  minor: "32",
  gitVersion: "v1.32.0-fairway",
  gitCommit: "",
  gitTreeState: "clean",
  buildDate: "1970-01-01T00:00:00Z",
  goVersion: "",
  compiler: "",
  platform: "linux",
};

export class Router {
  readonly #options: RouterOptions;

  constructor(options: RouterOptions) {
    this.#options = options;
  }

  /** The type a resource request is about. Throws the 404 that means "no such type". */
  typeOf({ group, version, plural, namespace, subresource }: ResourceRequest): ResourceExchange["type"] {
    const type = this.#options.types.find(group, version, plural);
    if (type === undefined || (!type.namespaced && namespace !== "" && type.table !== "namespaces")) throw ApiError.noResource();
    if (subresource !== "" && !type.subresources.has(subresource)) throw ApiError.noResource();
    return type;
  }

  async resource(exchange: Exchange, info: ResourceRequest): Promise<void> {
    const { reviews, subresources, gateway, storage } = this.#options;
    const virtual = virtualResources.some((type) => type.group === info.group && type.version === info.version && type.plural === info.plural);
    if (virtual) {
      if (info.verb !== "create" || info.name !== "") throw ApiError.methodNotAllowed(info.verb);
      await reviews.answer(exchange, info.plural);
      return;
    }
    const type = this.typeOf(info);
    // For authorization a namespace is in itself; in storage it is in none.
    const target: ResourceExchange = { ...exchange, info: type.namespaced ? info : { ...info, namespace: "" }, type };
    switch (info.subresource) {
      case "":
      case "status":
        return await this.#object(target);
      case "scale":
        return await subresources.scale(target);
      case "log": {
        if (info.verb !== "get") throw ApiError.methodNotAllowed(info.verb);
        const pod = storage.get("pods", info.namespace, info.name);
        if (pod === undefined) throw ApiError.notFound(target.type, info.name);
        return await serveLog(target, pod, gateway, this.#options.nowMs());
      }
      case "exec":
      case "attach":
      case "portforward":
        throw ApiError.badRequest("this subresource needs a WebSocket upgrade");
      default:
    }
    if (info.verb !== "create" && !(info.subresource === "finalize" && info.verb === "update")) throw ApiError.methodNotAllowed(info.verb);
    switch (info.subresource) {
      case "token":
        return await subresources.token(target);
      case "binding":
        return await subresources.binding(target);
      case "eviction":
        return await subresources.eviction(target);
      default:
        return await subresources.finalize(target);
    }
  }

  async #object(exchange: ResourceExchange): Promise<void> {
    const { reader, watcher, writes } = this.#options;
    const { verb, subresource } = exchange.info;
    if (subresource === "status" && !["get", "update", "patch"].includes(verb)) throw ApiError.methodNotAllowed(verb);
    switch (verb) {
      case "get":
        return reader.get(exchange);
      case "list":
        return reader.list(exchange);
      case "watch":
        return await watcher.watch(exchange);
      case "create":
        return await writes.create(exchange);
      case "update":
        if (exchange.info.name === "") throw ApiError.methodNotAllowed("PUT");
        return await writes.update(exchange);
      case "patch":
        if (exchange.info.name === "") throw ApiError.methodNotAllowed("PATCH");
        return await writes.patch(exchange);
      case "delete":
        return await writes.delete(exchange);
      default:
        return await writes.deleteCollection(exchange);
    }
  }

  path(exchange: Exchange, { path, verb }: PathRequest): void {
    if (verb !== "get" && verb !== "head") throw ApiError.methodNotAllowed(verb.toUpperCase());
    const clean = path.length > 1 ? path.replace(/\/+$/, "") : path;
    if (clean === "/healthz" || clean === "/livez" || clean === "/readyz") {
      sendText(exchange, 200, "ok", "text/plain; charset=utf-8");
    } else if ((clean === "/api" || clean === "/apis") && wantsAggregated(exchange)) {
      sendJson(exchange, 200, aggregated(this.#options.types.all(), clean === "/api"), aggregatedType);
    } else {
      const document = this.#document(clean);
      if (document === undefined) throw ApiError.noResource();
      sendJson(exchange, 200, document);
    }
  }

  /** The document at a path, or nothing. */
  #document(path: string): unknown {
    const { types, issuer } = this.#options;
    const known = types.all();
    switch (path) {
      case "/":
        return { paths: ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"] };
      case "/version":
        return serverVersion;
      case "/api":
        return legacyVersions();
      case "/apis":
        return legacyGroups(known);
      case "/openapi/v3":
        return openApiIndex(known);
      case "/.well-known/openid-configuration":
        return {
          issuer: issuer.issuer,
          jwks_uri: `${issuer.issuer}/openid/v1/jwks`,
          response_types_supported: ["id_token"],
          subject_types_supported: ["public"],
          id_token_signing_alg_values_supported: ["ES256"],
        };
      case "/openid/v1/jwks":
        return issuer.keySet();
      default:
    }
    if (path.startsWith("/openapi/v3/")) return openApiDocument(known, path.slice("/openapi/v3/".length));
    const [root, first = "", second, ...rest] = path.split("/").slice(1);
    if (rest.length > 0) return undefined;
    if (root === "api" && second === undefined) return legacyResources(known, "", first);
    if (root === "apis") return second === undefined ? legacyGroup(known, first) : legacyResources(known, first, second);
    return undefined;
  }
}

function wantsAggregated({ request }: Exchange): boolean {
  const wanted = acceptedTypes(request.headers.accept).find(({ type }) => type === "application/json");
  return (
    wanted?.parameters.get("as") === "APIGroupDiscoveryList" && wanted.parameters.get("v") === "v2" && wanted.parameters.get("g") === "apidiscovery.k8s.io"
  );
}
