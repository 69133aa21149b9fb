import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import test from "ava";
import { arrayAt, atPath, type JsonObject, stringAt } from "./json.ts";
import { TestBench } from "./test-bench.ts";

const configMap = (name: string, data: JsonObject = {}): JsonObject => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data });
const inDefault = "/api/v1/namespaces/default";

test("a watch sends what is there, then each change, and resumes after a version", async (t) => {
  await using bench = await TestBench.start();
  const stop = new AbortController();
  await bench.send("POST", `${inDefault}/configmaps`, configMap("a"));
  const events = bench.watch(`${inDefault}/configmaps?watch=true&fieldSelector=metadata.name=a&allowWatchBookmarks=true&sendInitialEvents=true`, {
    signal: stop.signal,
  });
  const next = async () => (await events.next()).value;
  t.is((await next())?.type, "ADDED");
  const bookmark = await next();
  t.is(bookmark?.type, "BOOKMARK");
  t.is(atPath(bookmark?.object, "metadata", "annotations", "k8s.io/initial-events-end"), "true");
  await bench.send("PATCH", `${inDefault}/configmaps/a`, { data: { x: "1" } }, { type: "application/merge-patch+json" });
  const modified = await next();
  t.is(modified?.type, "MODIFIED");
  await bench.send("DELETE", `${inDefault}/configmaps/a`);
  t.is((await next())?.type, "DELETED");
  stop.abort();
  const version = stringAt(atPath(modified?.object, "metadata", "resourceVersion"));
  const again = new AbortController();
  const resumed = bench.watch(`${inDefault}/configmaps?watch=true&resourceVersion=${version}`, { signal: again.signal });
  t.is((await resumed.next()).value?.type, "DELETED");
  again.abort();
  bench.server.compact();
  const expired = await bench.send("GET", `${inDefault}/configmaps?watch=true&resourceVersion=${version}`);
  t.is(expired.code, 410);
  t.is(expired.body["reason"], "Expired");
});

test("an object that starts or stops matching is added or deleted for the watcher", async (t) => {
  await using bench = await TestBench.start();
  const stop = new AbortController();
  const { body } = await bench.send("GET", `${inDefault}/configmaps`);
  const from = stringAt(atPath(body, "metadata", "resourceVersion"));
  const events = bench.watch(`${inDefault}/configmaps?watch=true&labelSelector=on=yes&resourceVersion=${from}`, { signal: stop.signal });
  await bench.send("POST", `${inDefault}/configmaps`, configMap("a"));
  const label = (on: string | null) =>
    bench.send("PATCH", `${inDefault}/configmaps/a`, { metadata: { labels: { on } } }, { type: "application/merge-patch+json" });
  await label("yes");
  await label(null);
  t.is((await events.next()).value?.type, "ADDED");
  t.is((await events.next()).value?.type, "DELETED");
  stop.abort();
});

test("watches are bounded in number, and one whose client does not read is dropped", async (t) => {
  await using bench = await TestBench.start({ limits: { maxWatches: 1, maxUnreadBytes: 200_000 } });
  await bench.send("POST", `${inDefault}/configmaps`, configMap("a"));
  const stop = new AbortController();
  const headers = { authorization: `Bearer ${bench.server.adminToken}` };
  const idle = await new Promise<IncomingMessage>((resolve, reject) => {
    const watching = request(`${bench.server.url}${inDefault}/configmaps?watch=true`, { ca: bench.server.caPem, agent: false, headers }, resolve);
    watching.on("error", reject).end();
  });
  idle.pause();
  idle.on("error", () => undefined);
  const closed = new Promise((resolve) => idle.on("close", resolve));
  t.is((await bench.send("GET", `${inDefault}/secrets?watch=true`)).code, 429);
  for (let round = 0; round < 100; round += 1) {
    await bench.send("PATCH", `${inDefault}/configmaps/a`, { data: { a: `${round}`.padEnd(200_000, "x") } }, { type: "application/merge-patch+json" });
  }
  await closed;
  t.false(idle.complete, "the stream broke off");
  const again = await bench.watch(`${inDefault}/configmaps?watch=true`, { signal: stop.signal }).next();
  t.is(again.value?.type, "ADDED", "its place is free again");
  stop.abort();
});

test("pages of a list are one snapshot, and a forgotten one is 410", async (t) => {
  await using bench = await TestBench.start();
  for (const name of ["a", "b", "c", "d", "e"]) await bench.send("POST", `${inDefault}/secrets`, { metadata: { name } });
  const first = await bench.send("GET", `${inDefault}/secrets?limit=2`);
  t.is(atPath(first.body, "metadata", "remainingItemCount"), 3);
  await bench.send("DELETE", `${inDefault}/secrets/d`);
  const token = stringAt(atPath(first.body, "metadata", "continue"));
  const second = await bench.send("GET", `${inDefault}/secrets?limit=5&continue=${token}`);
  t.deepEqual(
    arrayAt(second.body["items"]).map((item) => atPath(item, "metadata", "name")),
    ["c", "d", "e"],
  );
  t.is(atPath(second.body, "metadata", "resourceVersion"), atPath(first.body, "metadata", "resourceVersion"));
  t.is((await bench.send("GET", `${inDefault}/secrets?limit=5&continue=999.0`)).code, 410);
});
