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

/** Watches `socket` for the end of either direction. Dispose when the connection ended. */
export function watchHalfClosed(socket: Socket, { clock, afterMs, moved, expire }: HalfClosedOptions): Disposable {
  let timer: Disposable | undefined;
  const arm = (): void => {
    if (timer === undefined) wait();
  };
  const wait = (): void => {
    const before = moved();
    timer = clock.schedule(afterMs, () => {
      if (moved() === before) expire();
      else wait();
    });
  };
  socket.once("end", arm);
  socket.once("finish", arm);
  // A reset is neither of the two.
  socket.once("close", arm);
  return {
    [Symbol.dispose]: () => {
      socket.off("end", arm);
      socket.off("finish", arm);
      socket.off("close", arm);
      timer?.[Symbol.dispose]();
    },
  };
}
