/**
 * Definitions equivalent to the Gateway API's, for the embedded server only: the same groups, versions, names, subresources and
 * columns, with the parts validated that every user gets wrong first. On a real cluster the user installs the real ones.
 */
import type { JsonObject } from "./json.ts";

const open: JsonObject = { type: "object", "x-kubernetes-preserve-unknown-fields": true };
const text = (limit = 253): JsonObject => ({ type: "string", minLength: 1, maxLength: limit });
const port: JsonObject = { type: "integer", format: "int32", minimum: 1, maximum: 65535 };
const list = (items: JsonObject, extra: JsonObject = {}): JsonObject => ({ type: "array", items, ...extra });
const keyed = (items: JsonObject, keys: string[], extra: JsonObject = {}): JsonObject =>
  list(items, { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, ...extra });
const object = (properties: JsonObject, required: string[] = []): JsonObject => ({ ...open, properties, ...(required.length === 0 ? {} : { required }) });

const condition = object(
  {
    type: text(316),
    status: { type: "string", enum: ["True", "False", "Unknown"] },
    observedGeneration: { type: "integer", format: "int64", minimum: 0 },
    lastTransitionTime: { type: "string", format: "date-time" },
    reason: text(1024),
    message: { type: "string", maxLength: 32_768 },
  },
  ["type", "status", "lastTransitionTime", "reason", "message"],
);
const conditions = keyed(condition, ["type"], { maxItems: 8 });
const defaultedGroup: JsonObject = { type: "string", default: "gateway.networking.k8s.io" };

const parentReference = object(
  { group: defaultedGroup, kind: { type: "string", default: "Gateway" }, namespace: text(63), name: text(), sectionName: text(), port },
  ["name"],
);
const backendReference = object(
  {
    group: { type: "string", default: "" },
    kind: { type: "string", default: "Service" },
    name: text(),
    namespace: text(63),
    port,
    weight: { type: "integer", format: "int32", minimum: 0, maximum: 1_000_000, default: 1 },
    filters: list(open),
  },
  ["name"],
);
const mirrorReference = object(
  { group: { type: "string", default: "" }, kind: { type: "string", default: "Service" }, name: text(), namespace: text(63), port },
  ["name"],
);
const routeStatus = object({ parents: list(object({ parentRef: parentReference, controllerName: text(), conditions }, ["parentRef", "controllerName"])) });
const hostnames = list(text(), { maxItems: 16 });
const parentReferences = list(parentReference, { maxItems: 32 });
const sectionName = text();

const gatewayClassSpec = object({ controllerName: text(), description: { type: "string", maxLength: 64 }, parametersRef: open }, ["controllerName"]);
const listener = object(
  {
    name: text(),
    hostname: text(),
    port,
    protocol: text(255),
    tls: open,
    allowedRoutes: {
      ...object({
        namespaces: { ...object({ from: { type: "string", enum: ["All", "Selector", "Same", "None"], default: "Same" } }), default: { from: "Same" } },
      }),
      default: { namespaces: { from: "Same" } },
    },
  },
  ["name", "port", "protocol"],
);
const gatewaySpec = object(
  {
    gatewayClassName: text(),
    listeners: keyed(listener, ["name"], { minItems: 1, maxItems: 64 }),
    addresses: list(open, { maxItems: 16 }),
    infrastructure: open,
  },
  ["gatewayClassName", "listeners"],
);
const gatewayStatus = object({
  addresses: list(object({ type: { type: "string", default: "IPAddress" }, value: text() }, ["value"])),
  conditions,
  listeners: keyed(
    object({ name: sectionName, attachedRoutes: { type: "integer", format: "int32" }, supportedKinds: list(open), conditions }, [
      "name",
      "attachedRoutes",
      "conditions",
    ]),
    ["name"],
  ),
});

const headerName: JsonObject = { ...text(256), pattern: "^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$" };
const duration: JsonObject = { type: "string", pattern: "^([0-9]{1,5}(h|m|s|ms)){1,4}$" };
const valueMatch = (name: JsonObject, valueLength: number): JsonObject =>
  keyed(
    object({ type: { type: "string", enum: ["Exact", "RegularExpression"], default: "Exact" }, name, value: text(valueLength) }, ["name", "value"]),
    ["name"],
    {
      maxItems: 16,
    },
  );
const httpMatch = object({
  path: {
    ...object({
      type: { type: "string", enum: ["Exact", "PathPrefix", "RegularExpression"], default: "PathPrefix" },
      value: { type: "string", maxLength: 1024, default: "/" },
    }),
    default: { type: "PathPrefix", value: "/" },
  },
  headers: valueMatch(headerName, 4096),
  queryParams: valueMatch(headerName, 1024),
  method: { type: "string", enum: ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] },
});
const headerChange = keyed(object({ name: headerName, value: text(4096) }, ["name", "value"]), ["name"], { maxItems: 16 });
const headerFilter = object({ set: headerChange, add: headerChange, remove: list({ type: "string" }, { maxItems: 16 }) });
const pathModifier = object(
  {
    type: { type: "string", enum: ["ReplaceFullPath", "ReplacePrefixMatch"] },
    replaceFullPath: { type: "string", maxLength: 1024 },
    replacePrefixMatch: { type: "string", maxLength: 1024 },
  },
  ["type"],
);
const percent: JsonObject = { type: "integer", format: "int32", minimum: 0, maximum: 100 };
const filter = (types: string[]): JsonObject =>
  object(
    {
      type: { type: "string", enum: types },
      requestHeaderModifier: headerFilter,
      responseHeaderModifier: headerFilter,
      requestMirror: object(
        {
          backendRef: mirrorReference,
          percent,
          fraction: object({ numerator: { ...percent, maximum: 2_147_483_647 }, denominator: { type: "integer", format: "int32", minimum: 1, default: 100 } }, [
            "numerator",
          ]),
        },
        ["backendRef"],
      ),
      requestRedirect: object({
        scheme: { type: "string", enum: ["http", "https"] },
        hostname: text(),
        path: pathModifier,
        port,
        statusCode: { type: "integer", enum: [301, 302, 303, 307, 308], default: 302 },
      }),
      urlRewrite: object({ hostname: text(), path: pathModifier }),
    },
    ["type"],
  );
const httpRule = object({
  name: sectionName,
  matches: list(httpMatch, { maxItems: 64, default: [{ path: { type: "PathPrefix", value: "/" } }] }),
  filters: list(filter(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExtensionRef"]), {
    maxItems: 16,
  }),
  backendRefs: list(backendReference, { maxItems: 16 }),
  timeouts: object({ request: duration, backendRequest: duration }),
  retry: object({
    codes: list({ type: "integer", minimum: 400, maximum: 599 }, { maxItems: 16 }),
    attempts: { type: "integer" },
    backoff: duration,
  }),
});
const grpcRule = object({
  name: sectionName,
  matches: list(
    object({
      method: object({
        type: { type: "string", enum: ["Exact", "RegularExpression"], default: "Exact" },
        service: { type: "string", maxLength: 1024 },
        method: { type: "string", maxLength: 1024 },
      }),
      headers: valueMatch(headerName, 4096),
    }),
    { maxItems: 64 },
  ),
  filters: list(filter(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]), { maxItems: 16 }),
  backendRefs: list(backendReference, { maxItems: 16 }),
});
const routeSpec = (rule: JsonObject, rules: JsonObject): JsonObject =>
  object({ parentRefs: parentReferences, hostnames, rules: list(rule, { maxItems: 16, ...rules }) });

const column = (name: string, jsonPath: string, type = "string"): JsonObject => ({ name, type, jsonPath });
const ageColumn = column("Age", ".metadata.creationTimestamp", "date");

interface Names {
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: string[];
  readonly cluster?: boolean;
  readonly versions: readonly string[];
}

function definition(
  { kind, plural, shortNames, cluster = false, versions }: Names,
  spec: JsonObject,
  status: JsonObject | undefined,
  columns: JsonObject[],
): JsonObject {
  return {
    metadata: {
      name: `${plural}.gateway.networking.k8s.io`,
      annotations: { "gateway.networking.k8s.io/bundle-version": "v1.3.0", "gateway.networking.k8s.io/channel": "standard" },
    },
    spec: {
      group: "gateway.networking.k8s.io",
      names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase(), shortNames, categories: ["gateway-api"] },
      conversion: { strategy: "None" },
      scope: cluster ? "Cluster" : "Namespaced",
      versions: versions.map((name, index) => ({
        name,
        served: true,
        storage: index === 0,
        schema: {
          openAPIV3Schema: {
            type: "object",
            properties: {
              apiVersion: { type: "string" },
              kind: { type: "string" },
              metadata: { type: "object" },
              spec,
              ...(status === undefined ? {} : { status }),
            },
            required: ["spec"],
          },
        },
        ...(status === undefined ? {} : { subresources: { status: {} } }),
        additionalPrinterColumns: columns,
      })),
    },
  };
}

/** GatewayClass, Gateway, HTTPRoute, GRPCRoute and ReferenceGrant. */
export const gatewayDefinitions: readonly JsonObject[] = [
  definition(
    { kind: "GatewayClass", plural: "gatewayclasses", shortNames: ["gc"], cluster: true, versions: ["v1", "v1beta1"] },
    gatewayClassSpec,
    object({ conditions, supportedFeatures: list(open) }),
    [column("Controller", ".spec.controllerName"), column("Accepted", '.status.conditions[?(@.type=="Accepted")].status'), ageColumn],
  ),
  definition({ kind: "Gateway", plural: "gateways", shortNames: ["gtw"], versions: ["v1", "v1beta1"] }, gatewaySpec, gatewayStatus, [
    column("Class", ".spec.gatewayClassName"),
    column("Address", ".status.addresses[*].value"),
    column("Programmed", '.status.conditions[?(@.type=="Programmed")].status'),
    ageColumn,
  ]),
  definition(
    { kind: "HTTPRoute", plural: "httproutes", shortNames: [], versions: ["v1", "v1beta1"] },
    routeSpec(httpRule, { default: [{ matches: [{ path: { type: "PathPrefix", value: "/" } }] }] }),
    routeStatus,
    [column("Hostnames", ".spec.hostnames"), ageColumn],
  ),
  definition({ kind: "GRPCRoute", plural: "grpcroutes", shortNames: [], versions: ["v1"] }, routeSpec(grpcRule, {}), routeStatus, [
    column("Hostnames", ".spec.hostnames"),
    ageColumn,
  ]),
  definition(
    { kind: "ReferenceGrant", plural: "referencegrants", shortNames: ["refgrant"], versions: ["v1beta1", "v1"] },
    object(
      {
        from: list(object({ group: { type: "string", maxLength: 253 }, kind: text(63), namespace: text(63) }, ["group", "kind", "namespace"]), {
          minItems: 1,
          maxItems: 16,
        }),
        to: list(object({ group: { type: "string", maxLength: 253 }, kind: text(63), name: text() }, ["group", "kind"]), { minItems: 1, maxItems: 16 }),
      },
      ["from", "to"],
    ),
    undefined,
    [ageColumn],
  ),
];
