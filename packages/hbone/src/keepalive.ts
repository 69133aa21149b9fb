/** PINGs that find out whether the far end of a tunnel still lives (ztunnel contract 1.7). */
import type { Http2Session } from "node:http2";
import { type Clock, MeshError } from "@fairway/runtime";

export interface KeepaliveOptions {
  readonly clock: Clock;
  /** From the handshake, and from each answer, to the next PING. */
  readonly intervalMs: number;
  /** How long an answer may take. */
  readonly timeoutMs: number;
  /** Without an error when the session ended well but its peer does not let go of the connection. */
  readonly onDead: (error: MeshError | undefined) => void;
}

/** Starts pinging; traffic does not suppress PINGs. Dispose to stop. */
export function keepAlive(session: Http2Session, { clock, intervalMs, timeoutMs, onDead }: KeepaliveOptions): Disposable {
  let timer = clock.schedule(intervalMs, ping);
  let stopped = false;
  const dead = (): void => {
    stop();
    onDead(new MeshError("HBONE_PING_TIMEOUT", `the peer did not answer a PING within ${timeoutMs} ms; is it gone or cut off?`));
  };
  function ping(): void {
    if (stopped) return;
    if (session.destroyed) {
      stop();
      onDead(undefined);
      return;
    }
    let awaited = true;
    // Timers come before sockets: to a process that was stopped or starved, the answer is there and not read yet.
    timer = clock.schedule(timeoutMs, () => {
      setImmediate(() => {
        if (awaited && !stopped) dead();
      });
    });
    // A ping that cannot be sent or is cancelled means that the session ends; the deadline stays, should it not end well.
    session.ping((error) => {
      if (stopped || error !== null) return;
      awaited = false;
      timer[Symbol.dispose]();
      timer = clock.schedule(intervalMs, ping);
    });
  }
  function stop(): void {
    stopped = true;
    timer[Symbol.dispose]();
  }
  return { [Symbol.dispose]: stop };
}
