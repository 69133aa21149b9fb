/**
 * A connection of which one side has ended may go on for long, but not forever without a byte (architecture 7.7): a peer that vanished
 * after its FIN would otherwise hold both sockets until the process ends.
 */
import type { Socket } from "node:net";
import type { Clock } from "@fairway/runtime";

/**
 * Once the socket is gone altogether only what was read from it is still on its way. A copy that does not end then waits for a peer
 * that will never take it.
 */
const lingerMs = 60_000;

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
    if (timer === undefined) wait(afterMs);
  };
  const wait = (forMs: number): void => {
    const before = moved();
    timer = clock.schedule(forMs, () => {
      if (moved() === before) expire();
      else wait(forMs);
    });
  };
  const linger = (): void => {
    timer?.[Symbol.dispose]();
    wait(Math.min(afterMs, lingerMs));
  };
  socket.once("end", arm);
  socket.once("finish", arm);
  socket.once("close", linger);
  return {
    [Symbol.dispose]: () => {
      socket.off("end", arm);
      socket.off("finish", arm);
      socket.off("close", linger);
      timer?.[Symbol.dispose]();
    },
  };
}
