/** The endpoint's side of HTTP/1: what is sent to it, and what each kind of answer, or none, becomes. */
import { type Duplex, duplexPair } from "node:stream";
import { HeaderFields, type RequestHead } from "@fairway/model";
import test from "ava";
import { type Body, type BodySink, emptyBody, textBody } from "../body.ts";
import { type Answer, type ClientConnection, defaultHttpLimits, type OutgoingRequest } from "../http-connection.ts";
import { connectHttp1 } from "./client-connection.ts";
import { turns } from "./test-exchange.ts";

interface Upstream {
  readonly connection: ClientConnection;
  /** The endpoint's end. */
  readonly peer: Duplex;
  readonly received: { text: string; ended: boolean; closed: boolean };
  readonly events: string[];
}

function upstream(limits = defaultHttpLimits): Upstream {
  const [peer, transport] = duplexPair();
  const received = { text: "", ended: false, closed: false };
  peer.on("error", () => undefined);
  peer.on("data", (chunk: Buffer) => {
    received.text += chunk.toString("latin1");
  });
  peer.once("end", () => {
    received.ended = true;
  });
  peer.once("close", () => {
    received.closed = true;
  });
  const events: string[] = [];
  const connection = connectHttp1(transport, { limits, onUnusable: () => events.push("unusable"), onAvailable: () => events.push("available") });
  return { connection, peer, received, events };
}

function request({
  method = "GET",
  path = "/a",
  headers = {},
  ...more
}: Partial<OutgoingRequest> & { method?: string; path?: string; headers?: Record<string, string> } = {}): OutgoingRequest {
  const head: RequestHead = { method, scheme: "http", authority: "x", path, headers: HeaderFields.of(headers) };
  return { head, body: emptyBody, upgrade: undefined, onInform: () => undefined, ...more };
}

const signal = new AbortController().signal;

interface Read {
  text: string;
  trailers: readonly string[] | undefined;
  outcome: "whole" | Error | undefined;
}

function read(body: Body): Read {
  const seen: Read = { text: "", trailers: undefined, outcome: undefined };
  body.flowInto({
    write: (bytes) => {
      seen.text += Buffer.from(bytes).toString("latin1");
      return true;
    },
    end: (trailers) => {
      seen.trailers = trailers?.flat;
      seen.outcome = "whole";
    },
    fail: (error) => {
      seen.outcome = error;
    },
    onReady: undefined,
  });
  return seen;
}

/** Sends a request, answers it with `bytes`, and reads what it becomes. */
async function answered(
  bytes: string,
  given: Parameters<typeof request>[0] & { end?: boolean; split?: boolean } = {},
): Promise<{ answer: Answer; body: Read; up: Upstream }> {
  const up = upstream();
  const { end = false, split = false, ...rest } = given;
  const sending = up.connection.send(request(rest), { signal });
  await turns(2);
  for (const piece of split ? bytes : [bytes]) {
    up.peer.write(Buffer.from(piece, "latin1"));
    await turns(1);
  }
  if (end) up.peer.end();
  const answer = await sending;
  const body = read(answer.body);
  await turns(4);
  return { answer, body, up };
}

test("a request is one head with framing of ours, and the connection takes the next after the answer", async (t) => {
  const up = upstream();
  for (const path of ["/a", "/b"]) {
    const sending = up.connection.send(request({ path, headers: { "x-a": "b", connection: "x", "content-length": "7", te: "trailers" } }), { signal });
    await turns(2);
    t.false(up.connection.usable);
    t.is(up.received.text, `GET ${path} HTTP/1.1\r\nhost: x\r\nx-a: b\r\nte: trailers\r\nconnection: te\r\n\r\n`);
    up.received.text = "";
    up.peer.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: 1\r\n\r\nhello");
    const answer = await sending;
    t.deepEqual([answer.status, answer.headers.flat, answer.body.length], [200, ["x-up", "1"], 5]);
    const body = read(answer.body);
    t.deepEqual([body.text, body.outcome], ["hello", "whole"]);
    t.true(up.connection.usable);
  }
  t.deepEqual(up.events, ["available", "available"]);
});

test("bodies go out by their length or in chunks, with trailers after chunks", async (t) => {
  const known = upstream();
  void known.connection.send(request({ method: "POST", body: textBody("hello") }), { signal }).catch(() => undefined);
  await turns(2);
  t.is(known.received.text, "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
  const chunks = upstream();
  const body: Body = {
    length: undefined,
    flowInto: (sink) => {
      sink.write(Buffer.from("hello"));
      sink.end(HeaderFields.of({ "x-t": "1", "content-length": "5" }));
    },
    cancel: () => undefined,
  };
  void chunks.connection.send(request({ method: "POST", body }), { signal }).catch(() => undefined);
  await turns(2);
  t.is(chunks.received.text, "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n");
  const empty = upstream();
  void empty.connection.send(request({ method: "POST" }), { signal }).catch(() => undefined);
  await turns(2);
  t.is(empty.received.text, "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
});

test("answers are framed as RFC 9112 6.3 says, however their bytes are split", async (t) => {
  const cases: readonly [bytes: string, text: string, given: { method?: string; end?: boolean }, usable: boolean][] = [
    ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", {}, true],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", {}, true],
    ["HTTP/1.1 200 OK\r\n\r\nhello", "hello", { end: true }, false],
    ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", {}, false],
    ["HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", {}, false],
    ["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello", {}, true],
    ["HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", {}, true],
    ["HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "", {}, true],
    ["HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", {}, true],
    ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", { method: "HEAD" }, true],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", { method: "HEAD" }, true],
    ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", {}, true],
    // Both: chunks win, and the connection is not trusted any further.
    ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", {}, false],
  ];
  for (const [bytes, text, given, usable] of cases) {
    for (const split of [false, true]) {
      const { body, up } = await answered(bytes, { ...given, split });
      t.deepEqual([body.text, body.outcome, up.connection.usable], [text, "whole", usable], JSON.stringify(bytes));
    }
  }
});

test("the length that a body would have is told where there is none", async (t) => {
  t.is((await answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", { method: "HEAD" })).answer.headers.get("content-length"), "5");
  t.is((await answered("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")).answer.headers.get("content-length"), "5");
  t.is((await answered("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")).answer.headers.get("content-length"), undefined);
});

test("trailers come at the end of the body, informational answers before the answer, connection fields not at all", async (t) => {
  const informed: [number, readonly string[]][] = [];
  const { body, answer } = await answered(
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\nSet-Cookie: x\r\n\r\n",
    { onInform: (status, headers) => informed.push([status, headers.flat]) },
  );
  t.deepEqual(body.trailers, ["grpc-status", "0"]);
  t.deepEqual(informed, [[103, ["link", "x"]]]);
  t.deepEqual(answer.headers.flat, []);
});

test("what is not HTTP, or could be read in two ways, is garbage, and the connection is gone", async (t) => {
  const ok = "HTTP/1.1 200 OK\r\n";
  const cases = [
    "hello\r\n\r\n",
    "SSH-2.0-x\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 600 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1 200 O\x01K\r\n\r\n",
    "HTTP/1.1 200 OK\n\n",
    `${ok}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`,
    `${ok}Content-Length: 5, 5\r\n\r\nhello`,
    `${ok}Content-Length: x\r\n\r\nhello`,
    `${ok}Transfer-Encoding: gzip\r\n\r\nhello`,
    `${ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    `${ok}X: a\r\n b\r\n\r\n`,
    `${ok}X : a\r\n\r\n`,
    `${ok}X\0: a\r\n\r\n`,
    `${ok}X: a\nY: b\r\n\r\n`,
    `${ok}${"X: 1\r\n".repeat(101)}\r\n`,
    `${ok}X: ${"a".repeat(70_000)}`,
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n".repeat(65),
  ];
  for (const bytes of cases) {
    const up = upstream();
    const sending = up.connection.send(request(), { signal });
    await turns(2);
    up.peer.write(Buffer.from(bytes, "latin1"));
    await t.throwsAsync(sending, { code: "WAYPOINT_UPSTREAM_GARBAGE" }, JSON.stringify(bytes.slice(0, 80)));
    await up.connection.closed;
    t.deepEqual([up.connection.usable, up.events], [false, ["unusable"]]);
  }
});

test("garbage within a body breaks the body", async (t) => {
  const { body, up } = await answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX");
  t.is(body.text, "hello");
  t.like(body.outcome, { code: "WAYPOINT_UPSTREAM_GARBAGE" });
  t.false(up.connection.usable);
});

test("an answer nobody asked for ends the connection", async (t) => {
  const idle = upstream();
  idle.peer.write("HTTP/1.1 408 Request Timeout\r\n\r\n");
  await idle.connection.closed;
  t.deepEqual(idle.events, ["unusable"]);
  const { body, up } = await answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n");
  t.is(body.outcome, "whole");
  t.false(up.connection.usable);
  await t.throwsAsync(up.connection.send(request(), { signal }), { code: "WAYPOINT_UPSTREAM_RESET" });
});

test("an endpoint that ends the connection instead of answering is a reset that says what was sent", async (t) => {
  const up = upstream();
  const sending = up.connection.send(request(), { signal });
  await turns(2);
  up.peer.end();
  t.like(await t.throwsAsync(sending, { code: "WAYPOINT_UPSTREAM_RESET" }), { details: { sent: true, refused: false } });
  t.like(await t.throwsAsync(up.connection.send(request(), { signal }), { code: "WAYPOINT_UPSTREAM_RESET" }), { details: { sent: false } });
});

test("an answer that ends early is broken, never whole", async (t) => {
  for (const bytes of ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]) {
    const { body } = await answered(bytes, { end: true });
    t.like(body.outcome, { code: "WAYPOINT_UPSTREAM_RESET" });
    t.is(body.text, "hello");
  }
});

test("an answer that came whole before the connection went is still read", async (t) => {
  const up = upstream();
  const sending = up.connection.send(request(), { signal });
  await turns(2);
  up.peer.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  const answer = await sending;
  up.peer.end();
  await turns(5);
  const body = read(answer.body);
  await turns(2);
  t.deepEqual([body.text, body.outcome], ["hello", "whole"]);
});

test("a request that is given up ends the connection, whatever was going on", async (t) => {
  const waiting = new AbortController();
  const up = upstream();
  const sending = up.connection.send(request(), { signal: waiting.signal });
  await turns(2);
  const reason = new Error("too slow");
  waiting.abort(reason);
  t.is(await t.throwsAsync(sending), reason);
  await up.connection.closed;
  const reading = await answered("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
  reading.answer.body.cancel(reason);
  await reading.up.connection.closed;
  t.deepEqual(reading.up.events, ["unusable"]);
  t.is(reading.body.outcome, undefined);
  const before = upstream();
  t.is(await t.throwsAsync(before.connection.send(request(), { signal: AbortSignal.abort(reason) })), reason);
  t.true(before.connection.usable);
});

test("a request's body that breaks ends the connection, and its error is what the sender hears", async (t) => {
  const up = upstream();
  let sink: BodySink | undefined;
  const body: Body = {
    length: undefined,
    flowInto: (given) => {
      sink = given;
    },
    cancel: () => undefined,
  };
  const sending = up.connection.send(request({ method: "POST", body }), { signal });
  sink?.write(Buffer.from("hello"));
  await turns(2);
  sink?.fail(new Error("the client went away"));
  await t.throwsAsync(sending, { message: "the client went away" });
  await turns(2);
  t.false(up.received.text.includes("\r\n0\r\n"));
});

test("an answer before the request's end is passed on; then nobody wants the rest, and the connection is spent", async (t) => {
  const up = upstream();
  let cancelled: Error | undefined;
  const body: Body = {
    length: undefined,
    flowInto: (sink) => void sink.write(Buffer.from("hello")),
    cancel: (reason) => {
      cancelled = reason;
    },
  };
  const sending = up.connection.send(request({ method: "POST", body }), { signal });
  await turns(2);
  up.peer.write("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno");
  const answer = await sending;
  t.is(read(answer.body).text, "no");
  await turns(2);
  t.like(cancelled, { code: "WAYPOINT_ANSWERED_EARLY" });
  t.false(up.connection.usable);
  await up.connection.closed;
});

test("an upgrade that is agreed on carries bytes both ways; with a key of ours the answer to it is checked", async (t) => {
  const up = upstream();
  let down: BodySink | undefined;
  const body: Body = {
    length: undefined,
    flowInto: (sink) => {
      down = sink;
      sink.write(Buffer.from("up"));
    },
    cancel: () => undefined,
  };
  const headers = { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" };
  const sending = up.connection.send(request({ headers, upgrade: "websocket", body }), { signal });
  await turns(2);
  t.is(up.received.text, "GET /a HTTP/1.1\r\nhost: x\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
  t.is(down, undefined);
  up.peer.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst");
  const answer = await sending;
  t.is(answer.status, 101);
  const seen = read(answer.body);
  await turns(2);
  t.is(seen.text, "first");
  t.true(up.received.text.endsWith("\r\n\r\nup"));
  up.peer.end("last");
  await turns(3);
  t.deepEqual([seen.text, seen.outcome, up.connection.active], ["firstlast", "whole", 1]);
  down?.write(Buffer.from("more"));
  down?.end(undefined);
  await up.connection.closed;
  t.true(up.received.text.endsWith("upmore"));

  const wrong = upstream();
  const refused = wrong.connection.send(request({ upgrade: "websocket", body: emptyBody }), { signal });
  await turns(2);
  t.regex(wrong.received.text, /sec-websocket-key: [A-Za-z0-9+/]{22}==\r\n/);
  wrong.peer.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n");
  await t.throwsAsync(refused, { code: "WAYPOINT_UPSTREAM_GARBAGE" });
});

test("an upgrade that is answered otherwise is an ordinary answer", async (t) => {
  let cancelled = false;
  const onCancel = (): void => {
    cancelled = true;
  };
  const body: Body = { length: undefined, flowInto: () => undefined, cancel: () => onCancel() };
  const { answer, up } = await answered("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", { upgrade: "websocket", body });
  t.deepEqual([answer.status, cancelled, up.connection.usable], [403, true, true]);
});

test("what would not be one request line and one field each is not sent, and the connection is as it was", async (t) => {
  const up = upstream();
  const broken = [
    { path: "/a b" },
    { path: "/a\r\nX: y" },
    { path: "a" },
    { method: "GET /x" },
    { headers: { "x-a": "b\r\nc: d" } },
    { headers: { "x-a": "\u010a" } },
  ];
  for (const given of broken) await t.throwsAsync(up.connection.send(request(given), { signal }), { code: "WAYPOINT_UNSENDABLE" });
  t.true(up.connection.usable);
  t.is(up.received.text, "");
});

test("a reader that holds makes the endpoint wait", async (t) => {
  const up = upstream();
  const sending = up.connection.send(request(), { signal });
  await turns(2);
  up.peer.write("HTTP/1.1 200 OK\r\n\r\n");
  const answer = await sending;
  let bytes = 0;
  const held: BodySink = {
    write: (chunk) => {
      bytes += chunk.length;
      return false;
    },
    end: () => undefined,
    fail: () => undefined,
    onReady: undefined,
  };
  answer.body.flowInto(held);
  let written = 0;
  while (written < 100 * 16_384 && up.peer.write(Buffer.alloc(16_384))) {
    written += 16_384;
    await turns(2);
  }
  t.true(written < 20 * 16_384);
  const before = bytes;
  held.onReady?.();
  await turns(2);
  t.true(bytes > before);
});
