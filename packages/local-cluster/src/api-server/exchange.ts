/** One request being answered: who asks for what, in which form, and how the answer is written. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError } from "./api-error.ts";
import type { User } from "./authentication.ts";
import type { Json } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import { inVersion } from "./object-writer.ts";
import { decodeBody, mediaType, readBody } from "./request-body.ts";
import type { ResourceRequest } from "./request-info.ts";
import type { ResourceType } from "./resource-types.ts";

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly user: User;
  /** Aborts when the client is gone or the server closes. */
  readonly signal: AbortSignal;
  readonly maxBodyBytes: number;
  /** Warnings for the client, sent as headers with the answer. */
  readonly warnings: string[];
}

/** An exchange about objects of one type. */
export interface ResourceExchange extends Exchange {
  readonly info: ResourceRequest;
  readonly type: ResourceType;
}

/** The forms a client may ask objects in. */
export type ObjectForm = "object" | "table" | "metadata";

/** Longer lists of alternatives are not read. */
const maxAlternatives = 32;

/** What the Accept header asks for; 406 when none of it is JSON. */
export function objectForm(accept: string | undefined): ObjectForm {
  const alternatives = acceptedTypes(accept);
  for (const { type, parameters } of alternatives) {
    if (type !== "application/json" && type !== "application/*" && type !== "*/*") continue;
    const as = parameters.get("as");
    if (as === undefined) return "object";
    if (parameters.get("v") !== undefined && parameters.get("v") !== "v1") continue;
    if (as === "Table") return "table";
    if (as.startsWith("PartialObjectMetadata")) return "metadata";
  }
  if (alternatives.length === 0 || alternatives.some(({ type }) => type.startsWith("text/"))) return "object";
  throw new ApiError(406, "NotAcceptable", "only the following media types are accepted: application/json");
}

export function acceptedTypes(accept: string | undefined): readonly { type: string; parameters: ReadonlyMap<string, string> }[] {
  return (accept ?? "")
    .split(",", maxAlternatives)
    .filter((part) => part.trim() !== "")
    .map((part) => {
      const [type = "", ...parameters] = part.split(";").map((text) => text.trim());
      return { type: type.toLowerCase(), parameters: new Map(parameters.map((text) => [text.split("=", 1)[0] ?? "", text.slice(text.indexOf("=") + 1)])) };
    });
}

/** Reads and decodes the body; undefined when there is none. */
export async function bodyOf(exchange: Exchange): Promise<Json | undefined> {
  const bytes = await readBody(exchange.request, exchange.maxBodyBytes);
  return bytes.length === 0 ? undefined : decodeBody(bytes, mediaType(exchange.request.headers["content-type"]));
}

/** Like `bodyOf`, for requests that must have a body. */
export async function neededBody(exchange: Exchange): Promise<Json> {
  const body = await bodyOf(exchange);
  if (body === undefined) throw ApiError.badRequest("the body of the request is empty");
  return body;
}

export function sendJson(exchange: Pick<Exchange, "response" | "warnings">, code: number, body: unknown, contentType = "application/json"): void {
  sendText(exchange, code, typeof body === "string" ? body : `${JSON.stringify(body)}\n`, contentType);
}

export function sendText({ response, warnings }: Pick<Exchange, "response" | "warnings">, code: number, text: string, contentType: string): void {
  if (response.headersSent || response.destroyed) return;
  const bytes = Buffer.from(text);
  if (warnings.length > 0)
    response.setHeader(
      "warning",
      warnings.map((message) => `299 - ${quoted(message)}`),
    );
  response.writeHead(code, {
    "content-type": contentType,
    "content-length": bytes.length,
    "cache-control": "no-cache, private",
  });
  response.end(bytes);
}

/** Writes a failure, or ends a stream that already began. */
export function sendError(exchange: Pick<Exchange, "response" | "warnings">, error: ApiError): void {
  if (exchange.response.headersSent) exchange.response.destroy();
  else sendJson(exchange, error.httpCode, error.status());
}

const encodedObjects = new WeakMap<KubeObject, string>();

/** The JSON text of a stored object, encoded once however many clients watch it. */
export function encodeObject(object: KubeObject, type: ResourceType): string {
  const versioned = inVersion(object, type);
  let text = encodedObjects.get(versioned);
  if (text === undefined) {
    text = JSON.stringify(versioned);
    encodedObjects.set(versioned, text);
  }
  return text;
}

function quoted(message: string): string {
  return `"${message
    .replace(/[^\x20-\x7e]/g, "?")
    .replace(/["\\]/g, "\\$&")
    .slice(0, 500)}"`;
}
