/** PINGs that find out whether the far end of a tunnel still lives (ztunnel contract 1.7). */
import type { Http2Session } from "node:http2";
import { type Clock, MeshError } from "@fairway/runtime";

export interface KeepaliveOptions {
  readonly clock: Clock;
  /** From the handshake, and from each answer, to the next PING. */
  readonly intervalMs: number;
  /** How long an answer may take. */
  readonly timeoutMs: number;
  readonly onDead: (error: MeshError) => void;
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
    if (stopped || session.destroyed) return;
    timer = clock.schedule(timeoutMs, dead);
    // A ping that cannot be sent or is cancelled means that the session ends; its own events tell why.
    session.ping((error) => {
      if (stopped || error !== null) return;
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
