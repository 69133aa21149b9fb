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
    if (timer !== undefined) return;
    const before = moved();
    timer = clock.schedule(afterMs, () => {
      timer = undefined;
      if (moved() === before) expire();
      else arm();
    });
  };
  socket.once("end", arm);
  socket.once("finish", arm);
  return {
    [Symbol.dispose]: () => {
      socket.off("end", arm);
      socket.off("finish", arm);
      timer?.[Symbol.dispose]();
    },
  };
}
