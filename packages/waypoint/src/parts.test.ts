import { applyChange, emptySnapshot, HeaderFields, parseIp, unlimited } from "@fairway/model";
import { ManualClock, silentLogger, TaskGroup } from "@fairway/runtime";
import test from "ava";
import { AccessLog } from "./access-log.ts";
import type { TracingConfig } from "./config.ts";
import { destinationOf } from "./destination.ts";
import { formatGrpcTimeout, parseGrpcTimeout } from "./grpc-timeout.ts";
import { Breakers } from "./limits.ts";
import { meshDifference } from "./mesh-difference.ts";
import { MirroredBody, mirrored } from "./mirrored-body.ts";
import { SpanExporter } from "./span-exporter.ts";
import { answer, ReadSink, read, testExchange, WrittenBody } from "./test-request.ts";
import { apiConfig, workload } from "./test-waypoint.ts";
import { createTracer, type FinishedSpan } from "./tracer.ts";
import { discard, watchBody } from "./watched-body.ts";

const tracing: TracingConfig = { endpoint: "http://collector/v1/traces", headers: { "x-key": "k" }, ratio: 1, parentBased: true, serviceName: "waypoint.shop" };
const ids = (size: number): Uint8Array => new Uint8Array(size).fill(0xab);

function tracer(config: Partial<TracingConfig>, spans: FinishedSpan[], draw = 0.5): ReturnType<typeof createTracer> {
  return createTracer({
    config: { ...tracing, ...config },
    clock: new ManualClock(1_000),
    random: () => draw,
    randomBytes: ids,
    onSpan: (span) => spans.push(span),
  });
}

const trace = "0af7651916cd43dd8448eb211c80319c";

test("a span of ours stands between the caller's and the upstream's, sampled as the caller says", (t) => {
  const spans: FinishedSpan[] = [];
  const { exchange } = testExchange({ headers: { traceparent: `00-${trace}-b7ad6b7169203331-01`, tracestate: "a=b" } });
  const span = tracer({ ratio: 0 }, spans).start(exchange);
  t.is(span?.traceparent, `00-${trace}-abababababababab-01`);
  span?.end(exchange, { status: 503, failed: false });
  t.like(spans[0], { traceId: trace, spanId: "ab".repeat(8), parentSpanId: "b7ad6b7169203331", traceState: "a=b", failed: true });
  const unsampled = testExchange({ headers: { traceparent: `00-${trace}-b7ad6b7169203331-00` } });
  const silent = tracer({}, spans).start(unsampled.exchange);
  silent?.end(unsampled.exchange, { status: 200, failed: false });
  t.is(spans.length, 1);
  t.regex(silent?.traceparent ?? "", /-00$/);
});

test("without a caller's decision the ratio decides; without a collector nothing is touched", (t) => {
  const spans: FinishedSpan[] = [];
  t.regex(tracer({ ratio: 0.6 }, spans).start(testExchange().exchange)?.traceparent ?? "", /-01$/);
  t.regex(tracer({ ratio: 0.4 }, spans).start(testExchange().exchange)?.traceparent ?? "", /-00$/);
  t.is(tracer({ endpoint: undefined }, spans).start(testExchange().exchange), undefined);
});

function finished(name: string): FinishedSpan {
  return {
    traceId: trace,
    spanId: "ab".repeat(8),
    parentSpanId: undefined,
    traceState: undefined,
    name,
    startTime: 1,
    endTime: 2,
    attributes: [
      ["n", 1],
      ["s", "x"],
    ],
    failed: false,
  };
}

test("spans go to the collector together, as OTLP; what it does not take is counted and not kept", async (t) => {
  const clock = new ManualClock();
  const posted: { url: string; body: string; headers: Readonly<Record<string, string>> }[] = [];
  let fails = false;
  const tasks = new TaskGroup(silentLogger);
  const exporter = new SpanExporter({
    config: tracing,
    resource: { "service.namespace": "shop" },
    clock,
    log: silentLogger,
    tasks,
    post: async (url, body, { headers }) => {
      if (fails) throw new Error("down");
      posted.push({ url, body, headers });
    },
  });
  exporter.take(finished("one"));
  exporter.take(finished("two"));
  await clock.advance(1_000);
  t.is(posted.length, 1);
  t.like(posted[0], { url: "http://collector/v1/traces", headers: { "content-type": "application/json", "x-key": "k" } });
  const [resource] = JSON.parse(posted[0]?.body ?? "{}").resourceSpans;
  t.deepEqual(resource.resource.attributes[0], { key: "service.name", value: { stringValue: "waypoint.shop" } });
  const [first] = resource.scopeSpans[0].spans;
  t.like(first, { name: "one", kind: 2, startTimeUnixNano: "1000000", endTimeUnixNano: "2000000" });
  t.deepEqual(first.attributes, [
    { key: "n", value: { intValue: "1" } },
    { key: "s", value: { stringValue: "x" } },
  ]);
  fails = true;
  for (let span = 0; span < 10_000; span++) exporter.take(finished("flood"));
  await exporter.flush();
  await tasks[Symbol.asyncDispose]();
  t.is(exporter.exported, 2);
  t.is(exporter.dropped, 10_000);
});

test("the access log in JSON has the reference's names, and what nobody reads is dropped and counted", async (t) => {
  const clock = new ManualClock();
  const written: string[] = [];
  const log = new AccessLog({ format: "json", write: (text) => void written.push(text), clock });
  const { exchange } = testExchange({ headers: { "user-agent": "curl" } });
  const outcome = { answer: answer(200), delivery: { bytesReceived: 1, bytesSent: 2, error: undefined }, grpcStatus: undefined };
  const figures = { startTime: 0, durationMs: 3.4, flags: "-", status: 200 };
  log.request(exchange, outcome, figures);
  t.is(written.length, 0);
  await clock.advance(100);
  t.like(JSON.parse(written[0] ?? ""), {
    method: "GET",
    response_code: 200,
    bytes_received: 1,
    bytes_sent: 2,
    duration: 3,
    user_agent: "curl",
    upstream_host: null,
  });
  for (let line = 0; line < 5_000; line++) log.request(exchange, outcome, figures);
  t.true(log.dropped > 0);
});

test("targets are found by address and by name, their workloads before their services, and nothing else is", (t) => {
  const config = apiConfig({ vip: "10.0.0.1", endpoints: [] });
  const at = (ip: string, port: number) => destinationOf(config, { kind: "address", address: { ip: parseIp(ip), port } }).kind;
  t.is(at("10.0.0.1", 80), "served");
  t.is(at("10.0.0.1", 81), "not-bound");
  t.is(at("10.0.0.2", 80), "not-bound");
  t.is(destinationOf(config, { kind: "hostname", hostname: "API.default.svc.cluster.local", port: 80 }).kind, "served");
  t.is(destinationOf(config, { kind: "hostname", hostname: "other", port: 80 }).kind, "not-bound");
  const unrouted = { ...config, routeTables: new Map() };
  t.is(destinationOf(unrouted, { kind: "address", address: { ip: parseIp("10.0.0.1"), port: 80 } }).kind, "not-programmed");
});

test("a thread told of the differences has the same mesh", (t) => {
  const before = applyChange(emptySnapshot, { workloads: [workload("a", "10.0.0.1"), workload("b", "10.0.0.2")] });
  const after = applyChange(before, { workloads: [workload("c", "10.0.0.3")], removedWorkloads: [workload("a", "10.0.0.1").uid] });
  const change = meshDifference(before, after);
  t.deepEqual(
    change?.workloads?.map(({ name }) => name),
    ["c"],
  );
  t.deepEqual(change?.removedWorkloads, [workload("a", "10.0.0.1").uid]);
  t.is(meshDifference(after, after), undefined);
});

test("a place beyond the limit is refused, one given back twice counts once", (t) => {
  const overflows: string[] = [];
  const breakers = new Breakers("api", { ...unlimited, maxRequests: 1 }, (what) => void overflows.push(what));
  const release = breakers.take("requests");
  t.throws(() => breakers.take("requests"), { code: "WAYPOINT_OVERFLOW" });
  release();
  release();
  t.is(breakers.taken("requests"), 0);
  t.notThrows(() => breakers.take("requests"));
  t.deepEqual(overflows, ["requests"]);
});

test("a watched body tells its end once, and an abort breaks both ends off", async (t) => {
  const ends: unknown[] = [];
  const source = new WrittenBody();
  const controller = new AbortController();
  const sink = new ReadSink();
  watchBody(source, { onOver: (error) => ends.push(error), signal: controller.signal }).flowInto(sink);
  source.sink?.write(Buffer.from("x"));
  controller.abort(new Error("late"));
  source.sink?.end(undefined);
  t.is(sink.failed?.message, "late");
  t.is(source.cancelled?.message, "late");
  t.is(ends.length, 1);
  t.is(await read(watchBody(answer(200, {}, "body").body, { onOver: (error) => ends.push(error) })), "body");
  t.is(ends[1], undefined);
});

test("an answer nobody wants is read to its end when it is short, and cut off when it is not", (t) => {
  const short = new WrittenBody();
  discard(short, 10, new Error("unused"));
  short.sink?.write(Buffer.alloc(10));
  t.is(short.cancelled, undefined);
  short.sink?.write(Buffer.alloc(1));
  t.is(short.cancelled?.message, "unused");
  const declared = new WrittenBody(11);
  discard(declared, 10, new Error("unused"));
  t.is(declared.cancelled?.message, "unused");
});

test("a copy that falls behind breaks off and leaves the original alone", (t) => {
  const source = new WrittenBody();
  const copy = new MirroredBody(undefined);
  const original = new ReadSink();
  const slow = new ReadSink();
  slow.takes = false;
  mirrored(source, copy).flowInto(original);
  copy.flowInto(slow);
  for (let megabyte = 0; megabyte < 3; megabyte++) source.sink?.write(Buffer.alloc(1024 * 1024));
  source.sink?.end(undefined);
  t.is(original.text.length, 3 * 1024 * 1024);
  t.true(original.ended);
  t.false(slow.ended);
  t.truthy(slow.failed);
});

test("gRPC's timeouts in all units; what is none is none", (t) => {
  t.deepEqual(["1H", "2M", "3S", "4m", "5u", "6n", "123456789m", "5", "x", ""].map(parseGrpcTimeout), [
    3_600_000,
    120_000,
    3_000,
    4,
    0.005,
    6e-6,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  t.is(formatGrpcTimeout(0.2), "1m");
  t.is(formatGrpcTimeout(1_234.9), "1234m");
  t.is(formatGrpcTimeout(200_000_000), "200000S");
});

test("headers of an exchange are the client's own until a stage changes them", (t) => {
  const { exchange, done } = testExchange({ headers: { a: "1" } });
  const seen: string[] = [];
  exchange.onDone(() => seen.push("outer"));
  exchange.onDone(() => seen.push("inner"));
  done();
  done();
  exchange.onDone(() => seen.push("late"));
  t.deepEqual(seen, ["inner", "outer", "late"]);
  t.deepEqual([...new HeaderFields([...exchange.head.headers.flat])], [["a", "1"]]);
});
