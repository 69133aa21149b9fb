/** Reads and decodes the body of a request: bounded, JSON or YAML, one document. */
import type { IncomingMessage } from "node:http";
import { parseAllDocuments } from "yaml";
import { ApiError } from "./api-error.ts";
import { checkJson, type Json } from "./json.ts";
import { decodeProtobuf, protobufType } from "./protobuf.ts";

/** As the reference's request limit. */
export const defaultMaxBodyBytes: number = 3 * 1024 * 1024;
/** How often YAML may expand aliases: more is a bomb. */
const maxYamlAliases = 100;

export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const announced = Number(request.headers["content-length"] ?? 0);
  if (announced > maxBytes) throw ApiError.tooLarge(maxBytes);
  const chunks: Buffer[] = [];
  let total = 0;
  // The request must outlive a refusal: destroying it would take the answer along.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk)) continue;
    total += chunk.length;
    if (total > maxBytes) throw ApiError.tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, total);
}

/** The media type without parameters, in lower case. */
export function mediaType(header: string | undefined): string {
  return (header ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** Decodes JSON, or YAML or protobuf when the type says so. Throws 400 for malformed text and 415 for other formats. */
export function decodeBody(bytes: Buffer, type: string): Json {
  if (type === protobufType) return decodeProtobuf(bytes);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (thrown) {
    throw new ApiError(400, "BadRequest", "the body of the request is not UTF-8", {}, thrown);
  }
  if (type.endsWith("yaml") || type === "application/x-yaml") return decodeYaml(text);
  if (type === "" || type.endsWith("json") || type === "*/*") return decodeJson(text);
  throw ApiError.unsupportedMediaType(type);
}

export function decodeJson(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw new ApiError(
      400,
      "BadRequest",
      `the object provided is unrecognized: ${thrown instanceof Error ? thrown.message.slice(0, 200) : "not JSON"}`,
      {},
      thrown,
    );
  }
  checkJson(value);
  return value;
}

export function decodeYaml(text: string): Json {
  let value: unknown;
  try {
    const documents = parseAllDocuments(text, { uniqueKeys: true, logLevel: "silent" });
    const [document, ...rest] = "empty" in documents ? [] : documents;
    if (document === undefined) return null;
    if (rest.length > 0) throw ApiError.badRequest("the body of the request holds more than one YAML document");
    const problem = document.errors[0];
    if (problem !== undefined) throw ApiError.badRequest(`error converting YAML to JSON: ${problem.message.slice(0, 300)}`);
    value = document.toJS({ maxAliasCount: maxYamlAliases });
  } catch (thrown) {
    if (thrown instanceof ApiError) throw thrown;
    throw new ApiError(400, "BadRequest", `error converting YAML to JSON: ${thrown instanceof Error ? thrown.message.slice(0, 300) : "malformed"}`, {}, thrown);
  }
  checkJson(value);
  return value;
}
