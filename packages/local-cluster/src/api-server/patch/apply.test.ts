import test from "ava";
import { ApiError } from "../api-error.ts";
import type { JsonObject } from "../json.ts";
import { type Manager, type ManagerEntry, readManagers, trackUpdate, writeManagers } from "../managed-fields.ts";
import { type MergeSchema, mergeSchemaOf } from "../merge-schema.ts";
import { ResourceTypes } from "../resource-types.ts";
import { applyFields } from "./apply.ts";

const deployments = new ResourceTypes().find("apps", "v1", "deployments");
const schema: MergeSchema =
  deployments === undefined ? { member: () => schema, item: () => schema, list: "atomic", atomic: false } : mergeSchemaOf(deployments);
const manager = (name: string, operation: "Apply" | "Update" = "Apply"): Manager => ({ name, operation, subresource: "", apiVersion: "apps/v1" });

function apply(live: JsonObject | undefined, wished: JsonObject, managers: readonly ManagerEntry[], name: string, force = false) {
  return applyFields({ live, wished, managers, manager: manager(name), force, schema, time: "2026-01-01T00:00:00Z" });
}

const container = (name: string, more: JsonObject = {}): JsonObject => ({ name, ...more });
const withContainers = (...containers: JsonObject[]): JsonObject => ({ spec: { template: { spec: { containers } } } });

test("two managers own their own containers, and each removes only its own", (t) => {
  const first = apply(undefined, withContainers(container("a", { image: "a:1" })), [], "one");
  const second = apply(first.object, withContainers(container("b", { image: "b:1" })), first.managers, "two");
  t.deepEqual(second.object, withContainers(container("b", { image: "b:1" }), container("a", { image: "a:1" })));
  const third = apply(second.object, { spec: { replicas: 1 } }, second.managers, "one");
  t.deepEqual(third.object, { spec: { template: { spec: { containers: [container("b", { image: "b:1" })] } }, replicas: 1 } });
});

test("a conflict names the manager and the field, and force takes the field over", (t) => {
  const first = apply(undefined, { spec: { replicas: 2, paused: true } }, [], "one");
  const error = t.throws(() => apply(first.object, { spec: { replicas: 3 } }, first.managers, "two"), { instanceOf: ApiError });
  t.is(error?.httpCode, 409);
  t.is(error?.message, 'Apply failed with 1 conflict: conflict with "one" using apps/v1: .spec.replicas');
  t.deepEqual(error?.statusDetails.causes, [{ reason: "FieldManagerConflict", message: 'conflict with "one" using apps/v1', field: ".spec.replicas" }]);
  const forced = apply(first.object, { spec: { replicas: 3 } }, first.managers, "two", true);
  t.deepEqual(forced.object, { spec: { replicas: 3, paused: true } });
  const dropped = apply(forced.object, { spec: {} }, forced.managers, "one");
  t.deepEqual(dropped.object, { spec: { replicas: 3 } }, "the loser no longer owns replicas, so leaving it out removes only paused");
});

test("a value two managers agree on is shared, and stays until both let go", (t) => {
  const first = apply(undefined, { metadata: { labels: { app: "x" } } }, [], "one");
  const second = apply(first.object, { metadata: { labels: { app: "x" } } }, first.managers, "two");
  const third = apply(second.object, { metadata: {} }, second.managers, "one");
  t.deepEqual(third.object, { metadata: { labels: { app: "x" } } });
  const fourth = apply(third.object, { metadata: {} }, third.managers, "two");
  t.deepEqual(fourth.object, {});
});

test("an update takes over what it changes, so that a later apply conflicts", (t) => {
  const first = apply(undefined, { spec: { replicas: 2 } }, [], "one");
  const meta = { name: "d", uid: "", resourceVersion: "", creationTimestamp: "" };
  const before = { apiVersion: "apps/v1", kind: "Deployment", metadata: meta, ...first.object };
  const after = { ...before, spec: { replicas: 5 } };
  const managers = trackUpdate({ before, after, base: first.managers, manager: manager("scaler", "Update"), schema, time: "" });
  t.deepEqual(
    managers.map((entry) => entry.name),
    ["scaler"],
  );
  const error = t.throws(() => apply(after, { spec: { replicas: 2 } }, managers, "one"), { instanceOf: ApiError });
  t.regex(error?.message ?? "", /conflict with "scaler" using apps\/v1: \.spec\.replicas/);
});

test("managedFields keep their meaning through their JSON form", (t) => {
  const { managers } = apply(undefined, withContainers(container("a", { image: "a:1", ports: [{ containerPort: 80, protocol: "TCP" }] })), [], "one");
  const json = writeManagers(managers);
  t.deepEqual(json[0]?.["fieldsV1"], {
    "f:spec": {
      "f:template": {
        "f:spec": {
          "f:containers": {
            'k:{"name":"a"}': {
              ".": {},
              "f:name": {},
              "f:image": {},
              "f:ports": { 'k:{"containerPort":80,"protocol":"TCP"}': { ".": {}, "f:containerPort": {}, "f:protocol": {} } },
            },
          },
        },
      },
    },
  });
  t.deepEqual(writeManagers(readManagers(json)), json);
});

test("applying the same again changes nothing, not even the time", (t) => {
  const first = apply(undefined, { spec: { replicas: 2 } }, [], "one");
  const again = applyFields({
    live: first.object,
    wished: { spec: { replicas: 2 } },
    managers: first.managers,
    manager: manager("one"),
    force: false,
    schema,
    time: "later",
  });
  t.deepEqual(again, first);
});
