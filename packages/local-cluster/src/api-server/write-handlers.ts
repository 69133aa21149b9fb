/** create, update, patch, delete and deletecollection of whole objects and of their status. */
import type { Clock } from "@fairway/runtime";
import { ApiError } from "./api-error.ts";
import { deleteObject, parseDeleteOptions } from "./deletion.ts";
import { bodyOf, neededBody, type ResourceExchange, sendJson } from "./exchange.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { mergeSchemaOf } from "./merge-schema.ts";
import { inVersion, type ObjectWriter, type WriteOptions } from "./object-writer.ts";
import { jsonPatch } from "./patch/json-patch.ts";
import { mergePatch } from "./patch/merge-patch.ts";
import { strategicPatch } from "./patch/strategic-patch.ts";
import { type Reader, selectorOf } from "./read-handlers.ts";
import { mediaType } from "./request-body.ts";
import { apiVersionOf } from "./resource-types.ts";
import type { Storage } from "./storage.ts";

export interface WriteHandlersOptions {
  readonly storage: Storage;
  readonly writer: ObjectWriter;
  readonly reader: Reader;
  readonly clock: Clock;
}

export class WriteHandlers {
  readonly #storage: Storage;
  readonly #writer: ObjectWriter;
  readonly #reader: Reader;
  readonly #clock: Clock;

  constructor({ storage, writer, reader, clock }: WriteHandlersOptions) {
    this.#storage = storage;
    this.#writer = writer;
    this.#reader = reader;
    this.#clock = clock;
  }

  async create(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    if (info.name !== "") throw ApiError.methodNotAllowed("POST");
    const body = await neededBody(exchange);
    const named = isObject(body) && isObject(body["metadata"]) ? body["metadata"]["namespace"] : undefined;
    const namespace = info.namespace !== "" || typeof named !== "string" ? info.namespace : named;
    if (type.namespaced && info.namespace === "") throw ApiError.badRequest("an empty namespace may not be set during creation");
    this.#reader.send(exchange, this.#writer.create(type, namespace, body, writeOptions(exchange)), 201);
  }

  async update(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    const body = await neededBody(exchange);
    this.#reader.send(exchange, this.#writer.update(type, info.namespace, info.name, body, writeOptions(exchange)), 200);
  }

  async patch(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    const format = mediaType(exchange.request.headers["content-type"]);
    const body = await neededBody(exchange);
    const options = writeOptions(exchange);
    if (format.startsWith("application/apply-patch+")) {
      if ((info.query.get("fieldManager") ?? "") === "")
        throw ApiError.badRequest('PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch');
      const force = info.query.get("force") === "true" || info.query.get("force") === "1";
      const { object, created } = this.#writer.apply(type, info.namespace, info.name, body, { ...options, force });
      this.#reader.send(exchange, object, created ? 201 : 200);
      return;
    }
    const patch = patchFunction(exchange, format, body);
    this.#reader.send(exchange, this.#writer.patch(type, info.namespace, info.name, patch, options), 200);
  }

  async delete(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    const options = parseDeleteOptions(await bodyOf(exchange), info.query);
    const live = this.#storage.get(type.table, info.namespace, info.name);
    if (live === undefined) throw ApiError.notFound(type, info.name);
    const { object, gone } = deleteObject(this.#storage, type, live, options, this.#clock.now());
    if (!gone || type.table === "pods") this.#reader.send(exchange, object, 200);
    else {
      const details = { name: info.name, ...(type.group === "" ? {} : { group: type.group }), kind: type.plural, uid: object.metadata.uid };
      sendJson(exchange, 200, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", details });
    }
  }

  async deleteCollection(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    if (type.namespaced && info.namespace === "") throw ApiError.methodNotAllowed("DELETE");
    const options = parseDeleteOptions(await bodyOf(exchange), info.query);
    const matches = selectorOf(type, info);
    const found = this.#storage.list(type.table, type.namespaced ? info.namespace : undefined).filter(matches);
    const now = this.#clock.now();
    const items = found.map((live) => inVersion(deleteObject(this.#storage, type, live, options, now).object, type));
    sendJson(exchange, 200, { kind: type.listKind, apiVersion: apiVersionOf(type), metadata: { resourceVersion: String(this.#storage.revision) }, items });
  }
}

/** The function a patch body is, by its content type. */
export function patchFunction(exchange: ResourceExchange, format: string, body: Json): (live: JsonObject) => unknown {
  switch (format) {
    case "application/merge-patch+json":
      return (live) => mergePatch(live, body);
    case "application/json-patch+json":
      return (live) => jsonPatch(live, body);
    case "application/strategic-merge-patch+json": {
      if (exchange.type.custom !== undefined) throw ApiError.unsupportedMediaType(format);
      return (live) => strategicPatch(live, body, mergeSchemaOf(exchange.type));
    }
    default:
      throw ApiError.unsupportedMediaType(format);
  }
}

/** What the query and the headers say about a write. Throws a 400 for values that are none. */
export function writeOptions({ info, request, warnings }: ResourceExchange): WriteOptions {
  const { query } = info;
  const validation = query.get("fieldValidation") ?? "";
  if (validation !== "" && validation !== "Strict" && validation !== "Warn" && validation !== "Ignore")
    throw ApiError.badRequest("fieldValidation must be Ignore, Warn or Strict");
  const dryRun = query.getAll("dryRun");
  if (dryRun.some((value) => value !== "All")) throw ApiError.badRequest("dryRun must be All");
  const manager = query.get("fieldManager") ?? "";
  if (manager.length > 128) throw ApiError.badRequest("fieldManager may not be longer than 128 bytes");
  const agent = request.headers["user-agent"]?.split("/", 1)[0]?.slice(0, 128) ?? "";
  return {
    fieldManager: manager !== "" ? manager : agent !== "" ? agent : "unknown",
    subresource: info.subresource,
    dryRun: dryRun.length > 0,
    fieldValidation: validation === "" ? "Warn" : validation,
    warn: (message) => {
      if (warnings.length < 20) warnings.push(message);
    },
  };
}
