/**
 * The OpenAPI v3 documents kubectl needs before it applies: each PATCH declares `fieldValidation` and its patch types, so
 * that kubectl leaves validation to this server. Custom types carry their schemas, which `kubectl explain` reads.
 */
import { createHash } from "node:crypto";
import { virtualResources } from "./discovery.ts";
import type { ResourceType } from "./resource-types.ts";

const applyType = "application/apply-patch+yaml";
/** Strategic merge is left out on purpose: kubectl then computes it from its own built-in types, which it has in full. */
const patchTypes = [applyType, "application/json-patch+json", "application/merge-patch+json"];

/** `/openapi/v3`: one entry per group version; the hash lets clients cache. */
export function openApiIndex(types: readonly ResourceType[]): unknown {
  const paths: Record<string, unknown> = {};
  for (const { group, version } of [...types, ...virtualResources]) {
    const path = pathOf(group, version);
    paths[path] ??= { serverRelativeURL: `/openapi/v3/${path}?hash=${hashOf(openApiDocument(types, path))}` };
  }
  return { paths };
}

/** The document of one group version (`api/v1`, `apis/<group>/<version>`), or nothing for an unknown one. */
export function openApiDocument(types: readonly ResourceType[], path: string): unknown {
  const own = types.filter((type) => pathOf(type.group, type.version) === path);
  if (own.length === 0 && !virtualResources.some((type) => pathOf(type.group, type.version) === path)) return undefined;
  const paths: Record<string, unknown> = {};
  const schemas: Record<string, unknown> = {};
  for (const type of own) {
    const gvk = { group: type.group, version: type.version, kind: type.kind };
    const scope = type.namespaced ? "namespaces/{namespace}/" : "";
    const name = schemaName(type);
    paths[`/${path}/${scope}${type.plural}/{name}`] = {
      get: operation("get", gvk, name),
      put: { ...operation("put", gvk, name), parameters: [fieldValidation] },
      delete: operation("delete", gvk, name),
      patch: {
        ...operation("patch", gvk, name),
        parameters: [fieldValidation, dryRun],
        requestBody: { content: Object.fromEntries(patchTypes.map((mime) => [mime, { schema: { type: "object" } }])) },
      },
      parameters: [{ name: "name", in: "path", required: true, schema: { type: "string", uniqueItems: true } }],
    };
    schemas[name] = schemaOf(type, gvk);
  }
  return { openapi: "3.0.0", info: { title: "Kubernetes", version: "v1.32.0" }, paths, components: { schemas } };
}

export function pathOf(group: string, version: string): string {
  return group === "" ? `api/${version}` : `apis/${group}/${version}`;
}

const fieldValidation = { name: "fieldValidation", in: "query", schema: { type: "string", uniqueItems: true } };
const dryRun = { name: "dryRun", in: "query", schema: { type: "string", uniqueItems: true } };

function operation(action: string, gvk: unknown, schema: string) {
  return {
    "x-kubernetes-action": action,
    "x-kubernetes-group-version-kind": gvk,
    responses: { 200: { description: "OK", content: { "application/json": { schema: { $ref: `#/components/schemas/${schema}` } } } } },
  };
}

function schemaOf(type: ResourceType, gvk: unknown): unknown {
  const base = type.custom?.schema.root ?? { type: "object", "x-kubernetes-preserve-unknown-fields": true };
  return { ...base, "x-kubernetes-group-version-kind": [gvk] };
}

function schemaName(type: ResourceType): string {
  return `${(type.group === "" ? "core" : type.group).split(".").reverse().join(".")}.${type.version}.${type.kind}`;
}

function hashOf(document: unknown): string {
  return createHash("sha256").update(JSON.stringify(document)).digest("hex").slice(0, 32);
}
