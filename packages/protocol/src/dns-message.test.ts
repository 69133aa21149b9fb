import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import {
  type DnsAnswer,
  type DnsQuery,
  dnsCodeOf,
  dnsCodes,
  dnsTypeName,
  dnsUdpLimit,
  encodeDnsAnswer,
  isDnsResponseTo,
  readDnsRequest,
  relayedDnsResponse,
  withDnsId,
} from "./dns-message.ts";

interface Sent {
  readonly id?: number;
  readonly flags?: number;
  readonly counts?: readonly [number, number, number, number];
  readonly labels?: readonly (string | Uint8Array)[];
  readonly type?: number;
  readonly tail?: Uint8Array;
}

function message({ id = 0x1234, flags = 0x0100, counts = [1, 0, 0, 0], labels = ["api", "shop"], type = 1, tail = new Uint8Array(0) }: Sent = {}): Uint8Array {
  const numbers = [id, flags, ...counts].flatMap((value) => [value >> 8, value & 0xff]);
  const name = labels.map((label) => Buffer.from(label)).flatMap((label) => [label.length, ...label]);
  return Uint8Array.from([...numbers, ...name, 0, type >> 8, type & 0xff, 0, 1, ...tail]);
}

function opt(udpSize: number, { version = 0, flags = 0 } = {}): Uint8Array {
  return Uint8Array.from([0, 0, 41, udpSize >> 8, udpSize & 0xff, 0, version, flags >> 8, flags & 0xff, 0, 0]);
}

function query(t: ExecutionContext, sent: Sent = {}): DnsQuery {
  const request = readDnsRequest(message(sent));
  if (request.kind === "query") return request.query;
  return t.fail(`not taken for a query: ${request.kind}`);
}

const plain: DnsAnswer = { code: dnsCodes.ok, authoritative: true, addresses: [], canonicalName: undefined, ttlSeconds: 30 };
const ip = (last: number): Uint8Array => Uint8Array.of(10, 0, 0, last);

test("a question is read: its name in lower case, its bytes as they came", (t) => {
  const { id, question, extension } = query(t, { labels: ["API", "Shop"], type: 28 });
  t.is(id, 0x1234);
  t.like(question, { name: "api.shop", type: 28, class: 1 });
  t.is(Buffer.from(question.bytes).subarray(1, 4).toString(), "API");
  t.is(extension, undefined);
});

test("a label with a dot in it is not two labels", (t) => {
  t.is(query(t, { labels: ["api.shop", Uint8Array.of(0, 0xff)] }).question.name, "api\\046shop.\\000\\255");
});

test("the size, version and DNSSEC wish of a client are read from the OPT record, behind whatever else is there", (t) => {
  const other = Uint8Array.from([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 1, 65]);
  const sent = { counts: [1, 0, 1, 1], tail: Buffer.concat([other, opt(4096, { flags: 0x8000 })]) } as const;
  t.deepEqual(query(t, sent).extension, { udpSize: 4096, version: 0, dnssecOk: true });
  t.is(dnsUdpLimit(query(t, sent)), 4096);
  t.is(dnsUdpLimit(query(t)), 512);
  t.is(dnsUdpLimit(query(t, { counts: [1, 0, 0, 1], tail: opt(100) })), 512);
});

for (const [what, sent, code] of [
  ["a response", { flags: 0x8180 }, dnsCodes.formatError],
  ["an UPDATE", { flags: 5 << 11 }, dnsCodes.notImplemented],
  ["a STATUS", { flags: 2 << 11 }, dnsCodes.notImplemented],
  ["no question", { counts: [0, 0, 0, 0] }, dnsCodes.formatError],
  ["two questions", { counts: [2, 0, 0, 0] }, dnsCodes.formatError],
  ["65535 questions", { counts: [65_535, 65_535, 65_535, 65_535] }, dnsCodes.formatError],
  ["more records than there are", { counts: [1, 0, 0, 65_535] }, dnsCodes.formatError],
  ["two OPT records", { counts: [1, 0, 0, 2], tail: Buffer.concat([opt(512), opt(512)]) }, dnsCodes.formatError],
  ["an OPT record among the answers", { counts: [1, 1, 0, 0], tail: opt(512) }, dnsCodes.formatError],
  [
    "a record whose data ends after the message",
    { counts: [1, 0, 0, 1], tail: Uint8Array.from([0, 0, 16, 0, 1, 0, 0, 0, 0, 0xff, 0xff]) },
    dnsCodes.formatError,
  ],
  ["a record with a reserved label type", { counts: [1, 0, 0, 1], tail: Uint8Array.from([0x80, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0]) }, dnsCodes.formatError],
  ["a name that is too long", { labels: Array.from({ length: 5 }, () => "x".repeat(60)) }, dnsCodes.formatError],
] as const) {
  test(`${what} is refused with its own number and no question`, (t) => {
    const request = readDnsRequest(message(sent));
    if (request.kind !== "refused") return t.fail(request.kind);
    t.is(request.code, code);
    t.is(request.refusal.length, 12);
    t.is(Buffer.from(request.refusal).readUInt16BE(), 0x1234);
    t.is(dnsCodeOf(request.refusal), code);
    t.true((Buffer.from(request.refusal).readUInt16BE(2) & 0x8000) !== 0);
  });
}

test("a question whose name is a pointer to itself is refused", (t) => {
  const looping = Uint8Array.from([...message().subarray(0, 12), 0xc0, 12, 0, 1, 0, 1]);
  t.is(readDnsRequest(looping).kind, "refused");
  const further = Uint8Array.from([...message().subarray(0, 12), 1, 97, 0xc0, 12, 0, 1, 0, 1]);
  t.is(readDnsRequest(further).kind, "refused");
});

test("less than a header is noise", (t) => {
  for (let length = 0; length < 12; length += 1) t.is(readDnsRequest(message().subarray(0, length)).kind, "noise");
});

test("an answer has the question as it was asked, and its addresses under it", (t) => {
  const asked = query(t, { labels: ["API", "Shop"] });
  const answer = Buffer.from(encodeDnsAnswer(asked, { ...plain, addresses: [ip(1), ip(2)] }, 512));
  t.is(answer.readUInt16BE(0), 0x1234);
  t.is(answer.readUInt16BE(2), 0x8580, "a response, authoritative, recursion desired and available");
  t.deepEqual(
    [4, 6, 8, 10].map((at) => answer.readUInt16BE(at)),
    [1, 2, 0, 0],
  );
  t.deepEqual(answer.subarray(12, 12 + asked.question.bytes.length), Buffer.from(asked.question.bytes));
  t.deepEqual([...answer.subarray(-16)], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 2]);
});

test("addresses behind an alias stand under the alias's target", (t) => {
  const asked = query(t, { labels: ["www", "example", "com", "shop"] });
  const answer = Buffer.from(encodeDnsAnswer(asked, { ...plain, addresses: [ip(1)], canonicalName: "www.example.com" }, 512));
  t.is(answer.readUInt16BE(6), 2);
  const alias = 12 + asked.question.bytes.length;
  t.is(answer.readUInt16BE(alias + 2), 5);
  const target = alias + 12;
  t.is(answer.subarray(target, target + 17).toString("latin1"), "\x03www\x07example\x03com\0");
  t.is(answer.readUInt16BE(target + 17) & 0x3fff, target);
});

test("the OPT record comes back when it was sent, with the client's size, its DNSSEC wish and the upper half of the code", (t) => {
  const asked = query(t, { counts: [1, 0, 0, 1], tail: opt(1232, { flags: 0x8000, version: 1 }) });
  const answer = encodeDnsAnswer(asked, { ...plain, code: dnsCodes.badVersion }, 512);
  t.is(dnsCodeOf(answer), 0);
  t.deepEqual([...answer.subarray(-11)], [0, 0, 41, 1232 >> 8, 1232 & 0xff, 1, 0, 0x80, 0, 0, 0]);
});

test("what does not fit is left out whole, and the answer says so", (t) => {
  const addresses = Array.from({ length: 100 }, (_, index) => ip(index));
  const asked = query(t, { counts: [1, 0, 0, 1], tail: opt(512) });
  const cut = Buffer.from(encodeDnsAnswer(asked, { ...plain, addresses }, 512));
  t.true(cut.length <= 512);
  t.true((cut.readUInt16BE(2) & 0x0200) !== 0);
  t.is(cut.length, 12 + asked.question.bytes.length + cut.readUInt16BE(6) * 16 + 11);
  t.is(cut.readUInt16BE(10), 1, "the OPT record stays");
  const whole = Buffer.from(encodeDnsAnswer(asked, { ...plain, addresses }, 65_535));
  t.is(whole.readUInt16BE(2) & 0x0200, 0);
  t.is(whole.readUInt16BE(6), 100);
});

test("a response is taken for the answer only with the number, the direction and the question of the query", (t) => {
  const asked = query(t);
  const right = { id: 7, flags: 0x8180 };
  t.true(isDnsResponseTo(asked, 7, message(right)));
  t.true(isDnsResponseTo(asked, 7, message({ ...right, labels: ["API", "shop"] })), "letter case is no difference");
  t.false(isDnsResponseTo(asked, 7, message({ ...right, id: 8 })));
  t.false(isDnsResponseTo(asked, 7, message({ ...right, flags: 0x0100 })));
  t.false(isDnsResponseTo(asked, 7, message({ ...right, labels: ["evil", "shop"] })));
  t.false(isDnsResponseTo(asked, 7, message({ ...right, type: 28 })));
  t.false(isDnsResponseTo(asked, 7, message({ ...right, counts: [2, 0, 0, 0] })));
  t.false(isDnsResponseTo(asked, 7, message(right).subarray(0, 11)));
  t.true(isDnsResponseTo(asked, 7, message({ ...right, flags: 0x8181, counts: [0, 0, 0, 0] }).subarray(0, 12)), "an error may leave the question out");
  t.false(isDnsResponseTo(asked, 7, message({ ...right, counts: [0, 0, 0, 0] }).subarray(0, 12)), "a success may not");
});

test("a relayed response has the client's number and no claim to authority; everything else is as it came", (t) => {
  const response = message({ id: 7, flags: 0x8583, type: 16, tail: Uint8Array.of(1, 2, 3) });
  const relayed = relayedDnsResponse(response, query(t, { type: 16 }));
  t.deepEqual(Buffer.from(relayed), Buffer.from(message({ flags: 0x8183, type: 16, tail: Uint8Array.of(1, 2, 3) })));
  t.is(Buffer.from(response).readUInt16BE(), 7, "the original is left alone");
});

test("types that are not well known share one name", (t) => {
  t.deepEqual([1, 28, 65, 0, 65_280].map(dnsTypeName), ["a", "aaaa", "https", "unknown", "unknown"]);
});

test("no bytes make the decoder throw, and what it refuses or answers has the client's number", (t) => {
  const bytes = fc.oneof(fc.uint8Array({ maxLength: 600 }), mutated());
  fc.assert(
    fc.property(bytes, (sent) => {
      const request = readDnsRequest(sent);
      if (request.kind === "noise") return sent.length < 12;
      const answer = request.kind === "refused" ? request.refusal : encodeDnsAnswer(request.query, { ...plain, addresses: [ip(1)], canonicalName: "a.b" }, 512);
      return answer[0] === sent[0] && answer[1] === sent[1] && answer.length <= Math.max(512, sent.length + 11);
    }),
    { numRuns: 3_000 },
  );
  t.pass();
});

test("no bytes make a response checker throw", (t) => {
  const asked = query(t);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(65_535), (bytes, id) => typeof isDnsResponseTo(asked, id, bytes) === "boolean"));
  t.pass();
});

test("what is encoded reads back as a response to its query, whatever the question", (t) => {
  const label = fc.uint8Array({ minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(fc.array(label, { maxLength: 6 }), fc.nat(65_535), fc.array(fc.nat(255), { maxLength: 40 }), (labels, id, hosts) => {
      const request = readDnsRequest(message({ labels, id }));
      if (request.kind !== "query") return false;
      const answer = encodeDnsAnswer(request.query, { ...plain, addresses: hosts.map(ip) }, 512);
      return answer.length <= 512 && isDnsResponseTo(request.query, id, answer) && isDnsResponseTo(request.query, 1, withDnsId(answer, 1));
    }),
  );
  t.pass();
});

/** A well-formed query with a few bytes changed and its end cut. */
function mutated(): fc.Arbitrary<Uint8Array> {
  const whole = message({ counts: [1, 0, 1, 1], tail: Buffer.concat([Uint8Array.from([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 1, 65]), opt(4096)]) });
  return fc.tuple(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 5 }), fc.nat(whole.length)).map(([changes, length]) => {
    const bytes = Uint8Array.from(whole);
    for (const [at, value] of changes) bytes[at] = value;
    return bytes.subarray(0, length);
  });
}
