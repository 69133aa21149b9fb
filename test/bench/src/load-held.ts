/** Connections that exchange a byte and then stay: idle ones, opened a few at a time, and bursts, opened as fast as they are taken. */
import type { Socket } from "node:net";
import { dial, later } from "./load-connection.ts";
import type { LoadRequest, LoadResult } from "./measures.ts";

/** In the order they were opened. */
const held: Socket[] = [];
const exchangeTimeoutMs = 15_000;

/** One byte there and back on a socket that is open; false when it is not, or nothing comes. */
function exchange(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), exchangeTimeoutMs);
    const settle = (alive: boolean): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("close", onClose);
      resolve(alive);
    };
    const onData = (): void => settle(true);
    const onClose = (): void => settle(false);
    socket.once("data", onData).once("close", onClose);
    if (socket.destroyed || !socket.writable) settle(false);
    else socket.write("x");
  });
}

/** Holds `connections` in all, at most `atOnce` of them under way; those that fail count as failures and are not tried again. */
export async function hold({ host, connections, atOnce, port }: LoadRequest & { kind: "hold" }): Promise<LoadResult> {
  const started = performance.now();
  let [wanted, failures] = [connections - held.length, 0];
  const one = async (): Promise<void> => {
    try {
      const socket = await dial(port, host);
      socket.on("error", () => {});
      if (await exchange(socket)) held.push(socket);
      else {
        failures += 1;
        socket.destroy();
      }
    } catch {
      failures += 1;
    }
  };
  const opener = async (): Promise<void> => {
    while (wanted > 0) {
      wanted -= 1;
      await one();
    }
  };
  await Promise.all(Array.from({ length: atOnce }, opener));
  return { count: held.length, seconds: (performance.now() - started) / 1000, failures };
}

/** How many of the held connections, the first `skip` left out, still carry a byte there and back. */
export async function checkHeld({ skip }: LoadRequest & { kind: "held" }): Promise<LoadResult> {
  const started = performance.now();
  const checked = held.slice(skip);
  const alive = await Promise.all(checked.map(exchange));
  const count = alive.filter(Boolean).length;
  return { count, seconds: (performance.now() - started) / 1000, failures: checked.length - count };
}

/** Closes all but the first `keep`. */
export async function release({ keep }: LoadRequest & { kind: "release" }): Promise<LoadResult> {
  const closing = held.splice(keep);
  for (const socket of closing) socket.destroy();
  await later(0);
  return { count: closing.length, seconds: 0, failures: 0 };
}
