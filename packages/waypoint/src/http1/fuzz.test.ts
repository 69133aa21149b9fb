/** HTTP/1 against bytes nobody wrote: however they are split they mean the same, and no change of them throws. */
import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { emptyBody } from "../body.ts";
import { defaultHttpLimits } from "../http-connection.ts";
import { connectHttp1 } from "./client-connection.ts";
import { exchange, turns } from "./test-exchange.ts";

const requests = [
  "GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nCookie: a=1\r\n\r\n",
  "POST /b HTTP/1.1\r\nHost: x:80\r\nContent-Length: 11\r\n\r\nhello world",
  "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
  "PUT http://y/d HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
  "\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
];

const answers = [
  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
  "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;e\r\nyou\r\n0\r\nGrpc-Status: 0\r\n\r\n",
  "HTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\nuntil the end",
  "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n",
];

/** Pieces of `bytes`, cut at what `cuts` come to. */
function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((start, index) => bytes.subarray(start, at[index] ?? bytes.length)).filter((piece) => piece.length > 0);
}

/** What an answer becomes. */
async function read(pieces: readonly Buffer[]): Promise<unknown> {
  const [peer, transport] = duplexPair();
  peer.on("error", () => undefined).resume();
  const informed: unknown[] = [];
  const connection = connectHttp1(transport, { limits: defaultHttpLimits, onUnusable: () => undefined });
  const head = { method: "GET", scheme: "http", authority: "x", path: "/", headers: new HeaderFields() } as const;
  const onInform = (status: number, headers: HeaderFields): void => void informed.push([status, headers.flat]);
  const sending = connection.send({ head, body: emptyBody, upgrade: undefined, onInform }, { signal: new AbortController().signal });
  const outcome = { text: "", trailers: undefined as readonly string[] | undefined, over: "" };
  const seen = sending.then(
    ({ status, headers, body }) => {
      body.flowInto({
        write: (bytes) => {
          outcome.text += Buffer.from(bytes).toString("latin1");
          return true;
        },
        end: (trailers) => {
          outcome.trailers = trailers?.flat;
          outcome.over = "whole";
        },
        fail: () => {
          outcome.over = "broken";
        },
        onReady: undefined,
      });
      return { status, headers: headers.flat, length: body.length };
    },
    (error: { code?: string }) => ({ code: error.code }),
  );
  for (const piece of pieces) {
    peer.write(piece);
    await turns(1);
  }
  peer.end();
  await turns(4);
  const answer = await seen;
  await turns(2);
  connection.destroy(new Error("the test is over"));
  await connection.closed;
  return { answer, informed, outcome };
}

const cuts = fc.array(fc.nat(1_000), { maxLength: 12 });

/** Bytes of a message with a few of them replaced, removed or doubled. */
function mutations(of: readonly string[]): fc.Arbitrary<Buffer> {
  const change = fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("replace", "remove", "double", "insert"),
    byte: fc.oneof(fc.constantFrom(0, 9, 10, 13, 32, 58, 44, 48, 49), fc.nat(255)),
  });
  return fc.tuple(fc.constantFrom(...of), fc.array(change, { minLength: 1, maxLength: 4 })).map(([text, changes]) => {
    let bytes = [...Buffer.from(text, "latin1")];
    for (const { at, kind, byte } of changes) {
      const index = at % Math.max(1, bytes.length);
      if (kind === "replace") bytes[index] = byte;
      else if (kind === "remove") bytes = bytes.toSpliced(index, 1);
      else bytes = bytes.toSpliced(index, 0, kind === "double" ? (bytes[index] ?? 0) : byte);
    }
    return Buffer.from(bytes);
  });
}

test("requests mean the same however their bytes are split", async (t) => {
  const all = Buffer.from(requests.join(""), "latin1");
  const whole = await exchange([all]);
  t.is(whole.seen.length, requests.length);
  await fc.assert(
    fc.asyncProperty(cuts, async (at) => {
      const { seen, statuses } = await exchange(split(all, at));
      t.deepEqual([seen, statuses.filter((status) => status !== 100)], [whole.seen, whole.statuses.filter((status) => status !== 100)]);
    }),
    { numRuns: 150 },
  );
});

test("answers mean the same however their bytes are split", async (t) => {
  for (const answer of answers) {
    const bytes = Buffer.from(answer, "latin1");
    const whole = await read([bytes]);
    await fc.assert(
      fc.asyncProperty(cuts, async (at) => void t.deepEqual(await read(split(bytes, at)), whole)),
      { numRuns: 60 },
    );
  }
});

test("changed requests are read or refused, and split changes nothing about it", async (t) => {
  await fc.assert(
    fc.asyncProperty(mutations(requests), cuts, async (bytes, at) => {
      const whole = await exchange([bytes], { end: true });
      const pieces = await exchange(split(bytes, at), { end: true });
      // Whoever breaks off within a body is answered by whoever reads it, at a time of its own: only what was understood is compared.
      t.deepEqual(
        pieces.seen.map(({ method, authority, path, headers }) => [method, authority, path, headers]),
        whole.seen.map(({ method, authority, path, headers }) => [method, authority, path, headers]),
      );
      t.deepEqual(
        pieces.refused.map(({ status }) => status),
        whole.refused.map(({ status }) => status),
      );
    }),
    { numRuns: 400 },
  );
});

test("changed answers are read or are garbage, and nothing is thrown elsewhere", async (t) => {
  await fc.assert(
    fc.asyncProperty(mutations(answers), cuts, async (bytes, at) => {
      await read([bytes]);
      await read(split(bytes, at));
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test("random bytes are refused", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
      const { seen } = await exchange([Buffer.from(bytes)], { end: true });
      t.deepEqual(seen, []);
      await read([Buffer.from(bytes)]);
    }),
    { numRuns: 200 },
  );
});
