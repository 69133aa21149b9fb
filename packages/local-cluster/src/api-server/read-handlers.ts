/** get and list. */
import { ApiError } from "./api-error.ts";
import { encodeObject, objectForm, type ResourceExchange, sendJson } from "./exchange.ts";
import type { KubeObject } from "./kube-object.ts";
import { inVersion } from "./object-writer.ts";
import { apiVersionOf, type ResourceType } from "./resource-types.ts";
import { type ObjectPredicate, parseFieldSelector, parseLabelSelector } from "./selectors.ts";
import type { Storage } from "./storage.ts";
import { type IncludedObject, metadataOnly, tableFrom } from "./tables.ts";

/** The largest page, whatever the client asks. */
export const maxPageSize = 10_000;
/** How many paged lists may be under way; the oldest is forgotten first and its client told to start again (410). */
const maxOpenLists = 32;

interface OpenList {
  readonly revision: number;
  readonly items: readonly KubeObject[];
}

/** Serves get and list; remembers the snapshots that paged lists walk through. */
export class Reader {
  readonly #storage: Storage;
  readonly #nowMs: () => number;
  readonly #open = new Map<string, OpenList>();
  #nextList = 0;

  constructor(storage: Storage, nowMs: () => number) {
    this.#storage = storage;
    this.#nowMs = nowMs;
  }

  get(exchange: ResourceExchange): void {
    const { info, type } = exchange;
    const object = this.#storage.get(type.table, info.namespace, info.name);
    if (object === undefined) throw ApiError.notFound(type, info.name);
    this.send(exchange, object, 200);
  }

  /** Answers with one object in the form the client accepts. */
  send(exchange: ResourceExchange, object: KubeObject, code: number): void {
    const { type, request, info } = exchange;
    switch (objectForm(request.headers.accept)) {
      case "table":
        sendJson(
          exchange,
          code,
          tableFrom(
            type,
            [inVersion(object, type)],
            { resourceVersion: object.metadata.resourceVersion },
            { nowMs: this.#nowMs(), include: includedObject(info.query), headers: true },
          ),
        );
        break;
      case "metadata":
        sendJson(exchange, code, metadataOnly(object));
        break;
      default:
        sendJson(exchange, code, encodeObject(object, type));
    }
  }

  list(exchange: ResourceExchange): void {
    const { type, info, request } = exchange;
    const limit = positive(info.query.get("limit"), "limit");
    const page = this.#page(type, info, limit);
    const metadata = {
      resourceVersion: String(page.revision),
      ...(page.next === undefined ? {} : { continue: page.next, remainingItemCount: page.remaining }),
    };
    switch (objectForm(request.headers.accept)) {
      case "table":
        sendJson(
          exchange,
          200,
          tableFrom(
            type,
            page.items.map((object) => inVersion(object, type)),
            metadata,
            { nowMs: this.#nowMs(), include: includedObject(info.query), headers: true },
          ),
        );
        break;
      case "metadata":
        sendJson(exchange, 200, { kind: "PartialObjectMetadataList", apiVersion: "meta.k8s.io/v1", metadata, items: page.items.map(metadataOnly) });
        break;
      default: {
        const head = JSON.stringify({ kind: type.listKind, apiVersion: apiVersionOf(type), metadata });
        sendJson(exchange, 200, `${head.slice(0, -1)},"items":[${page.items.map((object) => encodeObject(object, type)).join(",")}]}\n`);
      }
    }
  }

  #page(
    type: ResourceType,
    info: ResourceExchange["info"],
    limit: number,
  ): { items: readonly KubeObject[]; revision: number; next?: string; remaining: number } {
    const token = info.query.get("continue") ?? "";
    let open: OpenList | undefined;
    let start = 0;
    if (token === "") {
      const matches = selectorOf(type, info);
      const namespace = info.namespace === "" ? undefined : info.namespace;
      open = { revision: this.#storage.revision, items: this.#storage.list(type.table, namespace).filter(matches) };
    } else {
      const [id = "", at = ""] = token.split(".");
      open = this.#open.get(id);
      start = Number(at);
      if (open === undefined || !Number.isSafeInteger(start)) {
        throw ApiError.expired(
          "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        );
      }
    }
    const size = limit === 0 ? Number.MAX_SAFE_INTEGER : Math.min(limit, maxPageSize);
    const items = open.items.slice(start, start + size);
    const remaining = Math.max(0, open.items.length - start - items.length);
    const id = token === "" ? String(this.#nextList++) : (token.split(".")[0] ?? "");
    if (remaining === 0) {
      this.#open.delete(id);
      return { items, revision: open.revision, remaining };
    }
    this.#open.set(id, open);
    const oldest = this.#open.keys().next().value;
    if (this.#open.size > maxOpenLists && oldest !== undefined) this.#open.delete(oldest);
    return { items, revision: open.revision, remaining, next: `${id}.${start + items.length}` };
  }
}

/** The label and field selectors of a request, and its name when it has one, as one predicate. */
export function selectorOf(type: ResourceType, { query, name }: { query: URLSearchParams; name: string }): ObjectPredicate {
  const labels = parseLabelSelector(query.get("labelSelector") ?? "");
  const fields = parseFieldSelector(query.get("fieldSelector") ?? "", type, type.custom?.selectableFields ?? []);
  return (object) => (name === "" || object.metadata.name === name) && labels(object) && fields(object);
}

export function includedObject(query: URLSearchParams): IncludedObject {
  const value = query.get("includeObject");
  return value === "None" || value === "Object" ? value : "Metadata";
}

/** A count from the query; 0 when absent. */
export function positive(text: string | null, name: string): number {
  if (text === null || text === "") return 0;
  if (!/^\d{1,15}$/.test(text)) throw ApiError.badRequest(`${name} must be a positive integer`);
  return Number(text);
}
