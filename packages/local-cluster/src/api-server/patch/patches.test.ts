import test from "ava";
import { ApiError } from "../api-error.ts";
import type { JsonObject } from "../json.ts";
import { type MergeSchema, mergeSchemaOf } from "../merge-schema.ts";
import { ResourceTypes } from "../resource-types.ts";
import { jsonPatch } from "./json-patch.ts";
import { mergePatch } from "./merge-patch.ts";
import { strategicPatch } from "./strategic-patch.ts";

function schemaOf(group: string, plural: string): MergeSchema {
  const type = new ResourceTypes().find(group, "v1", plural);
  if (type === undefined) throw new Error("no such type");
  return mergeSchemaOf(type);
}

test("a merge patch removes by null, replaces lists and merges objects", (t) => {
  const target = { a: 1, b: { c: 2, d: 3 }, e: [1, 2] };
  t.deepEqual(mergePatch(target, { a: null, b: { c: 4 }, e: [9] }), { b: { c: 4, d: 3 }, e: [9] });
  t.deepEqual(target, { a: 1, b: { c: 2, d: 3 }, e: [1, 2] }, "the target is not changed");
  t.deepEqual(mergePatch({ a: "text" }, { a: { b: null, c: 1 } }), { a: { c: 1 } });
});

test("a JSON patch adds, removes, replaces, moves, copies and tests", (t) => {
  const operations = [
    { op: "test", path: "/a/b", value: 1 },
    { op: "add", path: "/list/1", value: "x" },
    { op: "add", path: "/list/-", value: "y" },
    { op: "remove", path: "/list/0" },
    { op: "replace", path: "/a/b", value: 2 },
    { op: "copy", from: "/a", path: "/c" },
    { op: "move", from: "/a", path: "/d~1e" },
  ];
  t.deepEqual(jsonPatch({ a: { b: 1 }, list: ["0", "2"] }, operations), { list: ["x", "2", "y"], c: { b: 2 }, "d/e": { b: 2 } });
});

test("a JSON patch that does not fit is refused and names why", (t) => {
  const cases: [JsonObject[], number][] = [
    [[{ op: "remove", path: "/missing" }], 422],
    [[{ op: "test", path: "/a", value: 2 }], 422],
    [[{ op: "add", path: "/a/b/c", value: 1 }], 422],
    [[{ op: "add", path: "no-slash", value: 1 }], 400],
    [[{ op: "add", path: "/__proto__/x", value: 1 }], 400],
    [[{ op: "fly", path: "/a" }], 400],
    [[{ op: "add", path: "/list/9", value: 1 }], 422],
    [[{ op: "move", from: "/o", path: "/o/in" }], 422],
  ];
  for (const [operations, code] of cases) {
    const error = t.throws(() => jsonPatch({ a: 1, list: [], o: {} }, operations), { instanceOf: ApiError });
    t.is(error?.httpCode, code, JSON.stringify(operations));
  }
});

test("copies cannot grow a document without bound", (t) => {
  const operations = Array.from({ length: 60 }, () => ({ op: "copy", from: "/a", path: "/a/-" }));
  const error = t.throws(() => jsonPatch({ a: ["seed", "seed", "seed"] }, operations), { instanceOf: ApiError });
  t.is(error?.httpCode, 413);
});

test("a strategic patch merges containers by name and their environment by name", (t) => {
  const target = {
    spec: {
      template: {
        spec: {
          containers: [
            { name: "a", image: "a:1", env: [{ name: "X", value: "1" }] },
            { name: "b", image: "b:1" },
          ],
        },
      },
    },
  };
  const patch = { spec: { template: { spec: { containers: [{ name: "a", image: "a:2", env: [{ name: "Y", value: "2" }] }] } } } };
  const patched = strategicPatch(target, patch, schemaOf("apps", "deployments"));
  t.deepEqual(patched, {
    spec: {
      template: {
        spec: {
          containers: [
            {
              name: "a",
              image: "a:2",
              env: [
                { name: "X", value: "1" },
                { name: "Y", value: "2" },
              ],
            },
            { name: "b", image: "b:1" },
          ],
        },
      },
    },
  });
});

test("the directives of a strategic patch delete, replace, retain and order", (t) => {
  const schema = schemaOf("apps", "deployments");
  const pod = (containers: JsonObject[], extra: JsonObject = {}): JsonObject => ({ spec: { template: { spec: { containers, ...extra } } } });
  const target = pod([{ name: "a" }, { name: "b" }, { name: "c" }]);
  t.deepEqual(strategicPatch(target, pod([{ $patch: "delete", name: "b" }]), schema), pod([{ name: "a" }, { name: "c" }]));
  t.deepEqual(strategicPatch(target, pod([{ $patch: "replace" }, { name: "z" }]), schema), pod([{ name: "z" }]));
  const reordered = strategicPatch(target, pod([{ name: "d" }], { "$setElementOrder/containers": [{ name: "d" }, { name: "c" }, { name: "a" }] }), schema);
  t.deepEqual(reordered, pod([{ name: "d" }, { name: "b" }, { name: "c" }, { name: "a" }]));
  const strategy = { spec: { strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1 } } } };
  t.deepEqual(strategicPatch(strategy, { spec: { strategy: { $retainKeys: ["type"], type: "Recreate" } } }, schema), {
    spec: { strategy: { type: "Recreate" } },
  });
  const finalizers = { metadata: { finalizers: ["x", "y"] } };
  t.deepEqual(strategicPatch(finalizers, { metadata: { "$deleteFromPrimitiveList/finalizers": ["x"] } }, schema), { metadata: { finalizers: ["y"] } });
});

test("a strategic patch replaces lists that have no key, and refuses items without theirs", (t) => {
  const schema = schemaOf("", "pods");
  t.deepEqual(strategicPatch({ spec: { tolerations: [{ key: "a" }] } }, { spec: { tolerations: [{ key: "b" }] } }, schema), {
    spec: { tolerations: [{ key: "b" }] },
  });
  const error = t.throws(() => strategicPatch({ spec: {} }, { spec: { containers: [{ image: "x" }] } }, schema), { instanceOf: ApiError });
  t.regex(error?.message ?? "", /does not contain declared merge key: name/);
});
