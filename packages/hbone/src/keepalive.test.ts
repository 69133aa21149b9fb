import { EventEmitter } from "node:events";
import type { Http2Session } from "node:http2";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { keepAlive } from "./keepalive.ts";
import { Keepalive } from "./lean/keepalive.ts";

const [intervalMs, timeoutMs] = [10_000, 20_000];
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface Pinged {
  /** The peer's answer to the last PING, as it is read from the socket. */
  readonly answer: () => void;
  readonly stop: () => void;
}

/** Both ways of asking, with the same three events. */
const kinds: ReadonlyMap<string, (clock: ManualClock, onDead: () => void, onPing: () => void) => Pinged> = new Map([
  [
    "lean",
    (clock: ManualClock, onDead: () => void, onPing: () => void): Pinged => {
      let last = Buffer.alloc(0);
      const send = (payload: Buffer): void => {
        last = Buffer.from(payload);
        onPing();
      };
      const keepalive = new Keepalive({ clock, intervalMs, timeoutMs, send, onDead });
      return { answer: () => keepalive.onAnswer(last), stop: () => keepalive[Symbol.dispose]() };
    },
  ],
  [
    "node-http2",
    (clock: ManualClock, onDead: () => void, onPing: () => void): Pinged => {
      let answer = (): void => {};
      const ping = (answered: (error: null) => void): void => {
        answer = () => answered(null);
        onPing();
      };
      const session = Object.assign(new EventEmitter(), { destroyed: false, ping }) as unknown as Http2Session;
      const keepalive = keepAlive(session, { clock, intervalMs, timeoutMs, onDead });
      return { answer: () => answer(), stop: () => keepalive[Symbol.dispose]() };
    },
  ],
]);

for (const [name, start] of kinds) {
  test(`${name}: an answer that lies unread when the deadline passes counts, and the next PING follows`, async (t) => {
    const clock = new ManualClock();
    let [dead, pings] = [0, 0];
    const { answer, stop } = start(
      clock,
      () => dead++,
      () => pings++,
    );
    await clock.advance(intervalMs);
    t.is(pings, 1);
    // Sockets are read after timers and before what a timer put off: that is where the answer of a process that slept arrives.
    const read = nextTurn().then(answer);
    await clock.advance(timeoutMs);
    await read;
    await nextTurn();
    t.is(dead, 0);
    await clock.advance(intervalMs);
    t.is(pings, 2);
    await clock.advance(timeoutMs);
    await nextTurn();
    t.is(dead, 1, "without an answer it is over");
    stop();
  });

  test(`${name}: who stops within that turn is told of no death`, async (t) => {
    const clock = new ManualClock();
    let dead = 0;
    const { stop } = start(
      clock,
      () => dead++,
      () => {},
    );
    await clock.advance(intervalMs);
    const stopping = nextTurn().then(stop);
    await clock.advance(timeoutMs);
    await stopping;
    await nextTurn();
    t.is(dead, 0);
  });
}
