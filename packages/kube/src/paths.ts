/** URLs of the Kubernetes API. */
import type { KubeObject, ResourceType, Selection } from "./collection.ts";

/** `/api/v1/namespaces/shop/pods/web-0/status`; all namespaces when `namespace` is undefined. */
export function resourcePath<T extends KubeObject>(
  { group, version, plural, namespaced }: ResourceType<T>,
  at: { namespace?: string | undefined; name?: string; subresource?: string | undefined } = {},
): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const scope = namespaced && at.namespace !== undefined ? `/namespaces/${encodeURIComponent(at.namespace)}` : "";
  const name = at.name === undefined ? "" : `/${encodeURIComponent(at.name)}`;
  return `${root}${scope}/${plural}${name}${at.subresource === undefined ? "" : `/${at.subresource}`}`;
}

/** A query string without empty parameters, or "". */
export function queryOf(parameters: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined && value !== "") query.set(name, String(value));
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

export function selectionQuery({ labelSelector, fieldSelector }: Selection): { labelSelector?: string; fieldSelector?: string } {
  return { ...(labelSelector === undefined ? {} : { labelSelector }), ...(fieldSelector === undefined ? {} : { fieldSelector }) };
}

/** `apps/v1`, or `v1` for the core group. */
export function apiVersionOf({ group, version }: { group: string; version: string }): string {
  return group === "" ? version : `${group}/${version}`;
}
