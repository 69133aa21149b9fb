import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { gunzipSync } from "node:zlib";
import test from "ava";
import { metricsRoutes, readinessRoutes, serveAdmin } from "./admin.ts";
import { Backoff } from "./backoff.ts";
import { ManualClock, systemClock } from "./clock.ts";
import { Drain } from "./drain.ts";
import { booleanVariable, durationVariable, readEnvironment, z } from "./environment.ts";
import { MeshError, messageOf } from "./error.ts";
import { createLogger } from "./log.ts";
import { Counter, createRegistry } from "./metrics.ts";
import { Readiness } from "./readiness.ts";
import { TaskGroup } from "./task-group.ts";

test("a drain waits for its holders and is not forced when they leave in time", async (t) => {
  const drain = new Drain(new ManualClock());
  const holder = drain.hold("tunnel");
  const ended = drain.begin(5_000);
  t.true(drain.draining.aborted);
  t.false(drain.aborted.aborted);
  holder[Symbol.dispose]();
  t.deepEqual(await ended, { forced: false, remaining: [] });
});

test("a drain past its deadline aborts and names who remained", async (t) => {
  const clock = new ManualClock();
  const drain = new Drain(clock);
  drain.hold("slow stream");
  const ended = drain.begin(5_000);
  await clock.advance(5_000);
  t.deepEqual(await ended, { forced: true, remaining: ["slow stream"] });
  t.true(drain.aborted.aborted);
});

test("readiness is the empty list of blockers", (t) => {
  const readiness = new Readiness();
  const state = readiness.block("state manager");
  const proxy = readiness.block("proxy");
  t.deepEqual(readiness.pending, ["state manager", "proxy"]);
  state[Symbol.dispose]();
  proxy[Symbol.dispose]();
  t.deepEqual(readiness.pending, []);
});

test("backoff grows to its bound, varies by its jitter and starts again", (t) => {
  const backoff = new Backoff({ initialMs: 10, maxMs: 35, jitter: 0.2, random: () => 1 });
  t.deepEqual([backoff.next(), backoff.next(), backoff.next(), backoff.next()], [12, 24, 42, 42]);
  backoff.reset();
  t.is(backoff.next(), 12);
});

test("the environment names every variable that is wrong", (t) => {
  const schema = z.object({ WAIT: durationVariable.default(5), ENABLED: booleanVariable.default(true), PORT: z.coerce.number().int() });
  const error = t.throws(() => readEnvironment(schema, { WAIT: "soon", ENABLED: "perhaps", PORT: "80" }), { code: "RUNTIME_BAD_CONFIG" });
  t.regex(error?.message ?? "", /WAIT: .*ENABLED: /);
  t.deepEqual(readEnvironment(schema, { WAIT: "2s", ENABLED: "False", PORT: "80" }), { WAIT: 2_000, ENABLED: false, PORT: 80 });
});

test("a failed task is logged by name and the others go on; closing ends them all", async (t) => {
  const lines: string[] = [];
  const group = new TaskGroup(createLogger("test", { write: (line) => lines.push(line) }));
  let aborted = false;
  group.run("doomed", () => Promise.reject(new Error("no luck")));
  group.run("steady", (signal) => systemClock.sleep(60_000, { signal }).finally(() => (aborted = signal.aborted)));
  await group[Symbol.asyncDispose]();
  t.is(lines.length, 1);
  t.regex(lines[0] ?? "", /doomed failed.*no luck/);
  t.true(aborted);
});

test("a cause is told once, and an error keeps its code on the way up", (t) => {
  const inner = new MeshError("INNER", "disk full");
  t.is(MeshError.from(inner, "OUTER"), inner);
  t.is(messageOf(new Error("cannot save", { cause: inner })), "cannot save: disk full");
  t.is(messageOf(new Error("cannot save: disk full", { cause: inner })), "cannot save: disk full");
});

test("a scrape is compressed for those who accept gzip, and for nobody else", async (t) => {
  const registry = createRegistry();
  new Counter({ name: "things_total", help: "things", registers: [registry] }).inc(2);
  await using server = await serveAdmin({ host: "127.0.0.1", port: 0 }, metricsRoutes(registry));
  const ask = async (accepted: string): Promise<{ coding: string | undefined; text: string }> => {
    const asking = request({ port: server.port, host: "127.0.0.1", path: "/metrics", headers: accepted === "" ? {} : { "accept-encoding": accepted } }).end();
    const [answer]: IncomingMessage[] = await once(asking, "response");
    if (answer === undefined) throw new Error("no answer");
    const coding = answer.headers["content-encoding"];
    const bytes = Buffer.concat(await answer.toArray());
    return { coding, text: (coding === "gzip" ? gunzipSync(bytes) : bytes).toString() };
  };
  for (const [accepted, coding] of [
    ["gzip", "gzip"],
    ["deflate, GZIP;q=0.5", "gzip"],
    ["gzip;q=0, identity", undefined],
    ["br", undefined],
    ["", undefined],
  ] as const) {
    const answer = await ask(accepted);
    t.is(answer.coding, coding, accepted);
    t.regex(answer.text, /things_total 2\n/);
  }
});

test("a client that does not end its headers is answered 408 after 2 s, not when node:http gets to it", async (t) => {
  t.timeout(20_000);
  await using server = await serveAdmin({ host: "127.0.0.1", port: 0 }, new Map());
  const socket = connect(server.port, "127.0.0.1");
  t.teardown(() => socket.destroy());
  socket.write("GET /metrics HT");
  const [answer] = await once(socket, "data");
  t.regex(String(answer), /^HTTP\/1\.1 408 /);
});

test("admin servers answer readiness and metrics as the reference does, and survive a handler that throws", async (t) => {
  const readiness = new Readiness();
  const blocker = readiness.block("proxy");
  const registry = createRegistry();
  new Counter({ name: "things_total", help: "things", registers: [registry] }).inc(2);
  const routes = new Map([
    ...readinessRoutes(readiness),
    ...metricsRoutes(registry),
    [
      "/broken",
      () => {
        throw new Error("handler failed");
      },
    ],
  ]);
  await using server = await serveAdmin({ host: "127.0.0.1", port: 0 }, routes);
  const get = async (path: string, init?: RequestInit): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${server.port}${path}`, init);
    return `${response.status} ${await response.text()}`;
  };
  t.is(await get("/healthz/ready"), "500 not ready, pending: proxy\n");
  blocker[Symbol.dispose]();
  t.is(await get("/healthz/ready"), "200 ready\n");
  t.is(await get("/healthz/ready", { method: "POST" }), "405 method not allowed\n");
  t.regex(await get("/metrics"), /things_total 2\n(?:.*\n)*# EOF/);
  const contentType = async (accept: string): Promise<string | null> =>
    (await fetch(`http://127.0.0.1:${server.port}/stats/prometheus`, { headers: { accept } })).headers.get("content-type");
  t.is(await contentType("text/plain;q=0.5, application/openmetrics-text; version=1.0.0"), "application/openmetrics-text;charset=utf-8;version=1.0.0");
  t.is(await contentType("*/*"), "text/plain; charset=utf-8");
  t.is(await get("/broken"), "500 handler failed\n");
  t.is(await get("/nowhere"), "404 not found\n");
});
