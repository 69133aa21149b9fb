import { type Clock, ManualClock } from "@fairway/runtime";
import test from "ava";
import { createKubeClient } from "./client.ts";
import type { CollectionEvent, KubeObject } from "./collection.ts";
import { eventually, FakeApiServer, reply } from "./fake-api-server.ts";
import { configMaps } from "./resources/core.ts";

/** Real time for sockets, but waits of this package end at once: what is tested is that it goes on, not how long it waits. */
const hasty: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  schedule: () => ({ [Symbol.dispose]: () => undefined }),
  sleep: (_delayMs, { signal }) => new Promise((resolve, reject) => setImmediate(() => (signal.aborted ? reject(signal.reason) : resolve()))),
};

const configMap = (name: string, value = ""): KubeObject & { data: Record<string, string> } => ({ metadata: { name, namespace: "shop" }, data: { value } });

function watching(
  server: FakeApiServer,
  clock: Clock = hasty,
): { collection: ReturnType<ReturnType<typeof createKubeClient>["collection"]>; events: CollectionEvent<KubeObject>[] } {
  const collection = createKubeClient(server.credentials, { clock, random: () => 0.5 }).collection<KubeObject>(configMaps);
  const events: CollectionEvent<KubeObject>[] = [];
  collection.subscribe((batch) => events.push(...batch));
  return { collection, events };
}

test("the first list fills the collection and changes follow", async (t) => {
  await using server = await FakeApiServer.listen();
  server.set({ ...configMap("a"), metadata: { name: "a", namespace: "shop", managedFields: [{ manager: "x" }] } as KubeObject["metadata"] });
  const { collection, events } = watching(server);
  await using _ = collection;
  await collection.synced;
  t.is(collection.get("shop/a")?.kind, "ConfigMap");
  t.false("managedFields" in (collection.get("shop/a")?.metadata ?? {}));
  await eventually(() => server.watches === 1);
  server.set(configMap("b"));
  server.set(configMap("a", "2"));
  server.delete("b");
  await eventually(() => events.length === 4);
  t.deepEqual(
    events.map(({ type, key }) => [type, key]),
    [
      ["added", "shop/a"],
      ["added", "shop/b"],
      ["updated", "shop/a"],
      ["deleted", "shop/b"],
    ],
  );
  const watch = server.requests.find(({ query }) => query.get("watch") === "true");
  t.is(watch?.query.get("allowWatchBookmarks"), "true");
});

test("a long list is read in pages", async (t) => {
  await using server = await FakeApiServer.listen();
  for (let number = 0; number < 1_201; number++) server.set(configMap(`m${number}`));
  const { collection } = watching(server);
  await using _ = collection;
  await collection.synced;
  t.is([...collection.list()].length, 1_201);
  t.is(server.requests.filter(({ query }) => query.get("limit") === "500").length, 3);
});

for (const how of ["close", "reset"] as const) {
  test(`a watch that ends by ${how} is resumed where it stood, without a new list`, async (t) => {
    await using server = await FakeApiServer.listen();
    server.set(configMap("a"));
    const { collection } = watching(server);
    await using _ = collection;
    await eventually(() => server.watches === 1);
    server.endWatches(how);
    server.set(configMap("b"));
    await eventually(() => collection.get("shop/b") !== undefined);
    t.is(server.requests.filter(({ query }) => query.get("watch") === null).length, 1);
  });
}

test("a bookmark moves the point from which a watch is resumed", async (t) => {
  await using server = await FakeApiServer.listen();
  const { collection } = watching(server);
  await using _ = collection;
  await eventually(() => server.watches === 1);
  server.send({ type: "BOOKMARK", object: { kind: "ConfigMap", metadata: { resourceVersion: "4711" } } });
  server.endWatches("close");
  await eventually(() => server.requests.some(({ query }) => query.get("resourceVersion") === "4711"));
  t.pass();
});

test("410 leads to a new list whose differences are events", async (t) => {
  await using server = await FakeApiServer.listen();
  server.set(configMap("kept"));
  server.set(configMap("gone"));
  const { collection, events } = watching(server);
  await using _ = collection;
  await eventually(() => server.watches === 1);
  events.length = 0;
  server.compactAndSet(configMap("kept", "2"), configMap("new"));
  server.endWatches("reset");
  await eventually(() => events.length === 3);
  t.deepEqual(
    events.map(({ type, key }) => [type, key]),
    [
      ["deleted", "shop/gone"],
      ["updated", "shop/kept"],
      ["added", "shop/new"],
    ],
  );
});

test("errors 500 on list and watch are retried until they pass, and known objects stay meanwhile", async (t) => {
  await using server = await FakeApiServer.listen();
  server.set(configMap("a"));
  let failures = 3;
  server.answer = (_request, response) => {
    if (failures-- <= 0) return false;
    reply(response, 500, { message: "etcd is away" });
    return true;
  };
  const { collection } = watching(server);
  await using _ = collection;
  await collection.synced;
  await eventually(() => server.watches === 1);
  failures = 2;
  server.endWatches("reset");
  t.truthy(collection.get("shop/a"));
  await eventually(() => server.watches === 1 && failures < 0);
  server.set(configMap("b"));
  await eventually(() => collection.get("shop/b") !== undefined);
  t.pass();
});

test("a watch that goes silent is taken for hung and opened again", async (t) => {
  await using server = await FakeApiServer.listen();
  const clock = new ManualClock();
  const { collection } = watching(server, clock);
  await using _ = collection;
  await eventually(() => server.watches === 1);
  const before = server.requests.length;
  await clock.advance(121_000);
  await eventually(() => server.requests.length > before);
  t.is(server.requests.at(-1)?.query.get("watch"), "true");
});

test("lines that are not watch events do no harm", async (t) => {
  await using server = await FakeApiServer.listen();
  const { collection } = watching(server);
  await using _ = collection;
  for (const nonsense of ["hello", { type: "ADDED" }, { type: "ADDED", object: {} }, { type: "ERROR", object: { code: 500 } }, []]) {
    await eventually(() => server.watches === 1);
    server.send(nonsense, 0);
    server.endWatches("close");
  }
  await eventually(() => server.watches === 1);
  server.set(configMap("b"));
  await eventually(() => collection.get("shop/b") !== undefined);
  t.pass();
});

test("a type that the server does not serve is an empty collection until it is served", async (t) => {
  await using server = await FakeApiServer.listen();
  server.set(configMap("a"));
  let served = false;
  server.answer = (_request, response) => {
    if (!served) reply(response, 404, { message: "the server could not find the requested resource" });
    return !served;
  };
  const { collection } = watching(server);
  await using _ = collection;
  await collection.synced;
  t.deepEqual([...collection.list()], []);
  served = true;
  await eventually(() => collection.get("shop/a") !== undefined);
});

test("a single 404 does not empty a collection that has objects", async (t) => {
  await using server = await FakeApiServer.listen();
  server.set(configMap("a"));
  const { collection, events } = watching(server);
  await using _ = collection;
  await eventually(() => server.watches === 1);
  let refusals = 2;
  server.answer = (_request, response) => {
    if (refusals-- <= 0) return false;
    reply(response, 404, {});
    return true;
  };
  server.endWatches("reset");
  await eventually(() => server.watches === 1 && refusals < 0);
  t.deepEqual(
    events.map(({ type }) => type),
    ["added"],
  );
});

test("disposal before the first list rejects `synced` with KUBE_CLOSED", async (t) => {
  await using server = await FakeApiServer.listen();
  server.answer = () => true;
  const { collection } = watching(server);
  await collection[Symbol.asyncDispose]();
  await t.throwsAsync(collection.synced, { code: "KUBE_CLOSED" });
});
