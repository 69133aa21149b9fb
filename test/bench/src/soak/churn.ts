/**
 * Applications that behave as badly as real ones do. `serve` answers in one pod, `act <ip> <a second>` goes there from another, does something
 * else each time, rests when told to `rest` and says what it saw. Both run inside pods and end with their parent.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type ChurnCounts, ports } from "./places.ts";

const actors = 12;
const chunk = Buffer.alloc(64 * 1_024, "s");
const patienceMs = 5_000;

function serve(): void {
  const listen = (port: number, onConnection: (socket: Socket) => void): void => {
    createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on("error", () => socket.destroy());
      socket.setTimeout(4 * patienceMs, () => socket.destroy());
      onConnection(socket);
    }).listen(port);
  };
  listen(ports.echo, (socket) => void socket.pipe(socket));
  listen(ports.denied, (socket) => void socket.pipe(socket));
  listen(ports.source, (socket) => {
    const push = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on("drain", push).resume();
    push();
  });
  listen(ports.reset, (socket) => void socket.once("data", () => socket.resetAndDestroy()));
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function open(host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  socket.on("error", () => {});
  socket.setTimeout(patienceMs, () => socket.destroy(new Error("nothing moved")));
  await once(socket, "connect");
  return socket;
}

function gone(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });
}

class Actor {
  readonly #host: string;
  readonly #counts: ChurnCounts;

  constructor(host: string, counts: ChurnCounts) {
    this.#host = host;
    this.#counts = counts;
  }

  async act(): Promise<void> {
    const ways = [this.#echo, this.#echo, this.#late, this.#abandon, this.#slow, this.#cut, this.#beReset, this.#beDenied, this.#toNobody];
    const way = ways[Math.floor(Math.random() * ways.length)] ?? this.#echo;
    this.#counts.connections += 1;
    try {
      await way();
    } catch {
      this.#counts.broken += 1;
    }
  }

  /** Everything at once, FIN, and the whole echo back. */
  readonly #echo = async (port: number = ports.echo, holdMs = 0): Promise<void> => {
    const socket = await open(this.#host, port);
    const bytes = Buffer.alloc(1 + Math.floor(Math.random() * 200_000), Math.floor(Math.random() * 256));
    const received: Buffer[] = [];
    let ended = false;
    socket
      .on("data", (data: Buffer) => void received.push(data))
      .once("end", () => {
        ended = true;
      });
    socket.write(bytes);
    if (holdMs > 0) await pause(holdMs);
    socket.end();
    await gone(socket);
    const reply = Buffer.concat(received);
    if (!bytes.subarray(0, reply.length).equals(reply)) this.#counts.wrong += 1;
    else if (ended && reply.length === bytes.length) this.#counts.whole += 1;
    else this.#counts.broken += 1;
  };

  readonly #late = (): Promise<void> => this.#echo(ports.echo, Math.random() * 500);

  /** Goes away while the other end is sending. */
  readonly #abandon = async (): Promise<void> => {
    const socket = await open(this.#host, ports.source);
    // It may end without a byte: nobody is there.
    await Promise.race([once(socket, "data"), gone(socket)]);
    socket.destroy();
    await gone(socket);
  };

  /** Reads nothing for a while: windows and buffers fill up. */
  readonly #slow = async (): Promise<void> => {
    const socket = await open(this.#host, ports.source);
    await pause(Math.random() * 500);
    socket.resetAndDestroy();
    await gone(socket);
  };

  readonly #cut = async (): Promise<void> => {
    const socket = await open(this.#host, ports.echo);
    socket.write(chunk);
    await pause(Math.random() * 5);
    socket.resetAndDestroy();
    await gone(socket);
  };

  readonly #beReset = async (): Promise<void> => {
    const socket = await open(this.#host, ports.reset);
    socket.resume().write("x");
    socket.once("end", () => socket.end());
    await gone(socket);
  };

  /** May be cut off in the middle by a policy. */
  readonly #beDenied = (): Promise<void> => this.#echo(ports.denied, Math.random() * 1_000);

  readonly #toNobody = async (): Promise<void> => {
    const socket = await open(this.#host, ports.nobody);
    socket.resume().end("x");
    await gone(socket);
  };
}

function act(host: string, perSecond: number): void {
  const counts: ChurnCounts = { connections: 0, whole: 0, broken: 0, wrong: 0 };
  let running = false;
  let busy: Promise<unknown> = Promise.resolve();
  const run = async (): Promise<void> => {
    const actor = new Actor(host, counts);
    while (running) {
      const started = performance.now();
      await actor.act();
      await pause(Math.max(0, (1_000 * actors) / perSecond - (performance.now() - started)));
    }
  };
  process.on("message", async (message) => {
    if (message === "go" && !running) {
      running = true;
      busy = Promise.all(Array.from({ length: actors }, run));
    }
    if (message !== "rest") return;
    running = false;
    await busy;
    process.send?.(counts);
  });
}

const [mode = "", host = "", perSecond = "50"] = process.argv.slice(2);
if (mode === "serve") serve();
if (mode === "act") act(host, Number(perSecond));
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
