/** A listening server around its connection callback: shared by both pod networks. */
import { Server, type Socket } from "node:net";
import { MeshError } from "@fairway/runtime";
import { keepErrorsHarmless } from "./dial.ts";
import type { Listener } from "./pod-network.ts";

/** A server whose sockets come paused and half-open, and whose callback cannot end the process. */
export function pausedServer(onConnection: (socket: Socket) => void): Server {
  return new Server({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    keepErrorsHarmless(socket);
    try {
      onConnection(socket);
    } catch (thrown) {
      process.emitWarning(MeshError.from(thrown, "LINUX_CONNECTION_HANDLER_FAILED"));
      socket.destroy();
    }
  });
}

/** Waits until `start` made the server listen; the error of a server that could not is the rejection. */
export function listening(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const onListening = (): void => {
      server.off("error", onError);
      // An accept that fails later (no descriptors left) must not end the process: the kernel keeps the connection waiting.
      server.on("error", (error) => process.emitWarning(error));
      resolve();
    };
    const onError = (error: Error): void => {
      server.off("listening", onListening);
      reject(error);
    };
    server.once("listening", onListening);
    server.once("error", onError);
    start();
  });
}

/** The Listener of a server that listens; `onClosed` runs once, when accepting ended. */
export function listenerOf(server: Server, transparent: boolean, onClosed: (listener: Listener) => void): Listener {
  const address = server.address();
  const listener: Listener = {
    server,
    port: typeof address === "object" && address !== null ? address.port : 0,
    transparent,
    close: () => {
      // Closing twice reports an error to the callback only; the callback is absent.
      if (server.listening) server.close();
      onClosed(listener);
    },
    [Symbol.asyncDispose]: async () => listener.close(),
  };
  return listener;
}
