/** From an unconnected socket to a connected one, or to one error that says why: shared by both pod networks. */
import type { Socket, TcpSocketConnectOpts } from "node:net";
import { type Clock, errorCode, MeshError } from "@fairway/runtime";

export interface ConnectOptions {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** The source address, where libuv is to bind it. */
  readonly localAddress?: string | undefined;
}

/** Connects `socket`; destroys it, and with it the descriptor, on every failure. */
export function connect(socket: Socket, options: ConnectOptions): Promise<void> {
  const { host, port, timeoutMs, signal, clock, localAddress } = options;
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      timer[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      socket.off("connect", onConnect);
      socket.off("error", onError);
      socket.off("close", onClose);
    };
    const fail = (reason: unknown): void => {
      settle();
      socket.destroy();
      reject(reason);
    };
    const onConnect = (): void => {
      settle();
      resolve();
    };
    const onError = (cause: Error): void => fail(dialError(host, port, cause));
    const onClose = (): void => fail(new MeshError("LINUX_DIAL_FAILED", `the socket to ${host}:${port} was closed while it was connecting`));
    const onAbort = (): void => fail(signal.reason);
    const timer = clock.schedule(timeoutMs, () =>
      fail(
        new MeshError(
          "LINUX_DIAL_TIMEOUT",
          `${host}:${port} did not answer within ${timeoutMs} ms; is the address right, and does a policy or firewall drop it?`,
        ),
      ),
    );
    socket.on("connect", onConnect);
    socket.on("error", onError);
    socket.on("close", onClose);
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    const target: TcpSocketConnectOpts = { host, port, ...(localAddress === undefined ? {} : { localAddress }) };
    try {
      socket.connect(target);
    } catch (thrown) {
      fail(dialError(host, port, thrown));
    }
  });
}

/** An error that nobody listens for yet must not end the process; whoever pipes the socket adds a listener of its own. */
export function keepErrorsHarmless(socket: Socket): void {
  socket.on("error", () => {});
}

function dialError(host: string, port: number, cause: unknown): MeshError {
  const errno = errorCode(cause) ?? "unknown";
  const details = { errno };
  switch (errno) {
    case "ECONNREFUSED":
      return new MeshError("LINUX_DIAL_REFUSED", `${host}:${port} refused the connection; does anything listen there?`, { cause, details });
    case "ETIMEDOUT":
      return new MeshError("LINUX_DIAL_TIMEOUT", `${host}:${port} did not answer`, { cause, details });
    default:
      return new MeshError("LINUX_DIAL_FAILED", `cannot connect to ${host}:${port} (${errno}); is there a route to it?`, { cause, details });
  }
}
