import test from "ava";
import { ApiError } from "./api-error.ts";
import { CustomSchema } from "./custom-schema.ts";
import type { JsonObject } from "./json.ts";
import { readJsonPath } from "./json-path.ts";
import type { KubeObject } from "./kube-object.ts";
import { fieldsOf, referencedShapes } from "./shapes.ts";

const widget = (spec: JsonObject): KubeObject => ({
  apiVersion: "x.io/v1",
  kind: "Widget",
  metadata: { name: "w", uid: "", resourceVersion: "", creationTimestamp: "" },
  spec,
});

const schema = new CustomSchema({
  type: "object",
  properties: {
    spec: {
      type: "object",
      required: ["size"],
      properties: {
        size: { type: "integer", minimum: 1, maximum: 10, exclusiveMaximum: true },
        color: { type: "string", enum: ["red", "blue"], default: "red" },
        port: { "x-kubernetes-int-or-string": true },
        note: { type: "string", nullable: true },
        open: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        rules: {
          type: "array",
          items: { type: "object", properties: { name: { type: "string" }, weight: { type: "integer", default: 1 } }, required: ["name"] },
        },
        labels: { type: "object", additionalProperties: { type: "string" } },
      },
    },
  },
});

test("defaults are filled in, below lists too", (t) => {
  const object = widget({ size: 1, rules: [{ name: "a" }, { name: "b", weight: 5 }] });
  schema.applyDefaults(object);
  t.deepEqual(object["spec"], {
    size: 1,
    color: "red",
    rules: [
      { name: "a", weight: 1 },
      { name: "b", weight: 5 },
    ],
  });
});

test("unknown fields are removed and named, except where the schema keeps them", (t) => {
  const object = widget({ size: 1, typo: 1, open: { any: { thing: 1 } }, rules: [{ name: "a", wait: 2 }], labels: { x: "y" } });
  t.deepEqual(schema.prune(object), ["spec.typo", "spec.rules[0].wait"]);
  t.deepEqual(object["spec"], { size: 1, open: { any: { thing: 1 } }, rules: [{ name: "a" }], labels: { x: "y" } });
});

test("validation names the field and what is wrong with it", (t) => {
  const cases: [JsonObject, string, string][] = [
    [{}, "spec.size", "FieldValueRequired"],
    [{ size: 0 }, "spec.size", "FieldValueInvalid"],
    [{ size: 10 }, "spec.size", "FieldValueInvalid"],
    [{ size: "1" }, "spec.size", "FieldValueTypeInvalid"],
    [{ size: 1, color: "green" }, "spec.color", "FieldValueNotSupported"],
    [{ size: 1, port: true }, "spec.port", "FieldValueTypeInvalid"],
    [{ size: 1, rules: [{}] }, "spec.rules[0].name", "FieldValueRequired"],
    [{ size: 1, labels: { a: 1 } }, "spec.labels.a", "FieldValueTypeInvalid"],
  ];
  for (const [spec, field, kind] of cases) {
    const [error] = schema.errors(widget(spec));
    t.is(error?.field, field, JSON.stringify(spec));
    t.is<string | undefined, string>(error?.kind, kind, JSON.stringify(spec));
  }
  for (const spec of [
    { size: 1, note: null },
    { size: 9, port: "80" },
    { size: 9, port: 80 },
  ])
    t.deepEqual(schema.errors(widget(spec)), []);
});

test("a schema that does not compile is refused", (t) => {
  t.throws(() => new CustomSchema({ type: "object", properties: { a: { type: "string", pattern: "(" } } }), { instanceOf: ApiError });
});

test("every shape that a built-in field refers to exists", (t) => {
  for (const shape of referencedShapes()) t.not(fieldsOf(shape), undefined, shape);
});

test("printer columns read the JSONPath people write, and nothing from paths that are none", (t) => {
  const object = {
    spec: { hosts: ["a", "b"], "x.y": { z: 1 } },
    metadata: { labels: { "istio.io/rev": "r" } },
    status: {
      conditions: [
        { type: "Ready", status: "True" },
        { type: "Programmed", status: "False" },
      ],
    },
  };
  const cases: [string, unknown[]][] = [
    [".spec.hosts", [["a", "b"]]],
    [".spec.hosts[*]", ["a", "b"]],
    [".spec.hosts[1]", ["b"]],
    ['.status.conditions[?(@.type=="Programmed")].status', ["False"]],
    ["$.spec['x.y'].z", [1]],
    [".metadata.labels.istio\\.io/rev", ["r"]],
    ["spec.hosts[0]", ["a"]],
    [".spec.missing.deep", []],
    [".spec.constructor", []],
    [".spec[(evil)]", []],
  ];
  for (const [path, expected] of cases) t.deepEqual([...readJsonPath(object, path)], expected, path);
});
