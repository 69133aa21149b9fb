/**
 * A real pipe for a child's output. What Node gives a child for "pipe" is a socket, which /dev/stdout and /dev/stderr cannot open again
 * (ENXIO): programs that write their logs there would not start.
 */
import { closeSync } from "node:fs";
import { Socket } from "node:net";
import type { Readable } from "node:stream";
import { openPipe } from "./system-calls.ts";

export interface OutputPipe {
  /** Ends when the last process that holds the write end is gone. */
  readonly output: Readable;
  /** Give it to `spawn` in `stdio`, then call `release`. */
  readonly writeEnd: number;
  /** Closes our copy of the write end. */
  release(): void;
}

/** Throws a MeshError with the errno's name when no descriptor is left. */
export function outputPipe(): OutputPipe {
  const { readEnd, writeEnd } = openPipe();
  return { output: new Socket({ fd: readEnd, readable: true, writable: false }), writeEnd, release: () => closeSync(writeEnd) };
}
