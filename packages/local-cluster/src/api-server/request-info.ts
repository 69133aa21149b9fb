/** What a request asks for, read from its method and URL alone. */
import { ApiError } from "./api-error.ts";
import type { Attributes } from "./authorization.ts";

export interface ResourceRequest {
  readonly kind: "resource";
  readonly verb: string;
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly subresource: string;
  /** Empty for cluster-scoped objects and for lists over all namespaces. */
  readonly namespace: string;
  readonly name: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

export interface PathRequest {
  readonly kind: "path";
  readonly verb: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

export type RequestInfo = ResourceRequest | PathRequest;

/** Longer URLs are refused unread. */
export const maxUrlLength = 16_384;

/** Throws a 400 for a URL that is none. */
export function parseRequest(method: string, url: string): RequestInfo {
  if (url.length > maxUrlLength) throw new ApiError(414, "RequestURITooLong", "the URL of the request is too long");
  const question = url.indexOf("?");
  const rawPath = question < 0 ? url : url.slice(0, question);
  const query = new URLSearchParams(question < 0 ? "" : url.slice(question + 1));
  const path = rawPath.replace(/^https?:\/\/[^/]*/, "");
  if (!path.startsWith("/")) throw ApiError.badRequest("the URL of the request has no path");
  const parts = path
    .split("/")
    .filter((part) => part !== "")
    .map(decode);
  const other: PathRequest = { kind: "path", verb: method.toLowerCase(), path, query };
  let rest: readonly string[];
  let group = "";
  if (parts[0] === "api" && parts.length >= 3) rest = parts.slice(1);
  else if (parts[0] === "apis" && parts.length >= 4) {
    group = parts[1] ?? "";
    rest = parts.slice(2);
  } else return other;
  const [version = "", ...target] = rest;
  let namespace = "";
  let location = target;
  if (target[0] === "namespaces" && target.length >= 3 && !(target.length === 3 && ["status", "finalize"].includes(target[2] ?? ""))) {
    namespace = target[1] ?? "";
    location = target.slice(2);
  }
  const [plural = "", name = "", ...below] = location;
  if (plural === "namespaces" && name !== "" && group === "") namespace = name;
  return { kind: "resource", verb: verbOf(method, name, query), group, version, plural, subresource: below.join("/"), namespace, name, path, query };
}

function verbOf(method: string, name: string, query: URLSearchParams): string {
  const watching = ["true", "1", ""].includes(query.get("watch") ?? "false");
  switch (method) {
    case "GET":
    case "HEAD":
      if (name !== "" && !watching) return "get";
      return watching ? "watch" : "list";
    case "POST":
      return "create";
    case "PUT":
      return "update";
    case "PATCH":
      return "patch";
    case "DELETE":
      return name === "" ? "deletecollection" : "delete";
    default:
      throw ApiError.methodNotAllowed(method);
  }
}

export function attributesOf(request: RequestInfo): Attributes {
  if (request.kind === "path") return { kind: "path", verb: request.verb === "head" ? "get" : request.verb, path: request.path };
  const { verb, group, plural, subresource, namespace, name, query } = request;
  return { kind: "resource", verb, group, resource: plural, subresource, namespace, name: name === "" ? selectedName(query) : name };
}

/** A list or watch of one object by `metadata.name` is authorized by that name, so that roles with `resourceNames` allow it. */
function selectedName(query: URLSearchParams): string {
  return /(?:^|,)metadata\.name==?([^,=!]+)/.exec(query.get("fieldSelector") ?? "")?.[1] ?? "";
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (thrown) {
    throw new ApiError(400, "BadRequest", "the URL of the request is not properly encoded", {}, thrown);
  }
}
