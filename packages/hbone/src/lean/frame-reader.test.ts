/** The frame reader: the same events however the bytes are cut, and nothing but faults for garbage. */
import test from "ava";
import fc from "fast-check";
import { flags, frame, frameTypes } from "../compliance/raw-peer.ts";
import { ConnectionFault, errorCodes } from "./error-codes.ts";
import { type FrameHandler, FrameReader } from "./frame-reader.ts";
import { clientPreface } from "./frames.ts";

const maxFrameSize = 16_384;
const maxBlockBytes = 2_048;

/** Writes down what it is told; DATA only as a whole, for pieces depend on the chunks. */
class Recorder implements FrameHandler {
  readonly events: string[] = [];
  #data: Buffer[] = [];
  #expected = "";

  onDataStart(stream: number, length: number, endStream: boolean): void {
    this.#data = [];
    this.#expected = `data ${stream} ${length} ${endStream}`;
  }
  onData(piece: Buffer): void {
    this.#data.push(Buffer.from(piece));
  }
  onDataEnd(): void {
    this.events.push(`${this.#expected} ${Buffer.concat(this.#data).toString("hex")}`);
  }
  onHeaders(stream: number, block: Buffer, endStream: boolean): void {
    this.events.push(`headers ${stream} ${endStream} ${block.toString("hex")}`);
  }
  onReset(stream: number, code: number): void {
    this.events.push(`reset ${stream} ${code}`);
  }
  onSettings(settings: readonly (readonly [number, number])[]): void {
    this.events.push(`settings ${settings.join(" ")}`);
  }
  onSettingsAck(): void {
    this.events.push("settings ack");
  }
  onPing(payload: Buffer, ack: boolean): void {
    this.events.push(`ping ${payload.toString("hex")} ${ack}`);
  }
  onGoaway(lastStream: number, code: number): void {
    this.events.push(`goaway ${lastStream} ${code}`);
  }
  onWindowUpdate(stream: number, increment: number): void {
    this.events.push(`window ${stream} ${increment}`);
  }
  onIgnored(): void {
    this.events.push("ignored");
  }
  onStreamFault(stream: number, code: number): void {
    this.events.push(`fault ${stream} ${code}`);
  }
}

/** The events up to the fault, and the fault's code at the end, if there was one. Anything else that is thrown goes through. */
function read(chunks: readonly Uint8Array[], preface = false): string[] {
  const recorder = new Recorder();
  const reader = new FrameReader(recorder, { preface, maxFrameSize, maxBlockBytes });
  try {
    for (const chunk of chunks) reader.feed(Buffer.from(chunk));
  } catch (thrown) {
    if (!(thrown instanceof ConnectionFault)) throw thrown;
    recorder.events.push(`over ${thrown.http2Code}`);
  }
  return recorder.events;
}

const settings = frame(frameTypes.settings, 0, 0);
const byte = fc.integer({ min: 0, max: 255 });
const stream = fc.integer({ min: 0, max: 4 });
const bytes = (most: number) => fc.uint8Array({ maxLength: most });
const padding = fc.integer({ min: 0, max: 40 });

function padded(content: Uint8Array, length: number): Buffer {
  return Buffer.concat([Buffer.from([length]), content, Buffer.alloc(length)]);
}

const anyFrame = fc.oneof(
  fc.tuple(fc.integer({ min: 0, max: 11 }), byte, stream, bytes(40)).map(([type, bits, id, payload]) => frame(type, bits, id, payload)),
  fc.tuple(stream, bytes(300), padding).map(([id, content, length]) => frame(frameTypes.data, flags.padded, id, padded(content, length))),
  fc.tuple(stream, bytes(300)).map(([id, content]) => frame(frameTypes.data, flags.endStream, id, content)),
  fc
    .tuple(bytes(60), bytes(60))
    .map(([first, second]) => Buffer.concat([frame(frameTypes.headers, 0, 1, first), frame(frameTypes.continuation, flags.endHeaders, 1, second)])),
  fc.tuple(bytes(60), padding).map(([content, length]) => frame(frameTypes.headers, flags.padded | flags.endHeaders, 3, padded(content, length))),
  fc.tuple(stream, fc.uint8Array({ minLength: 4, maxLength: 4 })).map(([id, payload]) => frame(frameTypes.windowUpdate, 0, id, payload)),
  bytes(30).map((debug) => frame(frameTypes.goaway, 0, 0, Buffer.concat([Buffer.alloc(8, 1), debug]))),
);

/** Any bytes of frames, and where to cut them. */
const cutStream = fc.array(anyFrame, { maxLength: 12 }).chain((frames) => {
  const whole = Buffer.concat([settings, ...frames]);
  return fc.tuple(fc.constant(whole), fc.array(fc.integer({ min: 0, max: whole.length }), { maxLength: 30 }));
});

test("frames are the same however the bytes are cut", (t) => {
  fc.assert(
    fc.property(cutStream, ([whole, cuts]) => {
      const at = [0, ...cuts.sort((a, b) => a - b), whole.length];
      const chunks = at.slice(1).map((end, index) => whole.subarray(at[index], end));
      t.deepEqual(read(chunks), read([whole]));
    }),
    { numRuns: 2_000 },
  );
});

test("random bytes are frames or a fault, and nothing else", (t) => {
  fc.assert(
    fc.property(bytes(400), (garbage) => {
      read([garbage]);
      read([settings, garbage]);
      read([clientPreface, garbage], true);
      read([garbage], true);
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

test("padding, priority and debug data are read past", (t) => {
  const priority = 0x20;
  t.deepEqual(
    read([
      settings,
      frame(frameTypes.data, flags.padded, 1, padded(Buffer.from("ab"), 3)),
      frame(frameTypes.data, flags.padded | flags.endStream, 1, Buffer.from([2, 0, 0])),
      frame(frameTypes.headers, flags.padded | flags.endHeaders | priority, 3, padded(Buffer.from([0, 0, 0, 0, 9, 0x82]), 2)),
      frame(frameTypes.goaway, 0, 0, Buffer.concat([Buffer.from("8000000700000002", "hex"), Buffer.from("debug")])),
      frame(frameTypes.priority, 0, 5, Buffer.alloc(5)),
      frame(frameTypes.priority, 0, 5, Buffer.alloc(4)),
      frame(99, 0xff, 7, Buffer.alloc(100)),
    ]),
    [
      "settings ",
      "data 1 6 false 6162",
      "data 1 3 true ",
      "headers 3 false 82",
      "goaway 7 2",
      "ignored",
      `fault 5 ${errorCodes.frameSizeError}`,
      "ignored",
      "ignored",
    ],
  );
});

const faults: readonly (readonly [string, number, readonly Uint8Array[]])[] = [
  ["an acknowledgement before SETTINGS", errorCodes.protocolError, [frame(frameTypes.settings, flags.ack, 0)]],
  ["a PING before SETTINGS", errorCodes.protocolError, [frame(frameTypes.ping, 0, 0, Buffer.alloc(8))]],
  ["a frame longer than allowed", errorCodes.frameSizeError, [settings, frame(99, 0, 0, Buffer.alloc(0), maxFrameSize + 1)]],
  ["SETTINGS of half an entry", errorCodes.frameSizeError, [settings, frame(frameTypes.settings, 0, 0, Buffer.alloc(3))]],
  ["an acknowledgement with settings", errorCodes.frameSizeError, [settings, frame(frameTypes.settings, flags.ack, 0, Buffer.alloc(6))]],
  ["SETTINGS with too many entries", errorCodes.enhanceYourCalm, [settings, frame(frameTypes.settings, 0, 0, Buffer.alloc(6 * 65))]],
  ["SETTINGS on a stream", errorCodes.protocolError, [settings, frame(frameTypes.settings, 0, 1)]],
  ["a PING of 7 bytes", errorCodes.frameSizeError, [settings, frame(frameTypes.ping, 0, 0, Buffer.alloc(7))]],
  ["a GOAWAY of 7 bytes", errorCodes.frameSizeError, [settings, frame(frameTypes.goaway, 0, 0, Buffer.alloc(7))]],
  ["RST_STREAM on stream 0", errorCodes.protocolError, [settings, frame(frameTypes.rstStream, 0, 0, Buffer.alloc(4))]],
  ["RST_STREAM of 5 bytes", errorCodes.frameSizeError, [settings, frame(frameTypes.rstStream, 0, 1, Buffer.alloc(5))]],
  ["WINDOW_UPDATE of 3 bytes", errorCodes.frameSizeError, [settings, frame(frameTypes.windowUpdate, 0, 1, Buffer.alloc(3))]],
  ["DATA on stream 0", errorCodes.protocolError, [settings, frame(frameTypes.data, 0, 0, Buffer.alloc(1))]],
  ["padded DATA without a length", errorCodes.frameSizeError, [settings, frame(frameTypes.data, flags.padded, 1)]],
  ["DATA that is less than its padding", errorCodes.protocolError, [settings, frame(frameTypes.data, flags.padded, 1, Buffer.from([2, 0]))]],
  ["HEADERS that are less than their padding", errorCodes.protocolError, [settings, frame(frameTypes.headers, flags.padded, 1, Buffer.from([2, 0]))]],
  ["HEADERS that are less than their priority", errorCodes.frameSizeError, [settings, frame(frameTypes.headers, 0x20, 1, Buffer.alloc(4))]],
  ["padded HEADERS without a length", errorCodes.frameSizeError, [settings, frame(frameTypes.headers, flags.padded, 1)]],
  ["CONTINUATION of another stream", errorCodes.protocolError, [settings, frame(frameTypes.headers, 0, 1), frame(frameTypes.continuation, 4, 3)]],
  ["a PING within a header block", errorCodes.protocolError, [settings, frame(frameTypes.headers, 0, 1), frame(frameTypes.ping, 0, 0, Buffer.alloc(8))]],
  ["CONTINUATION of nothing", errorCodes.protocolError, [settings, frame(frameTypes.continuation, 4, 1)]],
  ["PUSH_PROMISE", errorCodes.protocolError, [settings, frame(frameTypes.pushPromise, 4, 1, Buffer.alloc(4))]],
  ["HEADERS that are too long", errorCodes.enhanceYourCalm, [settings, frame(frameTypes.headers, 0, 1, Buffer.alloc(maxBlockBytes + 1))]],
  [
    "CONTINUATION without end, of nothing",
    errorCodes.enhanceYourCalm,
    [settings, frame(frameTypes.headers, 0, 1), ...Array.from({ length: 33 }, () => frame(frameTypes.continuation, 0, 1))],
  ],
  [
    "CONTINUATION that makes the block too long",
    errorCodes.enhanceYourCalm,
    [settings, frame(frameTypes.headers, 0, 1, Buffer.alloc(maxBlockBytes)), frame(frameTypes.continuation, 0, 1, Buffer.alloc(1))],
  ],
];

for (const [what, code, chunks] of faults) {
  test(`${what} is a fault of the connection`, (t) => {
    t.is(read(chunks).at(-1), `over ${code}`);
  });
}

test("a connection that does not start with the preface is refused at its first wrong byte", (t) => {
  t.deepEqual(read([Buffer.from("PRI * HTTP/1")], true), [`over ${errorCodes.protocolError}`]);
  t.deepEqual(read([Buffer.from("PRI * HT"), Buffer.from("TP/2.0\r\n\r\nSM\r\n\r\n"), settings], true), ["settings "]);
});
