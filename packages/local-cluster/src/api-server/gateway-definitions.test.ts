import test from "ava";
import { CustomSchema } from "./custom-schema.ts";
import { gatewayDefinitions } from "./gateway-definitions.ts";
import { isObject, type JsonObject } from "./json.ts";

function schemaOf(plural: string): CustomSchema {
  const definition = gatewayDefinitions.find(({ metadata }) => isObject(metadata) && metadata["name"] === `${plural}.gateway.networking.k8s.io`);
  const spec = definition?.["spec"] as { versions: { schema: { openAPIV3Schema: JsonObject } }[] };
  return new CustomSchema(spec.versions[0]?.schema.openAPIV3Schema ?? {});
}

function problems(plural: string, spec: JsonObject): readonly string[] {
  const object = {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "X",
    metadata: { name: "x", namespace: "shop", uid: "u", resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z" },
    spec,
  };
  const schema = schemaOf(plural);
  schema.applyDefaults(object);
  return schema.errors(object).map(({ field }) => field);
}

const rule = (changes: JsonObject): JsonObject => ({ rules: [{ backendRefs: [{ name: "web", port: 80 }], ...changes }] });
const refused: readonly [string, JsonObject][] = [
  ["matches[0].path.type", rule({ matches: [{ path: { type: "Glob", value: "/" } }] })],
  ["matches[0].headers[0].name", rule({ matches: [{ headers: [{ name: "a b", value: "1" }] }] })],
  ["filters[0].type", rule({ filters: [{ type: "Other" }] })],
  ["filters[0].requestRedirect.statusCode", rule({ filters: [{ type: "RequestRedirect", requestRedirect: { statusCode: 200 } }] })],
  ["backendRefs[0].weight", rule({ backendRefs: [{ name: "web", port: 80, weight: -1 }] })],
  ["timeouts.request", rule({ timeouts: { request: "soon" } })],
  ["retry.codes[0]", rule({ retry: { codes: [200] } })],
];
for (const [field, spec] of refused) {
  test(`an HTTPRoute with a ${field} that cannot be is refused by name`, (t) => {
    t.true(
      problems("httproutes", spec).some((found) => found.includes(`spec.rules[0].${field}`)),
      problems("httproutes", spec).join(),
    );
  });
}

test("what the Gateway API has is let in", (t) => {
  const filters = [
    { type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "X-A", value: "1" }], remove: ["b"] } },
    { type: "RequestMirror", requestMirror: { backendRef: { name: "m", port: 80 }, fraction: { numerator: 1, denominator: 1000 } } },
    { type: "URLRewrite", urlRewrite: { path: { type: "ReplacePrefixMatch", replacePrefixMatch: "/" } } },
  ];
  t.deepEqual(problems("httproutes", rule({ filters, timeouts: { request: "10s" }, retry: { codes: [503], attempts: 3, backoff: "100ms" } })), []);
  t.deepEqual(problems("grpcroutes", { rules: [{ matches: [{ method: { service: "a.B", method: "C" } }] }] }), []);
  t.deepEqual(
    problems("referencegrants", { from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: "a" }], to: [{ group: "", kind: "Service" }] }),
    [],
  );
  t.deepEqual(problems("referencegrants", { from: [{ kind: "HTTPRoute" }], to: [] }).length > 0, true);
});
