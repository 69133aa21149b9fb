/**
 * A connection of which one side has ended may go on for long, but not forever without a byte (architecture 7.7): a peer that vanished
 * after its FIN would otherwise hold both sockets until the process ends.
 */
import type { Socket } from "node:net";
import type { Clock } from "@fairway/runtime";

export interface HalfClosedOptions {
  readonly clock: Clock;
  /** Silence after which `expire` runs. */
  readonly afterMs: number;
  /** Bytes moved so far, in both directions. */
  readonly moved: () => number;
  readonly expire: () => void;
}

/** With nobody left on our side, what still waits can only go to a peer whose window stays shut: it gets minutes, not the whole silence. */
export const goneMs: number = 5 * 60_000;

/** Watches `socket` for the end of either direction. Dispose when the connection ended. */
export function watchHalfClosed(socket: Socket, { clock, afterMs, moved, expire }: HalfClosedOptions): Disposable {
  let timer: Disposable | undefined;
  const arm = (): void => {
    if (timer === undefined) wait(afterMs);
  };
  const hurry = (): void => {
    timer?.[Symbol.dispose]();
    wait(Math.min(afterMs, goneMs));
  };
  const wait = (silenceMs: number): void => {
    const before = moved();
    timer = clock.schedule(silenceMs, () => {
      if (moved() === before) expire();
      else wait(silenceMs);
    });
  };
  socket.once("end", arm);
  socket.once("finish", arm);
  // A reset is neither of the two, and after both nobody is left.
  socket.once("close", hurry);
  return {
    [Symbol.dispose]: () => {
      socket.off("end", arm);
      socket.off("finish", arm);
      socket.off("close", hurry);
      timer?.[Symbol.dispose]();
    },
  };
}
