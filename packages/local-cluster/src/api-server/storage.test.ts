import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { ApiError } from "./api-error.ts";
import type { KubeObject } from "./kube-object.ts";
import { type Change, Storage } from "./storage.ts";

const object = (name: string, namespace = "default", more: object = {}): KubeObject => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace, uid: name, resourceVersion: "", creationTimestamp: "" },
  ...more,
});

test("every write takes the next version, and changes after a version can be replayed", (t) => {
  const storage = new Storage({ clock: new ManualClock(1000) });
  const first = storage.put("configmaps", object("a"));
  const second = storage.put("configmaps", object("a", "default", { data: { x: "1" } }));
  storage.remove("configmaps", "default", "a");
  t.true(Number(second.metadata.resourceVersion) > Number(first.metadata.resourceVersion));
  const changes = storage.since("configmaps", Number(first.metadata.resourceVersion));
  t.deepEqual(
    changes.map((change) => change.type),
    ["MODIFIED", "DELETED"],
  );
  t.is(changes[1]?.object.metadata.resourceVersion, String(storage.revision), "a deletion has a version of its own");
});

test("a version that is forgotten, from another life, or from the future is expired", (t) => {
  const storage = new Storage({ clock: new ManualClock(1000), historyLength: 4 });
  for (let index = 0; index < 10; index += 1) storage.put("configmaps", object(`a${index}`));
  for (const version of [1, 1001, storage.revision + 1]) {
    const error = t.throws(() => storage.since("configmaps", version), { instanceOf: ApiError });
    t.is(error?.httpCode, 410, String(version));
  }
  t.is(storage.since("configmaps", storage.revision - 1).length, 1);
  storage.compact();
  t.throws(() => storage.since("configmaps", storage.revision - 1), { instanceOf: ApiError });
  t.deepEqual(storage.since("configmaps", storage.revision), []);
});

test("lists are ordered by namespace and name, and a namespace is only itself", (t) => {
  const storage = new Storage({ clock: new ManualClock() });
  for (const [namespace, name] of [
    ["b", "x"],
    ["a", "z"],
    ["a", "y"],
    ["a-b", "w"],
  ] as const)
    storage.put("configmaps", object(name, namespace));
  t.deepEqual(
    storage.list("configmaps").map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
    ["a-b/w", "a/y", "a/z", "b/x"],
  );
  t.deepEqual(
    storage.list("configmaps", "a").map(({ metadata }) => metadata.name),
    ["y", "z"],
  );
});

test("a subscriber sees each change once, and none after it left", (t) => {
  const storage = new Storage({ clock: new ManualClock() });
  const seen: Change["type"][] = [];
  const subscription = storage.subscribe("configmaps", (change) => seen.push(change.type));
  storage.put("configmaps", object("a"));
  storage.put("secrets", object("a"));
  storage.remove("configmaps", "default", "a");
  subscription[Symbol.dispose]();
  storage.put("configmaps", object("b"));
  t.deepEqual(seen, ["ADDED", "DELETED"]);
});
