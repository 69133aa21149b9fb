/** A worker thread that wakes the load generator when requests are due: timers of the event loop are a millisecond apart, this waits for microseconds. */
import { parentPort, workerData } from "node:worker_threads";

export interface PacerSetup {
  readonly perSecond: number;
  readonly total: number;
  /** On the clock of `monotonicMs`. */
  readonly startMs: number;
}

const { perSecond, total, startMs } = workerData as PacerSetup;
const cell = new Int32Array(new SharedArrayBuffer(4));

for (let due = 0; due < total; ) {
  const now = Number(process.hrtime.bigint()) / 1e6;
  const early = startMs + (due * 1000) / perSecond - now;
  if (early > 0) Atomics.wait(cell, 0, 0, early);
  else {
    due = Math.min(total, Math.floor(((now - startMs) * perSecond) / 1000) + 1);
    parentPort?.postMessage(due);
  }
}
