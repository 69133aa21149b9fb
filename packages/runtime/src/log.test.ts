import test from "ava";
import { Bare, createLogger, LogFilter } from "./log.ts";

const now = (): Date => new Date("2026-01-02T03:04:05.678Z");

function capture(format: "plain" | "json", filter = new LogFilter()): { lines: string[]; log: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  return { lines, log: createLogger("access", { format, filter, now, write: (line) => lines.push(line) }) };
}

test("plain lines are tab separated; text is quoted, addresses are bare, unknown values are left out", (t) => {
  const { lines, log } = capture("plain");
  log.info("connection complete", { "src.addr": new Bare("10.0.0.1:80"), "src.workload": "web", bytes_sent: 5, error: undefined });
  t.deepEqual(lines, ['2026-01-02T03:04:05.678Z\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:80 src.workload="web" bytes_sent=5\n']);
});

test("JSON lines carry level, time, scope and message first", (t) => {
  const { lines, log } = capture("json");
  log.warn("refused", { count: 3n, error: new Error("outer", { cause: new Error("inner") }) });
  t.is(lines[0], '{"level":"warn","time":"2026-01-02T03:04:05.678Z","scope":"access","message":"refused","count":"3","error":"outer: inner"}\n');
});

test("no value can start a line of its own", (t) => {
  const { lines, log } = capture("plain");
  log.info("a\nb", { peer: "x\n2026-01-01\tinfo\tforged", address: new Bare("1\n2") });
  t.is(lines.length, 1);
  t.is(lines[0]?.split("\n").length, 2);
});

test("a filter chooses the level by scope while the process runs, and refuses nonsense whole", (t) => {
  const filter = new LogFilter("warn");
  const { lines, log } = capture("plain", filter);
  log.info("hidden");
  filter.apply("access=debug");
  log.debug("shown");
  t.is(lines.length, 1);
  t.throws(() => filter.apply("info,access=loud"), { code: "RUNTIME_BAD_LOG_FILTER" });
  t.is(filter.toString(), "warn,access=debug");
  filter.reset();
  t.is(filter.toString(), "warn", "back to that of the start");
  filter.replace("access=trace");
  t.is(filter.toString(), "info,access=trace");
});
