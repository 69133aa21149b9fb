/** HPACK against the examples of RFC 7541 appendix C, against node:http2's encoder, and against garbage. */
import { connect as http2Connect } from "node:http2";
import { duplexPair } from "node:stream";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { frameTypes, RawPeer, settings } from "../../compliance/raw-peer.ts";
import { ConnectionFault } from "../error-codes.ts";
import { HpackDecoder } from "./decoder.ts";
import { HpackEncoder } from "./encoder.ts";
import type { HeaderField } from "./static-table.ts";

const generous = { maxListBytes: 1024 * 1024, maxFields: 1_000 };

function decodeHex(decoder: HpackDecoder, hex: string): string {
  const { fields, tooLarge } = decoder.decode(Buffer.from(hex.replaceAll(" ", ""), "hex"));
  return tooLarge ? "too large" : fields.map(([name, value]) => `${name}: ${value}`).join("\n");
}

function refuses(t: ExecutionContext, hex: string, decoder: HpackDecoder = new HpackDecoder(generous)): void {
  t.throws(() => decodeHex(decoder, hex), { instanceOf: ConnectionFault, message: /COMPRESSION_ERROR/ }, hex);
}

const requests = [
  ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
  ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
  ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value",
];
const answers = [
  ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
  ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
  ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\ncontent-encoding: gzip\n" +
    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
];
/** The answers of C.5 and C.6 are coded for a table of 256 bytes; this update comes before the first of them. */
const tableOf256 = "3fe101";

for (const [example, expected, blocks] of [
  ["C.2.1", ["custom-key: custom-header"], ["400a637573746f6d2d6b65790d637573746f6d2d686561646572"]],
  ["C.2.2", [":path: /sample/path"], ["040c2f73616d706c652f70617468"]],
  ["C.2.3", ["password: secret"], ["100870617373776f726406736563726574"]],
  ["C.2.4", [":method: GET"], ["82"]],
  ["C.3", requests, ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865", "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"]],
  ["C.4", requests, ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"]],
  [
    "C.5",
    answers,
    [
      `${tableOf256}4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d`,
      "4803333037c1c0bf",
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ],
  ],
  [
    "C.6",
    answers,
    [
      `${tableOf256}488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3`,
      "4883640effc1c0bf",
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ],
  ],
] as const) {
  test(`the blocks of RFC 7541 ${example} decode to what it says`, (t) => {
    const decoder = new HpackDecoder(generous);
    t.deepEqual(
      blocks.map((block) => decodeHex(decoder, block)),
      [...expected],
    );
  });
}

test("an integer of the largest useful value decodes, and longer ones are refused", (t) => {
  // C.1.2 is 1337 with a prefix of 5 bits: as a table size update it is taken, 4097 and 2^32 are not.
  t.is(decodeHex(new HpackDecoder(generous), "3f9a0a82"), ":method: GET");
  for (const hex of ["3fe21f", "3fe1ffffff0f", "3fffffffffffffff7f", "7f808080808000", "3f", "3f80"]) refuses(t, hex);
});

test("indexes, strings and updates that lead nowhere are refused", (t) => {
  // Index 0; index past both tables; a string past the block; a name without a value; an update after a field.
  for (const hex of ["80", "be", "bf", "000a6162", "000161", "8220", "40", "7f"]) refuses(t, hex);
});

test("Huffman padding must be short and all ones, and no string holds the end-of-string symbol", (t) => {
  // "a" is 00011: padded with ones, with noughts, with a byte too many; then 30 ones.
  t.is(decodeHex(new HpackDecoder(generous), "00016181 1f"), "a: a");
  for (const hex of ["000161 81 18", "000161 82 1fff", "000161 84 ffffffff"]) refuses(t, hex);
  t.is(decodeHex(new HpackDecoder(generous), "000161 80"), "a: ");
});

test("after the peer acknowledged a table of 0, nothing is remembered and larger updates are refused", (t) => {
  const decoder = new HpackDecoder(generous);
  decoder.setTableLimit(0);
  t.is(decodeHex(decoder, "400161 0162"), "a: b");
  refuses(t, "be", decoder);
  refuses(t, "21", decoder);
});

test("a peer that filled its table must say that it is empty now, in its next block", (t) => {
  const decoder = new HpackDecoder(generous);
  t.is(decodeHex(decoder, "400161 0162 be"), "a: b\na: b");
  decoder.setTableLimit(0);
  refuses(t, "82", decoder);
  t.is(decodeHex(decoder, "2082"), ":method: GET");
});

test("a block that grows beyond the limits is known as such, and the next one still decodes", (t) => {
  // One entry of about 4,000 bytes, then two thousand references to it.
  const value = "x".repeat(4_000);
  const entry = Buffer.concat([Buffer.from("4001617fa11e", "hex"), Buffer.from(value)]);
  for (const limits of [
    { maxListBytes: 64 * 1024, maxFields: 1_000_000 },
    { maxListBytes: 1024 * 1024 * 1024, maxFields: 64 },
  ]) {
    const decoder = new HpackDecoder(limits);
    const { fields, tooLarge } = decoder.decode(Buffer.concat([entry, Buffer.alloc(2_000, 0xbe)]));
    t.true(tooLarge);
    t.true(fields.length <= 64);
    t.deepEqual(decoder.decode(Buffer.from([0xbe])), { fields: [["a", value]], tooLarge: false });
  }
});

test("old entries leave the table, also after very many", (t) => {
  const decoder = new HpackDecoder(generous);
  for (let round = 0; round < 10_000; round++) {
    const text = String(round).padStart(5, "0");
    t.is(decodeHex(decoder, `400161 05${Buffer.from(text).toString("hex")} be`), `a: ${text}\na: ${text}`);
  }
  // 4,096 bytes hold 107 entries of 38.
  t.is(decodeHex(decoder, "ffa900").slice(0, 3), "a: ");
  refuses(t, "ffaa00", decoder);
});

const token = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/);
const text = fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)), maxLength: 300 });

test("what our encoder writes, our decoder reads, with and without the table given up", (t) => {
  fc.assert(
    fc.property(fc.array(fc.tuple(token, text), { maxLength: 20 }), fc.boolean(), (fields, reduced) => {
      const encoder = new HpackEncoder();
      if (reduced) encoder.tableReduced();
      const block = encoder.encode([[":status", "200"], [":status", "401"], ...fields]);
      t.is(block[0], reduced ? 0x20 : 0x88);
      t.deepEqual(new HpackDecoder(generous).decode(Buffer.from(block)).fields, [[":status", "200"], [":status", "401"], ...fields]);
    }),
    { numRuns: 300 },
  );
});

test("random bytes decode or are refused, and nothing else", (t) => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder(generous);
      try {
        for (const block of blocks) decoder.decode(Buffer.from(block));
      } catch (thrown) {
        t.true(thrown instanceof ConnectionFault);
      }
    }),
    { numRuns: 3_000 },
  );
  t.pass();
});

for (const tableSize of [4_096, 200, 0]) {
  test(`what node:http2 encodes for a table of ${tableSize} decodes to what it was given`, async (t) => {
    const valueText = fc.stringMatching(/^[\x21-\x7e][\x20-\x7e]{0,60}[\x21-\x7e]$/);
    const requestsOf = fc.array(fc.uniqueArray(fc.tuple(token, valueText), { selector: ([name]) => name, maxLength: 8 }), { minLength: 1, maxLength: 12 });
    for (const all of fc.sample(requestsOf, 25)) {
      const [near, far] = duplexPair();
      const peer = new RawPeer(far, "server");
      peer.send(settings([[1, tableSize]]));
      const session = http2Connect("http://tunnel.invalid", { createConnection: () => near });
      session.on("error", () => {});
      // The second SETTINGS are the ones with a table size; their acknowledgement is the second.
      await peer.receive(({ type, flags }) => type === frameTypes.settings && flags === 1);
      await new Promise((resolve) => setImmediate(resolve));
      const decoder = new HpackDecoder(generous);
      for (const [index, fields] of all.entries()) {
        const usable = fields.filter(([name]) => !forbidden.has(name));
        const request = session.request({ ":method": "CONNECT", ":authority": "10.0.0.1:80", ...Object.fromEntries(usable) });
        request.on("error", () => {});
        const { payload } = await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 2 * index + 1);
        const expected: HeaderField[] = [[":method", "CONNECT"], [":authority", "10.0.0.1:80"], ...usable];
        t.deepEqual(new Map(decoder.decode(payload).fields), new Map(expected));
      }
      session.destroy();
      far.destroy();
    }
  });
}

/** Names that node:http2 does not send as they are. */
const forbidden: ReadonlySet<string> = new Set([
  "connection",
  "upgrade",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "te",
  "host",
  "http2-settings",
  "trailer",
]);
