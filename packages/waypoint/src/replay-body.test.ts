import test from "ava";
import fc from "fast-check";
import { ReplayBody } from "./replay-body.ts";
import { ReadSink, WrittenBody } from "./test-request.ts";

test("every attempt reads the same bytes, however the source and the readers take turns", (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string({ minLength: 1, maxLength: 8 }), fc.constant("attempt" as const), fc.constant("pause" as const)), { maxLength: 24 }),
      (steps) => {
        const source = new WrittenBody();
        const replay = new ReplayBody(source, 1_000);
        let sink = new ReadSink();
        replay.attempt().flowInto(sink);
        let written = "";
        for (const step of steps) {
          if (step === "attempt") {
            sink = new ReadSink();
            replay.attempt().flowInto(sink);
          } else if (step === "pause") {
            sink.takes = !sink.takes;
            if (sink.takes) sink.onReady?.();
          } else {
            source.sink?.write(Buffer.from(step));
            written += step;
          }
        }
        sink.takes = true;
        sink.onReady?.();
        source.sink?.end(undefined);
        return sink.text === written && sink.ended;
      },
    ),
  );
  t.pass();
});

test("beyond its bound a body is sent once: nothing is kept, and nothing is lost", (t) => {
  const source = new WrittenBody();
  const replay = new ReplayBody(source, 4);
  const sink = new ReadSink();
  replay.attempt().flowInto(sink);
  source.sink?.write(Buffer.from("1234"));
  t.true(replay.replayable);
  source.sink?.write(Buffer.from("5"));
  t.false(replay.replayable);
  source.sink?.write(Buffer.from("6"));
  source.sink?.end(undefined);
  t.is(sink.text, "123456");
  t.true(sink.ended);
});

test("a slow reader pauses the source, and is resumed where it stopped", (t) => {
  const source = new WrittenBody();
  const replay = new ReplayBody(source, 2);
  const sink = new ReadSink();
  sink.takes = false;
  replay.attempt().flowInto(sink);
  t.false(source.sink?.write(Buffer.from("abc")));
  const before = source.ready;
  sink.takes = true;
  sink.onReady?.();
  t.is(source.ready, before + 1);
});

test("a source that breaks off breaks the attempt off, and no other is possible", (t) => {
  const source = new WrittenBody();
  const replay = new ReplayBody(source);
  const sink = new ReadSink();
  replay.attempt().flowInto(sink);
  source.sink?.fail(new Error("client gone"));
  t.is(sink.failed?.message, "client gone");
  t.false(replay.replayable);
});

test("a declared length beyond the bound is known at once", (t) => {
  t.false(new ReplayBody(new WrittenBody(100), 99).replayable);
});
