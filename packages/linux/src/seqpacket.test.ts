import { closeSync, existsSync, fstatSync, openSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { openNamespace, sameNamespace } from "./namespace.ts";
import { connectSeqpacket, SeqpacketServer, type SeqpacketServerOptions } from "./seqpacket.ts";
import { closeDescriptors, type SeqpacketConnection } from "./seqpacket-connection.ts";
import { encodeUnixAddress } from "./socket-address.ts";
import { AF_UNIX, bindSocket, closeDescriptor, openSocket, SOCK_SEQPACKET } from "./system-calls.ts";
import { skipped, socketPath, testNamespace } from "./test-namespaces.ts";

const signal = new AbortController().signal;
const bytes = (text: string): Uint8Array => Buffer.from(text);
const read = (message: { bytes: Uint8Array } | undefined): string => Buffer.from(message?.bytes ?? []).toString();

async function pair(
  path: string,
  options: SeqpacketServerOptions = {},
): Promise<AsyncDisposable & { server: SeqpacketServer; a: SeqpacketConnection; b: SeqpacketConnection }> {
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(path, resolve, options);
  const a = await connectSeqpacket(path);
  const b = await promise;
  return {
    server,
    a,
    b,
    [Symbol.asyncDispose]: async () => {
      a.close();
      b.close();
      server.close();
    },
  };
}

test.serial("messages keep their borders and their order, both ways", async (t) => {
  await using link = await pair(socketPath(t));
  await Promise.all(["one", "two", "three"].map((text) => link.a.send(bytes(text), [], { signal })));
  for (const text of ["one", "two", "three"]) t.is(read(await link.b.receive({ signal })), text);
  await link.b.send(bytes("back"), [], { signal });
  t.is(read(await link.a.receive({ signal })), "back");
});

test.serial("a descriptor arrives as the same open file", async (t) => {
  await using link = await pair(socketPath(t));
  const fd = openSync("/proc/self/status", "r");
  await link.a.send(bytes("file"), [fd], { signal });
  const message = await link.b.receive({ signal });
  const [received] = message?.fds ?? [];
  t.is(message?.fds.length, 1);
  t.not(received, fd);
  t.is(fstatSync(received ?? -1).ino, fstatSync(fd).ino);
  closeSync(fd);
  closeDescriptors(message?.fds ?? []);
});

test.serial("a namespace travels as a descriptor", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  await using link = await pair(socketPath(t));
  await link.a.send(bytes("pod"), [pod.namespace.fd], { signal });
  using received = openNamespace((await link.b.receive({ signal }))?.fds[0] ?? -1);
  t.true(sameNamespace(received, pod.namespace));
});

test.serial("a message that is too long ends the connection with an error", async (t) => {
  await using link = await pair(socketPath(t));
  await link.a.send(new Uint8Array(1024), [], { signal });
  t.is((await link.b.receive({ signal }))?.bytes.length, 1024);
  await link.a.send(new Uint8Array(1025), [], { signal });
  t.is(errorCode(await t.throwsAsync(link.b.receive({ signal }))), "LINUX_SEQPACKET_TRUNCATED");
  t.is((await link.b.closed)?.code, "LINUX_SEQPACKET_TRUNCATED");
});

test.serial("more descriptors than a message may carry end the connection, and none of them stays open", async (t) => {
  await using link = await pair(socketPath(t));
  const fds = Array.from({ length: 20 }, () => openSync("/proc/self/status", "r"));
  const before = readdirSync("/proc/self/fd").length;
  await link.a.send(bytes("many"), fds, { signal });
  t.is(errorCode(await t.throwsAsync(link.b.receive({ signal }))), "LINUX_SEQPACKET_TRUNCATED");
  t.is(readdirSync("/proc/self/fd").length, before - 1, "only the connection's own descriptor is gone");
  for (const fd of fds) closeSync(fd);
});

test.serial("descriptors of messages that nobody took are closed with the connection", async (t) => {
  await using link = await pair(socketPath(t));
  const fd = openSync("/proc/self/status", "r");
  for (let count = 0; count < 10; count += 1) await link.a.send(bytes("untaken"), [fd], { signal });
  await link.b.send(bytes("marker"), [], { signal });
  await link.a.receive({ signal });
  await link.a.send(bytes("last"), [], { signal });
  link.a.close();
  await link.b.closed;
  const before = readdirSync("/proc/self/fd").length;
  link.b.close();
  t.is(readdirSync("/proc/self/fd").length, before - 10);
  closeSync(fd);
});

test.serial("what the peer said before it ended is still delivered, then undefined", async (t) => {
  await using link = await pair(socketPath(t));
  await link.a.send(bytes("last words"), [], { signal });
  link.a.close();
  t.is(await link.b.closed, undefined);
  t.is(read(await link.b.receive({ signal })), "last words");
  t.is(await link.b.receive({ signal }), undefined);
  const texts: string[] = [];
  for await (const message of link.b.messages({ signal })) texts.push(read(message));
  t.deepEqual(texts, []);
});

test.serial("sending to a peer that is gone fails, and so does sending after close", async (t) => {
  await using link = await pair(socketPath(t));
  link.b.close();
  const error = await t.throwsAsync(async () => {
    await link.a.send(bytes("x"), [], { signal });
    await link.a.send(bytes("x"), [], { signal });
  });
  t.true(["LINUX_SEQPACKET_FAILED", "LINUX_SEQPACKET_CLOSED"].includes(errorCode(error) ?? ""));
  link.a.close();
  t.is(errorCode(await t.throwsAsync(link.a.send(bytes(""), [], { signal }))), "LINUX_SEQPACKET_EMPTY");
});

test.serial("a peer that does not read holds sends back, up to a bound, and nothing is lost", async (t) => {
  await using link = await pair(socketPath(t));
  const sends: Promise<void>[] = [];
  let refused: unknown;
  for (let index = 0; refused === undefined && index < 5_000; index += 1) {
    sends.push(
      link.a.send(bytes(`message ${index}`), [], { signal }).catch((thrown: unknown) => {
        refused ??= thrown;
      }),
    );
    await Promise.resolve();
  }
  t.is(errorCode(refused), "LINUX_SEQPACKET_FULL");
  const accepted = sends.length - 1;
  for (let index = 0; index < accepted; index += 1) t.is(read(await link.b.receive({ signal })), `message ${index}`);
  await Promise.all(sends);
});

test.serial("a wait that is aborted takes no message with it", async (t) => {
  await using link = await pair(socketPath(t));
  const controller = new AbortController();
  const reason = new Error("enough");
  const waiting = link.b.receive({ signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(waiting), reason);
  await link.a.send(bytes("for the next"), [], { signal });
  t.is(read(await link.b.receive({ signal })), "for the next");
});

test.serial("the file of a dead server is replaced, that of a living one is not, and any other file is not", async (t) => {
  const path = socketPath(t);
  const dead = openSocket(AF_UNIX, SOCK_SEQPACKET);
  bindSocket(dead, encodeUnixAddress(path));
  closeDescriptor(dead);
  const server = await SeqpacketServer.listen(path, () => {});
  t.is(statSync(path).mode & 0o777, 0o600);
  t.is(errorCode(await t.throwsAsync(SeqpacketServer.listen(path, () => {}))), "LINUX_SOCKET_IN_USE");
  server.close();
  t.false(existsSync(path));
  writeFileSync(path, "precious");
  t.is(errorCode(await t.throwsAsync(SeqpacketServer.listen(path, () => {}))), "LINUX_LISTEN_FAILED");
  t.true(existsSync(path));
});

test.serial("connecting where nobody listens is an error that says so", async (t) => {
  t.is(errorCode(await t.throwsAsync(connectSeqpacket(socketPath(t)))), "LINUX_SEQPACKET_CONNECT_FAILED");
});

test.serial("a server with an accept interval takes the next connection only after it", async (t) => {
  const path = socketPath(t);
  const clock = new ManualClock();
  const accepted: SeqpacketConnection[] = [];
  let wake = (): void => {};
  const server = await SeqpacketServer.listen(
    path,
    (connection) => {
      accepted.push(connection);
      wake();
    },
    { acceptIntervalMs: 200, clock },
  );
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
    });
  const first = next();
  const clients = [await connectSeqpacket(path), await connectSeqpacket(path)];
  await first;
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  t.is(accepted.length, 1);
  const second = next();
  await clock.advance(200);
  await second;
  t.is(accepted.length, 2);
  for (const connection of [...accepted, ...clients]) connection.close();
  server.close();
});
