/** The two-way copy over plain sockets. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { MeshError } from "@fairway/runtime";
import test from "ava";
import { tcpLink } from "./compliance/link.ts";
import { forever } from "./compliance/tunnel-compliance.ts";
import type { PipeOutcome } from "./engine.ts";
import { pipe } from "./pipe.ts";

/** client ⇄ a │ b ⇄ app, the copy between a and b. */
async function proxied(signal: AbortSignal = forever): Promise<{ client: Socket; app: Socket; a: Socket; b: Socket; outcome: Promise<PipeOutcome> }> {
  const [front, back] = await Promise.all([tcpLink(), tcpLink()]);
  front.client.on("error", () => {});
  back.server.on("error", () => {});
  return { client: front.client, app: back.server, a: front.server, b: back.client, outcome: pipe(front.server, back.client, { signal }) };
}

async function read(socket: Duplex): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  if (!socket.readableEnded) await once(socket, "end");
  return text;
}

test("each FIN is carried by itself and both counts are exact", async (t) => {
  const { client, app, outcome, a, b } = await proxied();
  client.end("question");
  t.is(await read(app), "question");
  t.false(b.readableEnded);
  app.end("the answer");
  t.is(await read(client), "the answer");
  t.deepEqual(await outcome, { sent: 8, received: 10, error: undefined });
  t.true(a.destroyed);
  t.true(b.destroyed);
});

test("a reset of one side ends the other without an error", async (t) => {
  const { client, app, outcome } = await proxied();
  client.write("x");
  await once(app, "data");
  client.resetAndDestroy();
  app.resume();
  t.deepEqual(await outcome, { sent: 1, received: 0, error: undefined });
  if (!app.readableEnded) await once(app, "end");
});

test("aborting destroys both at once and is the outcome's error", async (t) => {
  const controller = new AbortController();
  const { outcome, a, b } = await proxied(controller.signal);
  const reason = new MeshError("TEST_POLICY", "no longer permitted");
  controller.abort(reason);
  t.is((await outcome).error, reason);
  t.true(a.destroyed);
  t.true(b.destroyed);
});

test("an abort before the start copies nothing", async (t) => {
  const [client, a] = duplexPair();
  const [app, b] = duplexPair();
  client.write("never");
  const reason = new MeshError("TEST_POLICY", "not permitted");
  t.deepEqual(await pipe(a, b, { signal: AbortSignal.abort(reason) }), { sent: 0, received: 0, error: reason });
  t.is(app.read(), null);
});

test("an error that is no hang-up is reported", async (t) => {
  const [, a] = duplexPair();
  const [app, b] = duplexPair();
  app.resume();
  const outcome = pipe(a, b, { signal: forever });
  const error = Object.assign(new Error("timed out"), { code: "ETIMEDOUT" });
  a.destroy(error);
  t.is((await outcome).error, error);
});

test("sockets that ended or died before the copy began end it", async (t) => {
  const { client, server } = await tcpLink();
  client.end("early");
  server.pause();
  await once(server, "readable");
  const [app, b] = duplexPair();
  const outcome = pipe(server, b, { signal: forever });
  app.end("late");
  t.is(await read(app), "early");
  client.resume();
  t.deepEqual(await outcome, { sent: 5, received: 4, error: undefined });
  const dead = await tcpLink();
  dead.client.destroy();
  dead.server.destroy();
  const [other, near] = duplexPair();
  other.resume();
  t.deepEqual(await pipe(dead.server, near, { signal: forever }), { sent: 0, received: 0, error: undefined });
});

test("a reader that stops holds its writer back", async (t) => {
  const { client, outcome, app } = await proxied();
  app.pause();
  const block = Buffer.alloc(64 * 1024);
  let written = 0;
  const most = 64 * 1024 * 1024;
  while (written < most) {
    written += block.length;
    if (client.write(block)) continue;
    const drained = once(client, "drain").then(() => true);
    const stuck = new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 200));
    if (!(await Promise.race([drained, stuck]))) break;
  }
  t.true(written < most, "the writer was never held back");
  app.destroy();
  client.destroy();
  await outcome;
});
