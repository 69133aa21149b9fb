/** A TCP connection with a deadline; half-open, as whoever pipes needs it. */
import { connect, type Socket } from "node:net";
import { formatSocketAddress, type SocketAddress } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import { waypointError } from "./failure.ts";

export interface DialOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Throws WAYPOINT_UPSTREAM_CONNECT, or the signal's reason. The socket has an error listener that stays. */
export function dial(address: SocketAddress, { clock, timeoutMs, signal }: DialOptions): Promise<Socket> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address.ip, port: address.port, allowHalfOpen: true, noDelay: true });
    const end = (): void => {
      deadline[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      socket.off("connect", onConnect);
      socket.off("error", onError);
    };
    const fail = (reason: unknown): void => {
      end();
      socket.destroy();
      reject(reason);
    };
    const onConnect = (): void => {
      end();
      resolve(socket);
    };
    const refused = (why: string, cause?: unknown): Error =>
      waypointError("WAYPOINT_UPSTREAM_CONNECT", `cannot connect to ${formatSocketAddress(address)}: ${why}`, { cause });
    const onError = (cause: Error): void => fail(refused("the connection failed", cause));
    const onAbort = (): void => fail(signal.reason);
    const deadline = clock.schedule(timeoutMs, () => fail(refused(`no answer within ${timeoutMs} ms`)));
    // Whatever comes later is seen by whoever reads the socket; it must not become an uncaught exception.
    socket.on("error", () => undefined);
    socket.once("error", onError);
    socket.once("connect", onConnect);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
