/** Inputs that are nearly right: samples cut, spliced, repeated and bent. Everything follows from a seed and a number. */

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** What breaks readers: names of Object's own, ends of lines and strings, numbers at the edge, bytes that are no text. */
const nasty: readonly Buffer[] = [
  "__proto__",
  "constructor",
  "toString",
  "\r\n",
  "\r\n\r\n",
  "\n",
  "\0",
  '"',
  "%00",
  "%1eth0",
  "fe80::1%eth0",
  "::ffff:",
  "..",
  "//",
  "*",
  "-1",
  "0",
  "65536",
  "4294967296",
  "9007199254740993",
  "1e999",
  "NaN",
  "\u{1f4a9}",
  "&a [*a,*a]",
]
  .map((text) => Buffer.from(text))
  .concat([
    Buffer.from([0xff, 0xff, 0xff, 0xff]),
    Buffer.from([0x7f, 0xff, 0xff, 0xff]),
    Buffer.from([0x80, 0x00]),
    Buffer.from([0xc3, 0x28]),
    Buffer.alloc(64, 0x80),
  ]);

const mostSteps = 6;
/** Longer ones are found by repetition, and say nothing that these do not. */
const mostBytes = 16 * 1024;

export function mutate(samples: readonly Buffer[], random: () => number): Buffer {
  const below = (limit: number): number => Math.floor(random() * limit);
  const pick = <T>(from: readonly T[], otherwise: T): T => from[below(from.length)] ?? otherwise;
  const empty = Buffer.alloc(0);
  let bytes = Buffer.from(pick(samples, empty));
  const insert = (at: number, more: Buffer): Buffer => Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)]);
  const steps: readonly (() => Buffer)[] = [
    () => {
      const at = below(bytes.length);
      if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
      return bytes;
    },
    () => {
      if (bytes.length > 0) bytes[below(bytes.length)] = below(256);
      return bytes;
    },
    () => bytes.subarray(0, below(bytes.length + 1)),
    () => bytes.subarray(below(bytes.length + 1)),
    () => insert(below(bytes.length + 1), Buffer.from([below(256)])),
    () => insert(below(bytes.length + 1), pick(nasty, empty)),
    () => {
      const start = below(bytes.length + 1);
      return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + below(8))]);
    },
    () => {
      const start = below(bytes.length + 1);
      const piece = bytes.subarray(start, start + 1 + below(32));
      return insert(start, Buffer.concat(Array.from({ length: 1 + below(16) }, () => piece)));
    },
    () => {
      const other = pick(samples, empty);
      return Buffer.concat([bytes.subarray(0, below(bytes.length + 1)), other.subarray(below(other.length + 1))]);
    },
    () => Buffer.from(Array.from({ length: below(64) }, () => below(256))),
  ];
  const count = below(mostSteps);
  for (let step = 0; step < count; step++) bytes = Buffer.from(pick(steps, () => bytes)());
  return bytes.subarray(0, mostBytes);
}
