import test from "ava";
import { Counter, createRegistry, Gauge, Histogram, type MetricRegistry, mergedMetrics, readMetrics } from "./metrics.ts";

function thread(count: number): MetricRegistry {
  const registers = [createRegistry()];
  const requests = new Counter({ name: "requests_total", help: "Requests", labelNames: ["who"], registers });
  requests.inc({ who: "a" }, count);
  if (count > 1) requests.inc({ who: "only the second" });
  new Gauge({ name: "open", help: "Open", registers }).set(count);
  new Histogram({ name: "seconds", help: "Seconds", buckets: [1, 10], registers }).observe(count * 5);
  return registers[0] ?? createRegistry();
}

test("equal series of several threads are one, with their sum", async (t) => {
  const own = createRegistry();
  new Gauge({ name: "process_only", help: "Of the process", registers: [own] }).set(7);
  const text = await mergedMetrics(own, () => Promise.all([thread(1), thread(2)].map(readMetrics))).metrics();
  t.regex(text, /^# TYPE requests counter\nrequests_total\{who="a"\} 3\nrequests_total\{who="only the second"\} 1$/m);
  t.regex(text, /^open 3$/m);
  t.regex(text, /^process_only 7$/m);
  t.regex(text, /^seconds_bucket\{le="1"\} 0$/m);
  t.regex(text, /^seconds_bucket\{le="10"\} 2$/m);
  t.regex(text, /^seconds_sum 15$/m);
  t.regex(text, /^seconds_count 2$/m);
  t.regex(text, /# EOF\n$/);
});

test("merged or not, the text of one registry is the same, scrape after scrape", async (t) => {
  const merged = mergedMetrics(thread(2), async () => []);
  t.is(await merged.metrics(), await thread(2).metrics());
  t.is(await merged.metrics(), await thread(2).metrics());
});

test("a thread that does not answer fails the scrape", async (t) => {
  await t.throwsAsync(mergedMetrics(thread(1), () => Promise.reject(new Error("silent"))).metrics(), { message: "silent" });
});
