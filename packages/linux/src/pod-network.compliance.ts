/** What every PodNetwork must do, as tests over a way to make one. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { errorCode } from "@fairway/runtime";
import type { ExecutionContext, TestFn } from "ava";
import type { Listener, ListenOptions, PodNetwork } from "./pod-network.ts";
import { skipped } from "./test-namespaces.ts";
import { leavePort } from "./udp.ts";

export interface Subject {
  readonly name: string;
  readonly needsPrivileges: boolean;
  readonly open: (t: ExecutionContext) => PodNetwork;
}

const never = new AbortController().signal;
const quick = { mark: 0, timeoutMs: 5_000, signal: never } as const;

/** Declares the suite for one implementation. */
export function podNetworkCompliance(test: TestFn, { name, needsPrivileges, open }: Subject): void {
  const behaviour = (title: string, run: (t: ExecutionContext, network: PodNetwork) => Promise<void>): void =>
    test.serial(`${name}: ${title}`, async (t) => {
      if (needsPrivileges && skipped(t)) return;
      await using network = open(t);
      await run(t, network);
    });

  for (const host of ["127.0.0.1", "::1"]) {
    behaviour(`carries bytes and both ends of a connection to ${host}`, async (t, network) => {
      const { listener, accepted } = await listen(network, { host });
      const { socket } = await network.dial({ ...quick, host, port: listener.port });
      const peer = await accepted;
      t.true(socket.isPaused());
      t.true(peer.isPaused());
      socket.end("question");
      t.is(await text(peer), "question");
      // The reading side ended; the writing side must still work.
      peer.end("answer");
      t.is(await text(socket), "answer");
    });
  }

  behaviour("a wildcard of both families accepts IPv4 and IPv6 clients and names their destination canonically", async (t, network) => {
    const arrived: { ip: string; port: number }[] = [];
    const listener = await network.listen(
      listenOptions({ host: "::", onConnection: (socket) => arrived.push(close(socket, network.originalDestination(socket))) }),
    );
    for (const host of ["127.0.0.1", "::1", "::ffff:127.0.0.1"]) {
      const { socket } = await network.dial({ ...quick, host, port: listener.port });
      await ended(socket);
    }
    t.deepEqual(
      arrived,
      ["127.0.0.1", "::1", "127.0.0.1"].map((ip) => ({ ip, port: listener.port })),
    );
  });

  behaviour("a refused dial is LINUX_DIAL_REFUSED", async (t, network) => {
    const { listener } = await listen(network, {});
    listener.close();
    const error = await t.throwsAsync(network.dial({ ...quick, host: "127.0.0.1", port: listener.port }));
    t.is(errorCode(error), "LINUX_DIAL_REFUSED");
  });

  behaviour("something that is not an IP address is LINUX_DIAL_FAILED", async (t, network) => {
    for (const host of ["example.org", "", "1.2.3", "fe80::1%lo"]) {
      const error = await t.throwsAsync(network.dial({ ...quick, host, port: 1 }));
      t.is(errorCode(error), "LINUX_DIAL_FAILED", host);
    }
  });

  behaviour("a port that is none is LINUX_DIAL_FAILED", async (t, network) => {
    for (const port of [-1, 65_536, Number.NaN]) {
      const error = await t.throwsAsync(network.dial({ ...quick, host: "127.0.0.1", port }));
      t.is(errorCode(error), "LINUX_DIAL_FAILED", String(port));
    }
  });

  behaviour("a dial whose signal aborts rejects with the signal's reason", async (t, network) => {
    const reason = new Error("enough");
    const before = await t.throwsAsync(network.dial({ ...quick, host: "127.0.0.1", port: 1, signal: AbortSignal.abort(reason) }));
    t.is(before, reason);
    const controller = new AbortController();
    const { listener } = await listen(network, {});
    const dial = network.dial({ ...quick, host: "127.0.0.1", port: listener.port, signal: controller.signal });
    controller.abort(reason);
    t.is(await t.throwsAsync(dial), reason);
  });

  behaviour("a second listener on a port is LINUX_LISTEN_FAILED, unless both share it", async (t, network) => {
    const { listener } = await listen(network, {});
    const error = await t.throwsAsync(network.listen(listenOptions({ port: listener.port })));
    t.is(errorCode(error), "LINUX_LISTEN_FAILED");
    const first = await listen(network, { reusePort: true });
    const second = await listen(network, { reusePort: true, port: first.listener.port });
    t.is(second.listener.port, first.listener.port);
  });

  behaviour("a closed listener takes nothing new and leaves its connections alone", async (t, network) => {
    const { listener, accepted } = await listen(network, {});
    const { socket } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port });
    const peer = await accepted;
    listener.close();
    listener.close();
    t.is(errorCode(await t.throwsAsync(network.dial({ ...quick, host: "127.0.0.1", port: listener.port }))), "LINUX_DIAL_REFUSED");
    socket.end("still here");
    t.is(await text(peer), "still here");
    peer.destroy();
    await ended(socket);
    const again = await network.listen(listenOptions({ port: listener.port }));
    t.is(again.port, listener.port, "the port is free at once");
  });

  behaviour("a connection handler that throws costs its connection and nothing else", async (t, network) => {
    const warned = once(process, "warning");
    const listener = await network.listen(
      listenOptions({
        onConnection: () => {
          throw new Error("handler");
        },
      }),
    );
    const { socket } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port });
    await ended(socket);
    await warned;
    t.pass();
  });

  for (const host of ["127.0.0.1", "::1"]) {
    behaviour(`a datagram to ${host} is answered from the address that it was sent to`, async (t, network) => {
      const server = await network.datagrams({ host, port: 0 });
      const client = await network.datagrams({ host, port: 0 });
      const asked = once(server, "message");
      client.send("question", server.address().port, host);
      const [question, from] = await asked;
      t.is(String(question), "question");
      const answered = once(client, "message");
      server.send("answer", from.port, from.address);
      const [answer, source] = await answered;
      t.is(String(answer), "answer");
      t.like(source, { address: host, port: server.address().port });
      for (const socket of [server, client]) socket.close();
    });
  }

  behaviour("a second datagram socket on a port is LINUX_LISTEN_FAILED, unless both share it", async (t, network) => {
    const alone = await network.datagrams({ host: "127.0.0.1", port: 0 });
    const refused = await t.throwsAsync(network.datagrams({ host: "127.0.0.1", port: alone.address().port }));
    t.is(errorCode(refused), "LINUX_LISTEN_FAILED");
    const first = await network.datagrams({ host: "127.0.0.1", port: 0, reusePort: true });
    const second = await network.datagrams({ host: "127.0.0.1", port: first.address().port, reusePort: true });
    t.is(second.address().port, first.address().port);
    for (const socket of [alone, first, second]) socket.close();
  });

  behaviour("a datagram socket that leaves its port answers what has come, and everything after it goes to the others", async (t, network) => {
    const shared = { host: "127.0.0.1", reusePort: true };
    const leaving = await network.datagrams({ ...shared, port: 0 });
    const { port } = leaving.address();
    const staying = await network.datagrams({ ...shared, port });
    const clients = await Promise.all(Array.from({ length: 40 }, () => network.datagrams({ host: "127.0.0.1", port: 0 })));
    const asked = { leaving: 0, staying: 0 };
    for (const [name, socket] of Object.entries({ leaving, staying })) {
      socket.on("message", (message, from) => {
        asked[name === "leaving" ? "leaving" : "staying"] += 1;
        socket.send(message, from.port, from.address);
      });
    }
    const round = async (): Promise<void> => {
      const answered = Promise.all(clients.map((client) => once(client, "message")));
      for (const client of clients) client.send("question", port, "127.0.0.1");
      await answered;
    };
    await round();
    t.true(asked.leaving > 0 && asked.staying > 0, "the kernel spread them");
    const before = asked.leaving;
    // Sent and not read yet: sending is a system call that is over when the callback runs, in the turn before the next read.
    const answered = Promise.all(clients.map((client) => once(client, "message")));
    await Promise.all(clients.map((client) => new Promise((resolve) => client.send("last question", port, "127.0.0.1", resolve))));
    leavePort(leaving);
    await answered;
    const after = asked.leaving;
    await round();
    t.is(asked.leaving, after, "nothing more comes");
    t.true(after >= before);
    t.is(asked.leaving + asked.staying, 3 * clients.length);
    for (const socket of [leaving, staying, ...clients]) socket.close();
  });

  behaviour("a local source address is kept", async (t, network) => {
    const { listener, accepted } = await listen(network, {});
    const { socket, sourceKept } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port, source: "127.0.0.7" });
    t.true(sourceKept);
    t.is((await accepted).remoteAddress, "127.0.0.7");
    socket.destroy();
  });

  behaviour("a source of another family, or none at all, is left out and said so", async (t, network) => {
    for (const source of ["::1", "nobody"]) {
      const { listener } = await listen(network, {});
      const { socket, sourceKept } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port, source });
      t.false(sourceKept);
      socket.destroy();
    }
  });

  behaviour("a client that resets at once leaves the server standing", async (t, network) => {
    let seen = 0;
    const listener = await network.listen(
      listenOptions({
        onConnection: (socket) => {
          seen += 1;
          network.originalDestination(socket);
          socket.resume();
          socket.end();
        },
      }),
    );
    for (let round = 0; round < 20; round += 1) {
      const { socket } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port });
      socket.resetAndDestroy();
      await ended(socket);
    }
    const { socket } = await network.dial({ ...quick, host: "127.0.0.1", port: listener.port });
    await ended(socket.end());
    t.true(seen > 0);
  });
}

export function listenOptions(options: Partial<ListenOptions>): ListenOptions {
  return { host: "127.0.0.1", port: 0, mark: 0, reusePort: false, transparent: false, backlog: 128, onConnection: () => {}, ...options };
}

/** Listens, and gives the first connection. */
export async function listen(network: PodNetwork, options: Partial<ListenOptions>): Promise<{ listener: Listener; accepted: Promise<Socket> }> {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  const listener = await network.listen(listenOptions({ ...options, onConnection: resolve }));
  return { listener, accepted: promise };
}

export async function text(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  if (!socket.readableEnded) await once(socket, "end");
  return Buffer.concat(chunks).toString();
}

async function ended(socket: Socket): Promise<void> {
  socket.resume();
  socket.end();
  if (!socket.closed) await once(socket, "close");
}

function close<T>(socket: Socket, result: T): T {
  socket.end();
  socket.resume();
  return result;
}
