/** The client's side of HTTP/1: limits, order, what ends the connection and what does not. Bytes in, bytes out, over memory. */
import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { type Body, type BodySink, emptyBody, textBody } from "../body.ts";
import { type Answer, type Delivery, defaultHttpLimits, type IncomingRequest } from "../http-connection.ts";
import { serveHttp1 } from "./server-connection.ts";
import { exchange, turns } from "./test-exchange.ts";

const fields = (given: Record<string, string> = {}): HeaderFields => HeaderFields.of(given);
const answer = (status: number, body: Body = emptyBody, headers: Record<string, string> = {}): Answer => ({ status, headers: fields(headers), body });
const get = (path = "/a", more = ""): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;

/** A body that the test writes. */
class ScriptedBody implements Body {
  readonly length: number | undefined;
  sink: BodySink | undefined;
  cancelled: Error | undefined;

  constructor(length?: number) {
    this.length = length;
  }

  flowInto(sink: BodySink): void {
    this.sink = sink;
  }

  cancel(reason: Error): void {
    this.cancelled = reason;
  }
}

/** A server whose one connection the test drives. */
function served(onRequest: (request: IncomingRequest) => void) {
  const [client, transport] = duplexPair();
  const seen = { text: "", ended: false, closed: false };
  client.on("error", () => undefined);
  client.on("data", (chunk: Buffer) => {
    seen.text += chunk.toString("latin1");
  });
  client.once("end", () => {
    seen.ended = true;
  });
  client.once("close", () => {
    seen.closed = true;
  });
  const clock = new ManualClock();
  const refused: number[] = [];
  const connection = serveHttp1(transport, { limits: defaultHttpLimits, clock, onRequest, onRefused: ({ status }) => refused.push(status) });
  return { client, transport, seen, clock, refused, connection };
}

test("requests sent ahead are answered one after another, in order", async (t) => {
  const waiting: IncomingRequest[] = [];
  const { client, seen, connection } = served((request) => waiting.push(request));
  client.write(get("/1") + get("/2") + get("/3"));
  await turns(3);
  t.deepEqual([waiting.length, connection.active], [1, 1]);
  for (const path of ["/1", "/2", "/3"]) {
    const request = waiting.shift();
    t.is(request?.head.path, path);
    request?.respond(answer(200, textBody(path)));
    await turns(3);
  }
  t.is(seen.text, ["/1", "/2", "/3"].map((path) => `HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n${path}`).join(""));
  t.is(connection.active, 0);
});

test("requests sent ahead wait in the client beyond the high-water mark", async (t) => {
  const { client, transport } = served(() => undefined);
  const ahead = Buffer.from(get().repeat(40_000));
  client.write(get());
  await turns(2);
  for (let at = 0; at < ahead.length; at += 16_384) {
    if (!client.write(ahead.subarray(at, at + 16_384))) break;
    await turns(1);
  }
  await turns(3);
  t.true(transport.isPaused());
  t.true(transport.readableLength + client.writableLength > 0);
});

test("the limits have their statuses, whether the bytes come at once or one by one", async (t) => {
  const limits = { maxHeaderBytes: 512, maxHeaderCount: 5, maxRequestTargetBytes: 64, maxTrailerBytes: 64 };
  const cases: readonly [string, number][] = [
    [get(`/${"a".repeat(64)}`), 414],
    [get(`/${"a".repeat(700)}`), 414],
    [get("/a", `X: ${"a".repeat(600)}\r\n`), 431],
    [get("/a", "X: 1\r\n".repeat(5)), 431],
    [`POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ${"a".repeat(80)}\r\n\r\n`, 400],
    [`POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;${"a".repeat(17_000)}\r\nhello\r\n0\r\n\r\n`, 400],
  ];
  for (const [bytes, status] of cases) {
    for (const pieces of [[bytes], bytes.match(/[\s\S]{1,50}/g) ?? []]) {
      const { statuses, ended } = await exchange(pieces, { limits });
      t.deepEqual([statuses, ended], [[status], true], bytes.slice(0, 80));
    }
  }
  // At the limits, not beyond.
  t.deepEqual((await exchange([get(`/${"a".repeat(63)}`, "X: 1\r\n".repeat(4))], { limits })).statuses, [200]);
});

test("a head that does not become whole in time is answered 408; a silent connection is closed without a word", async (t) => {
  const slow = await exchange(["GET / HT", "TP/1.1\r\nHo"], { advanceMs: defaultHttpLimits.headersTimeoutMs });
  t.deepEqual([slow.statuses, slow.ended, slow.refused[0]?.status], [[408], true, 408]);
  const silent = await exchange([], { advanceMs: defaultHttpLimits.idleTimeoutMs * 1.3 });
  t.deepEqual([silent.answer, silent.ended], ["", true]);
  const between = await exchange([get()], { advanceMs: defaultHttpLimits.idleTimeoutMs * 1.6 });
  t.deepEqual([between.statuses, between.ended], [[200], true]);
});

test("100 is sent when somebody takes the body, and never after the answer", async (t) => {
  const expecting = "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
  t.deepEqual((await exchange([expecting, "hello", get("/b")])).statuses, [100, 200, 200]);
  t.false((await exchange([expecting, "hello"])).seen[0]?.headers.includes("expect"));
  const denied = await exchange([expecting], { onRequest: (request) => request.respond(answer(403)) });
  t.deepEqual([denied.statuses, denied.ended], [[403], true]);
  t.regex(denied.answer, /connection: close\r\n/);
});

test("an answer before the end of the request is whole, and the connection ends after it", async (t) => {
  let outcome: Delivery | undefined;
  let failure: Error | undefined;
  const { client, seen } = served((request) => {
    request.onDone = (delivery) => {
      outcome = delivery;
    };
    request.body.flowInto({
      write: () => true,
      end: () => undefined,
      fail: (error) => {
        failure = error;
      },
      onReady: undefined,
    });
    setImmediate(() => request.respond(answer(413, textBody("too much"))));
  });
  client.write(`POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${"a".repeat(100)}`);
  await turns(5);
  t.is(seen.text, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 8\r\n\r\ntoo much");
  t.is(outcome?.error, undefined);
  t.is(outcome?.bytesReceived, 100);
  t.like(failure, { code: "WAYPOINT_ANSWERED_EARLY" });
  t.true(seen.ended);
  // What the client still sends is read, so that its network does not drop the answer.
  for (let more = 0; more < 50; more += 1) {
    client.write(Buffer.alloc(16_384));
    await turns(1);
  }
  t.is(client.writableLength, 0);
  client.end();
  await turns(3);
  t.true(seen.closed);
});

test("a client that goes on sending after its answer is cut off in the end", async (t) => {
  const { client, clock, connection } = served((request) => request.respond(answer(403)));
  client.write("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
  await turns(3);
  await clock.advance(10_000);
  await connection.closed;
  t.pass();
});

test("a refused request whose body is here already leaves the connection usable", async (t) => {
  const { statuses, ended } = await exchange(["POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", get("/b")], {
    onRequest: (request) => request.respond(answer(403)),
  });
  t.deepEqual([statuses, ended], [[403, 403], false]);
});

test("answers that never have a body have none, and say what theirs would be", async (t) => {
  const head = await exchange(["HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"], { onRequest: (request) => request.respond(answer(200, textBody("hello"))) });
  t.is(head.answer, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
  const told = await exchange(["HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"], {
    onRequest: (request) => request.respond(answer(200, emptyBody, { "content-length": "77" })),
  });
  t.is(told.answer, "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n");
  const none = await exchange([get()], { onRequest: (request) => request.respond(answer(204, textBody("hello"), { "content-length": "5" })) });
  t.is(none.answer, "HTTP/1.1 204 No Content\r\n\r\n");
  const unchanged = await exchange([get()], { onRequest: (request) => request.respond(answer(304, emptyBody, { "content-length": "5" })) });
  t.is(unchanged.answer, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
});

test("the framing of an answer is ours, whatever its fields say", async (t) => {
  const { answer: text } = await exchange([get()], {
    onRequest: (request) =>
      request.respond(answer(200, textBody("hello"), { "content-length": "7", "transfer-encoding": "chunked", connection: "x", upgrade: "y", "x-a": "b" })),
  });
  t.is(text, "HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\nhello");
});

test("a body of unknown length is chunked for HTTP/1.1 and ends with the connection for HTTP/1.0", async (t) => {
  const flow = (request: IncomingRequest): void => {
    const body = new ScriptedBody();
    request.respond(answer(200, body));
    body.sink?.write(Buffer.from("hello"));
    body.sink?.end(fields({ "x-t": "1" }));
  };
  t.is((await exchange([get()], { onRequest: flow })).answer, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
  const taking = await exchange([get("/a", "TE: trailers\r\nConnection: TE\r\n")], { onRequest: flow });
  t.true(taking.answer.endsWith("0\r\nx-t: 1\r\n\r\n"));
  const old = await exchange(["GET /a HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"], { onRequest: flow });
  t.deepEqual([old.answer, old.ended], ["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", true]);
});

test("informational answers go to HTTP/1.1 only, and only before the answer", async (t) => {
  const hint = (request: IncomingRequest): void => {
    request.inform(103, fields({ link: "</a>" }));
    request.inform(101, fields());
    request.respond(answer(200));
    request.inform(103, fields());
  };
  t.is((await exchange([get()], { onRequest: hint })).answer, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
  t.deepEqual((await exchange(["GET / HTTP/1.0\r\n\r\n"], { onRequest: hint })).statuses, [200]);
});

test("an answer that breaks off never looks complete", async (t) => {
  for (const length of [undefined, 11]) {
    const body = new ScriptedBody(length);
    let outcome: Delivery | undefined;
    const { client, seen } = served((request) => {
      request.onDone = (delivery) => {
        outcome = delivery;
      };
      request.respond(answer(200, body));
    });
    client.write(get());
    await turns(2);
    body.sink?.write(Buffer.from("hello"));
    await turns(2);
    body.sink?.fail(new Error("the upstream broke"));
    await turns(2);
    t.false(seen.text.includes("0\r\n\r\n"));
    t.true(seen.text.includes("hello"));
    t.is(outcome?.error?.message, "the upstream broke");
    t.is(outcome?.bytesSent, 5);
  }
});

test("a body that is not as long as announced ends the connection instead of spoiling the next answer", async (t) => {
  for (const [written, ended] of [
    ["hello world", true],
    ["he", true],
  ] as const) {
    const body = new ScriptedBody(5);
    const { client, seen } = served((request) => request.respond(answer(200, body)));
    client.write(get() + get());
    await turns(2);
    body.sink?.write(Buffer.from(written));
    body.sink?.end(undefined);
    await turns(3);
    t.is(seen.ended || seen.closed, ended);
    t.false(seen.text.includes("world"));
  }
});

test("a client that goes away is told to whoever answers, and its request's body breaks", async (t) => {
  const body = new ScriptedBody();
  let outcome: Delivery | undefined;
  let broken: Error | undefined;
  const onBroken = (error: Error): void => {
    broken = error;
  };
  const { client, transport, connection } = served((request) => {
    request.onDone = (delivery) => {
      outcome = delivery;
    };
    request.body.flowInto({ write: () => true, end: () => undefined, fail: onBroken, onReady: undefined });
    request.respond(answer(200, body));
  });
  client.write("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
  await turns(2);
  transport.destroy();
  await connection.closed;
  t.like(outcome?.error, { code: "WAYPOINT_CLIENT_GONE" });
  t.like(broken, { code: "WAYPOINT_CLIENT_GONE" });
  t.like(body.cancelled, { code: "WAYPOINT_CLIENT_GONE" });
  t.is(connection.active, 0);
});

test("a client that only stops sending still gets its answer; within a body it is a broken request", async (t) => {
  const waiting: IncomingRequest[] = [];
  const { client, seen } = served((request) => waiting.push(request));
  client.end(get());
  await turns(3);
  waiting[0]?.respond(answer(200, textBody("late")));
  await turns(3);
  t.is(seen.text, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlate");
  t.true(seen.ended);
  const short = await exchange(["POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello"], { end: true });
  t.deepEqual([short.seen[0]?.outcome, short.statuses, short.ended], ["broken", [400], true]);
});

test("a slow reader holds the source, and is served again when it reads", async (t) => {
  const body = new ScriptedBody();
  const { client, transport } = served((request) => request.respond(answer(200, body)));
  client.write(get());
  await turns(2);
  client.pause();
  let ready = 0;
  let writes = 0;
  if (body.sink !== undefined) {
    body.sink.onReady = () => {
      ready += 1;
    };
  }
  while (writes < 1_000 && body.sink?.write(Buffer.alloc(8_192)) === true) {
    writes += 1;
    await turns(1);
  }
  t.true(writes < 40);
  t.true(transport.writableLength < 2 * defaultHttpLimits.highWaterMark);
  client.resume();
  await turns(10);
  t.is(ready, 1);
});

test("draining ends a connection that was idle for long at once and a busy one after its answer", async (t) => {
  const idle = served(() => undefined);
  await idle.clock.advance(5_000);
  idle.connection.drain();
  await turns(3);
  t.true(idle.seen.ended);
  const waiting: IncomingRequest[] = [];
  const busy = served((request) => waiting.push(request));
  busy.client.write(get());
  await turns(2);
  busy.connection.drain();
  await turns(2);
  t.false(busy.seen.ended);
  waiting[0]?.respond(answer(200));
  await turns(3);
  t.is(busy.seen.text, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  t.true(busy.seen.ended);
});

test("a connection that was just used is left open when it is to drain, for the request that may be on its way", async (t) => {
  const waiting: IncomingRequest[] = [];
  const used = (): ReturnType<typeof served> => served((request) => waiting.push(request));
  const [quick, late] = [used(), used()];
  for (const { client, connection } of [quick, late]) {
    client.write(get());
    await turns(2);
    waiting.pop()?.respond(answer(200));
    await turns(2);
    connection.drain();
    await turns(2);
  }
  t.deepEqual([quick.seen.ended, late.seen.ended], [false, false]);
  quick.client.write(get("/last"));
  await turns(2);
  waiting.pop()?.respond(answer(200));
  await turns(3);
  t.true(quick.seen.text.endsWith("content-length: 0\r\nconnection: close\r\n\r\n"));
  t.true(quick.seen.ended);
  await late.clock.advance(4_999);
  await turns(3);
  t.false(late.seen.ended);
  await late.clock.advance(1);
  await turns(3);
  t.true(late.seen.ended);
});

test("WebSocket is switched to with the key answered, carries bytes both ways, and half-closes", async (t) => {
  const upstream = new ScriptedBody();
  let sent = "";
  let over = false;
  const { client, seen } = served((request) => {
    t.is(request.upgrade, "websocket");
    request.body.flowInto({
      write: (bytes) => {
        sent += Buffer.from(bytes).toString();
        return true;
      },
      end: () => {
        over = true;
      },
      fail: () => undefined,
      onReady: undefined,
    });
    setImmediate(() => request.respond(answer(101, upstream)));
  });
  client.write(
    `${get("/ws", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".slice(0, -2))}early`,
  );
  await turns(4);
  t.is(
    seen.text,
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
  );
  t.is(sent, "early");
  upstream.sink?.write(Buffer.from("down"));
  client.end("late");
  await turns(4);
  t.deepEqual([sent, over], ["earlylate", true]);
  t.true(seen.text.endsWith("down"));
  upstream.sink?.write(Buffer.from("more"));
  upstream.sink?.end(undefined);
  await turns(4);
  t.true(seen.text.endsWith("downmore"));
  t.true(seen.ended);
});

test("an upgrade that is answered otherwise leaves an ordinary connection", async (t) => {
  const { statuses, ended } = await exchange([get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n"), get("/b")], {
    onRequest: (request) => request.respond(answer(403)),
  });
  t.deepEqual([statuses, ended], [[403, 403], false]);
});

test("a field that would break out of its line is not sent", async (t) => {
  for (const value of ["a\r\nset-cookie: b", "a\nb", "a\0b", "a\u010ab"]) {
    const { answer: text } = await exchange([get()], { onRequest: (request) => request.respond(answer(200, textBody("hello"), { "x-a": value })) });
    t.is(text, "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
  }
});
