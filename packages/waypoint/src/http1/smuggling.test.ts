/**
 * Requests that two servers could read differently (waypoint contract 6.1): what each is answered, and that nothing after it is taken for a
 * request. The second half is the same with the parser of node:http for an oracle: what we accept, it reads the same.
 */
import { createServer, type IncomingMessage } from "node:http";
import { type Duplex, duplexPair } from "node:stream";
import test from "ava";
import { exchange, turns } from "./test-exchange.ts";

interface Case {
  readonly name: string;
  readonly bytes: string;
  /** Statuses of the answers, in order. */
  readonly statuses: readonly number[];
  /** Paths of the requests that reached the application. */
  readonly paths?: readonly string[];
  /** Whether the connection is ended by us; it is after every refusal. */
  readonly open?: boolean;
  /** node:http reads it otherwise: why that is no danger. */
  readonly differs?: string;
}

const next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
const post = (fields: string, body: string): string => `POST /a HTTP/1.1\r\nHost: x\r\n${fields}\r\n${body}`;
const get = (fields: string): string => `GET /a HTTP/1.1\r\nHost: x\r\n${fields}\r\n`;
const line = (requestLine: string): string => `${requestLine}\r\nHost: x\r\n\r\n`;

const refused: readonly Omit<Case, "statuses">[] = [
  { name: "Content-Length and Transfer-Encoding", bytes: post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n") },
  { name: "Transfer-Encoding and Content-Length", bytes: post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n") },
  { name: "two lengths that differ", bytes: post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!") },
  { name: "two lengths that agree", bytes: post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello") },
  { name: "a list of lengths", bytes: post("Content-Length: 5, 5\r\n", "hello") },
  { name: "a length with a sign", bytes: post("Content-Length: +5\r\n", "hello") },
  { name: "a negative length", bytes: post("Content-Length: -5\r\n", "hello") },
  { name: "a hexadecimal length", bytes: post("Content-Length: 0x5\r\n", "hello") },
  { name: "a length with a fraction", bytes: post("Content-Length: 5.0\r\n", "hello") },
  { name: "a length with an exponent", bytes: post("Content-Length: 5e0\r\n", "hello") },
  { name: "a length of two numbers", bytes: post("Content-Length: 5 5\r\n", "hello") },
  { name: "an empty length", bytes: post("Content-Length:\r\n", "hello") },
  { name: "a length beyond what a number holds", bytes: post("Content-Length: 99999999999999999999\r\n", "hello") },
  { name: "an unknown coding", bytes: post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n") },
  { name: "a coding before chunked", bytes: post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n") },
  { name: "chunked that is not last", bytes: post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n") },
  { name: "chunked twice", bytes: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n") },
  { name: "an empty Transfer-Encoding", bytes: post("Transfer-Encoding:\r\n", "0\r\n\r\n") },
  { name: "identity", bytes: post("Transfer-Encoding: identity\r\n", "0\r\n\r\n") },
  { name: "a quoted coding", bytes: post('Transfer-Encoding: "chunked"\r\n', "0\r\n\r\n") },
  { name: "chunked with a vertical tab", bytes: post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n") },
  { name: "chunked with a parameter", bytes: post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n") },
  { name: "white space before the colon", bytes: post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n") },
  { name: "white space before a length's colon", bytes: post("Content-Length : 5\r\n", "hello") },
  { name: "white space before the first field", bytes: `GET /a HTTP/1.1\r\n Host: x\r\n\r\n` },
  { name: "a folded field", bytes: get("X: a\r\n b\r\n") },
  { name: "a folded Transfer-Encoding", bytes: post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n") },
  { name: "line feeds alone", bytes: "GET /a HTTP/1.1\nHost: x\n\n" },
  { name: "a line feed alone after a field", bytes: get("X: a\nTransfer-Encoding: chunked\r\n") },
  { name: "a line feed alone after the request line", bytes: "GET /a HTTP/1.1\nHost: x\r\n\r\n" },
  { name: "a carriage return within a value", bytes: get("X: a\rTransfer-Encoding: chunked\r\n") },
  { name: "NUL in a value", bytes: get("X: a\0b\r\n") },
  { name: "NUL in a name", bytes: get("X\0: a\r\n") },
  { name: "a control character in a value", bytes: get("X: a\x01\r\n") },
  { name: "DEL in a value", bytes: get("X: a\x7f\r\n") },
  { name: "a name with a space", bytes: get("X Y: a\r\n") },
  { name: "an empty name", bytes: get(": a\r\n") },
  { name: "a line without a colon", bytes: get("nothing\r\n") },
  { name: "a name that is not ASCII", bytes: get("X\xe9: a\r\n") },
  { name: "two Hosts", bytes: "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" },
  { name: "two Hosts that agree", bytes: "GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n" },
  { name: "no Host", bytes: "GET /a HTTP/1.1\r\n\r\n" },
  { name: "an empty Host", bytes: "GET /a HTTP/1.1\r\nHost:\r\n\r\n" },
  { name: "a Host with userinfo", bytes: "GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n" },
  { name: "a Host with a path", bytes: "GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n" },
  { name: "a list of Hosts", bytes: "GET /a HTTP/1.1\r\nHost: x,y\r\n\r\n" },
  { name: "a Host with a space", bytes: "GET /a HTTP/1.1\r\nHost: x y\r\n\r\n" },
  { name: "a port that is none", bytes: "GET /a HTTP/1.1\r\nHost: x:8o\r\n\r\n" },
  { name: "a port too high", bytes: "GET /a HTTP/1.1\r\nHost: x:65536\r\n\r\n" },
  { name: "an absolute target without an authority", bytes: line("GET http:///a HTTP/1.1") },
  { name: "an absolute target with userinfo", bytes: line("GET http://u:p@x/a HTTP/1.1") },
  { name: "an absolute target of another scheme", bytes: line("GET ftp://x/a HTTP/1.1") },
  { name: "a target that is neither", bytes: line("GET a HTTP/1.1") },
  { name: "a fragment", bytes: line("GET /a#b HTTP/1.1") },
  { name: "a space in the target", bytes: line("GET /a b HTTP/1.1") },
  { name: "two spaces before the target", bytes: line("GET  /a HTTP/1.1") },
  { name: "a tab for a space", bytes: line("GET\t/a HTTP/1.1") },
  { name: "a target that is not ASCII", bytes: line("GET /\xe9 HTTP/1.1") },
  { name: "a control character in the target", bytes: line("GET /a\x01 HTTP/1.1") },
  { name: "* of a method other than OPTIONS", bytes: line("GET * HTTP/1.1") },
  { name: "no version", bytes: line("GET /a") },
  { name: "a space after the version", bytes: line("GET /a HTTP/1.1 ") },
  { name: "a version in lower case", bytes: line("GET /a http/1.1") },
  { name: "a method that is no token", bytes: line("GE(T /a HTTP/1.1") },
  { name: "two empty lines before the request", bytes: "\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n" },
  { name: "an upgrade with a body", bytes: get("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n") },
];

const table: readonly Case[] = [
  ...refused.map((given) => ({ ...given, statuses: [400] })),
  { name: "Transfer-Encoding in HTTP/1.0", bytes: "POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", statuses: [400] },
  { name: "CONNECT", bytes: "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", statuses: [405] },
  { name: "the preface of HTTP/2", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", statuses: [505] },
  { name: "HTTP/1.2", bytes: line("GET /a HTTP/1.2"), statuses: [505] },
  { name: "an unknown expectation", bytes: post("Expect: tea\r\nContent-Length: 5\r\n", "hello"), statuses: [417] },
  { name: "a size of a chunk that is no number", bytes: post("Transfer-Encoding: chunked\r\n", "x\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a size with a prefix", bytes: post("Transfer-Encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a size with a sign", bytes: post("Transfer-Encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "an empty size", bytes: post("Transfer-Encoding: chunked\r\n", "\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a size beyond what a number holds", bytes: post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a chunk longer than its size", bytes: post("Transfer-Encoding: chunked\r\n", "4\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a chunk that ends in a line feed alone", bytes: post("Transfer-Encoding: chunked\r\n", "5\r\nhello\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "a size that ends in a line feed alone", bytes: post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "an extension with a line feed", bytes: post("Transfer-Encoding: chunked\r\n", "5;a\nb\r\nhello\r\n0\r\n\r\n"), statuses: [400], paths: ["/a"] },
  { name: "trailers that end in line feeds alone", bytes: post("Transfer-Encoding: chunked\r\n", "0\r\nx: y\n\n"), statuses: [400], paths: ["/a"] },
  { name: "a folded trailer", bytes: post("Transfer-Encoding: chunked\r\n", "0\r\nx: y\r\n z\r\n\r\n"), statuses: [400], paths: ["/a"] },
];

/** What must be understood, and how: the other half of being strict. */
const accepted: readonly Case[] = [
  {
    name: "chunked in capitals",
    bytes: post("transfer-encoding: Chunked\r\n", `5\r\nhello\r\n0\r\n\r\n${next}`),
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  {
    name: "an extension",
    bytes: post("Transfer-Encoding: chunked\r\n", `5;a="b"\r\nhello\r\n0\r\n\r\n${next}`),
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  {
    name: "zeros before a size",
    bytes: post("Transfer-Encoding: chunked\r\n", `0005\r\nhello\r\n000\r\n\r\n${next}`),
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  { name: "zeros before a length", bytes: post("Content-Length: 005\r\n", `hello${next}`), statuses: [200, 200], paths: ["/a", "/next"], open: true },
  {
    name: "a body that looks like a request",
    bytes: post(`Content-Length: ${next.length}\r\n`, `${next}${next}`),
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  {
    name: "a GET with a body",
    bytes: `GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello${next}`,
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  {
    name: "DELETE with chunks, the shape that smuggles through http-proxy",
    bytes: `DELETE /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n${next}\r\n0\r\n\r\n${next}`,
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  { name: "white space around a value", bytes: `GET /a HTTP/1.1\r\nHost:\t x \t\r\n\r\n${next}`, statuses: [200, 200], paths: ["/a", "/next"], open: true },
  { name: "one empty line before a request", bytes: `\r\n${get("")}\r\n${next}`, statuses: [200, 200], paths: ["/a", "/next"], open: true },
  {
    name: "a backslash, which is left to normalisation",
    bytes: `${line("GET /a\\b HTTP/1.1")}${next}`,
    statuses: [200, 200],
    paths: ["/a\\b", "/next"],
    open: true,
  },
  { name: "OPTIONS *", bytes: `${line("OPTIONS * HTTP/1.1")}${next}`, statuses: [200, 200], paths: ["*", "/next"], open: true },
  {
    name: "an offer of h2c, which is not taken up",
    differs: "node:http hands the connection over to whoever listens for upgrades; upstream the offer is not passed on",
    bytes: `${get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")}${next}`,
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
  { name: "obs-text in a value", bytes: `${get("X: \xe9\r\n")}${next}`, statuses: [200, 200], paths: ["/a", "/next"], open: true },
  { name: "Connection: close", bytes: `${get("Connection: close\r\n")}${next}`, statuses: [200], paths: ["/a"] },
  { name: "HTTP/1.0", bytes: `GET /a HTTP/1.0\r\n\r\n${next}`, statuses: [200], paths: ["/a"] },
  {
    name: "HTTP/1.0 with keep-alive",
    bytes: `GET /a HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n${next}`,
    statuses: [200, 200],
    paths: ["/a", "/next"],
    open: true,
  },
];

for (const { name, bytes, statuses, paths = [], open = false } of [...table, ...accepted]) {
  test(`${open || statuses[0] === 200 ? "read" : "refused"}: ${name}`, async (t) => {
    for (const pieces of [[bytes], [bytes + next], [...bytes]]) {
      const served = await exchange(pieces);
      const expected = pieces[0] === bytes + next && open ? [...statuses, 200] : statuses;
      t.deepEqual(served.statuses, expected, served.answer);
      t.deepEqual(
        served.seen.map(({ path }) => path),
        pieces[0] === bytes + next && open ? [...paths, "/next"] : paths,
      );
      t.is(served.ended, !open);
      t.is(served.refused.length, statuses[0] === 200 || paths.length > 0 ? 0 : 1);
    }
  });
}

test("an absolute target wins over Host", async (t) => {
  const { seen } = await exchange(["GET http://other:81/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "GET HTTP://other?b HTTP/1.1\r\nHost: x\r\n\r\n"]);
  t.deepEqual(
    seen.map(({ authority, path, headers }) => [authority, path, headers]),
    [
      ["other:81", "/a?b", []],
      ["other", "/?b", []],
    ],
  );
});

test("no field of the connection, nor one it nominates, is passed on", async (t) => {
  const fields =
    "Connection: close, X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: gzip, trailers\r\nUpgrade: x\r\nX-Kept: 1\r\n";
  const { seen } = await exchange([get(fields)]);
  t.deepEqual(seen[0]?.headers, ["x-kept", "1", "te", "trailers"]);
});

test("trailers arrive without the fields that a trailer must not carry", async (t) => {
  const { seen } = await exchange([post("Transfer-Encoding: chunked\r\n", "0\r\nX-T: 1\r\nContent-Length: 5\r\nHost: y\r\nAuthorization: z\r\n\r\n")]);
  t.deepEqual(seen[0]?.trailers, ["x-t", "1"]);
});

/** What node:http takes the same bytes for; undefined where it refuses them. */
async function oracle(bytes: string): Promise<{ method: string; url: string; body: string }[]> {
  const requests: { method: string; url: string; body: string }[] = [];
  const server = createServer((message: IncomingMessage, response) => {
    const entry = { method: message.method ?? "", url: message.url ?? "", body: "" };
    message.on("data", (chunk: Buffer) => {
      entry.body += chunk.toString("latin1");
    });
    message.on("end", () => requests.push(entry));
    message.on("error", () => undefined);
    response.end();
  });
  server.on("clientError", (_, socket: Duplex) => void socket.destroy());
  const [client, transport] = duplexPair();
  client.on("error", () => undefined).resume();
  server.emit("connection", transport);
  client.write(Buffer.from(bytes, "latin1"));
  await turns(4);
  client.destroy();
  server.close();
  return requests;
}

test("what is read here, node:http reads the same", async (t) => {
  let compared = 0;
  for (const { name, bytes, differs } of [...table, ...accepted]) {
    if (differs !== undefined) continue;
    const { seen } = await exchange([bytes]);
    const whole = seen.filter(({ outcome }) => outcome === "whole").map(({ method, path, body }) => ({ method, url: path, body }));
    if (whole.length === 0) continue;
    compared += 1;
    t.deepEqual(await oracle(bytes), whole, name);
  }
  t.true(compared >= accepted.filter(({ differs }) => differs === undefined).length);
});
