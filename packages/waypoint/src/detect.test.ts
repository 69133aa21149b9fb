import { duplexPair } from "node:stream";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { detectProtocol, protocolOf } from "./detect.ts";

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

test("the first bytes tell what is spoken", (t) => {
  const cases: readonly [string, ReturnType<typeof protocolOf>][] = [
    [preface, "http2"],
    ["PRI * HTTP/2.0\r\n\r\nXX", "http1"],
    ["GET / HTTP/1.1\r\n", "http1"],
    ["GET /", "http1"],
    ["OPTIONS * HTTP/1.1", "http1"],
    ["GET http://x/ HTTP/1.1", "http1"],
    ["CONNECT x:80 HTTP/1.1", "http1"],
    ["M-SEARCH * HTTP/1.1", "http1"],
    ["VERSION-CONTROL /a HTTP/1.1", "http1"],
    ["GET", undefined],
    ["GET ", undefined],
    ["GET htt", undefined],
    ["P", undefined],
    ["PRI * HTTP/2.0\r\n", undefined],
    ["", undefined],
    ["\x16\x03\x01\x02\x00\x01", "tcp"],
    ["HELO mail.example\r\n", "tcp"],
    ["EHLO host", "tcp"],
    ["get / HTTP/1.1", "tcp"],
    ["SSH-2.0-OpenSSH", "tcp"],
    ["*1\r\n$4\r\nPING\r\n", "tcp"],
    ["\0\0\0\x08\x04\xd2\x16\x2f", "tcp"],
    [" GET / HTTP/1.1", "tcp"],
    ["ABCDEFGHIJKLMNOPQRSTUVWXYZ /", "tcp"],
    ["GET\r\n", "tcp"],
  ];
  for (const [text, expected] of cases) t.is(protocolOf(Buffer.from(text, "latin1")), expected, JSON.stringify(text));
});

/** Everything that a transport still gives, to a listener like that of a copy. */
function rest(transport: ReturnType<typeof duplexPair>[0]): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    transport.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    transport.once("end", () => resolve(text));
  });
}

test("whatever was looked at is given back, in order, and flows to the next reader", async (t) => {
  for (const [bytes, protocol] of [
    [`${preface}more`, "http2"],
    ["GET /a HTTP/1.1\r\nHost: x\r\n\r\nmore", "http1"],
    ["\x16\x03\x01more", "tcp"],
  ] as const) {
    for (const pieces of [[bytes], [...bytes]]) {
      const [client, transport] = duplexPair();
      const detected = detectProtocol(transport, { timeoutMs: 1_000, signal: new AbortController().signal });
      for (const piece of pieces) {
        client.write(Buffer.from(piece, "latin1"));
        await new Promise((resolve) => setImmediate(resolve));
      }
      t.is(await detected, protocol);
      client.end("last");
      t.is(await rest(transport), `${bytes}last`);
    }
  }
});

test("a client that waits for the server to speak is not HTTP once its time is up, and loses nothing", async (t) => {
  for (const said of ["", "GET"]) {
    const clock = new ManualClock();
    const [client, transport] = duplexPair();
    const detected = detectProtocol(transport, { timeoutMs: 500, signal: new AbortController().signal, clock });
    if (said !== "") client.write(said);
    await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(500);
    t.is(await detected, "tcp");
    client.end(" late");
    t.is(await rest(transport), `${said} late`);
  }
});

test("a client that ends without a word is not HTTP; one that breaks off, and an abort, are errors", async (t) => {
  const never = new AbortController().signal;
  const [silent, transport] = duplexPair();
  silent.end();
  t.is(await detectProtocol(transport, { timeoutMs: 1_000, signal: never }), "tcp");
  const [, broken] = duplexPair();
  broken.on("error", () => undefined);
  const breaking = detectProtocol(broken, { timeoutMs: 1_000, signal: never });
  broken.destroy(new Error("reset"));
  await t.throwsAsync(breaking, { code: "WAYPOINT_CLIENT_GONE" });
  const [, aborted] = duplexPair();
  const giving = new AbortController();
  const detecting = detectProtocol(aborted, { timeoutMs: 1_000, signal: giving.signal });
  const reason = new Error("the proxy ends");
  giving.abort(reason);
  t.is(await t.throwsAsync(detecting), reason);
  t.is(await t.throwsAsync(detectProtocol(aborted, { timeoutMs: 1_000, signal: giving.signal })), reason);
});
