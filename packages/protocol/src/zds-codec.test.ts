import test from "ava";
import fc from "fast-check";
import { ProtocolDecodeError, ProtocolEncodeError } from "./protocol-error.ts";
import { int, len } from "./sample-resources.ts";
import {
  decodeZdsHello,
  decodeZdsRequest,
  decodeZdsResponse,
  encodeZdsHello,
  encodeZdsRequest,
  encodeZdsResponse,
  type ZdsRequest,
  zdsMaxMessageBytes,
} from "./zds-codec.ts";

const golden: readonly [ZdsRequest, number[]][] = [
  [
    { kind: "add", uid: "u1", workload: { name: "pod", namespace: "ns", serviceAccount: "sa" } },
    len(1, [...len(1, "u1"), ...len(2, [...len(1, "pod"), ...len(2, "ns"), ...len(3, "sa")])]),
  ],
  [{ kind: "add", uid: "u1", workload: undefined }, len(1, len(1, "u1"))],
  [{ kind: "keep", uid: "u1" }, len(5, len(1, "u1"))],
  [{ kind: "del", uid: "u1" }, len(2, len(2, "u1"))],
  [{ kind: "snapshot-sent" }, len(3, [])],
];
for (const [request, bytes] of golden) {
  test(`a ${request.kind} request is the bytes of the field table, both ways (${bytes.length} bytes)`, (t) => {
    t.deepEqual([...encodeZdsRequest(request)], bytes);
    t.deepEqual(decodeZdsRequest(Uint8Array.from(bytes)), request);
  });
}

test("the hello is version 1, and any other version is refused", (t) => {
  t.deepEqual([...encodeZdsHello()], [0x08, 0x01]);
  t.deepEqual(decodeZdsHello(Uint8Array.from([0x08, 0x01])), { version: "v1" });
  for (const bytes of [[], int(1, 2), int(1, 0)]) {
    t.is(t.throws(() => decodeZdsHello(Uint8Array.from(bytes)), { instanceOf: ProtocolDecodeError }).code, "PROTOCOL_UNKNOWN_ENUM");
  }
});

test("an acknowledgement carries its error, and none is the empty text", (t) => {
  t.deepEqual([...encodeZdsResponse({ error: "" })], len(1, []));
  t.deepEqual([...encodeZdsResponse({ error: "no" })], len(1, len(1, "no")));
  t.deepEqual(decodeZdsResponse(Uint8Array.from(len(1, []))), { error: "" });
  t.deepEqual(decodeZdsResponse(encodeZdsResponse({ error: "no" })), { error: "no" });
});

test("a response always fits one datagram and begins as the error does", (t) => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 3000 }), (error) => {
      const bytes = encodeZdsResponse({ error });
      t.true(bytes.length <= zdsMaxMessageBytes);
      const read = decodeZdsResponse(bytes).error;
      t.true(error.toWellFormed().startsWith(read) || read.endsWith("\ufffd"));
      if (error.length < 300) t.is(read, error.toWellFormed());
    }),
  );
  t.true(encodeZdsResponse({ error: "€".repeat(1000) }).length > zdsMaxMessageBytes - 12);
});

test("a request of the longest names that Kubernetes accepts fits, a longer one is refused", (t) => {
  const workload = { name: "n".repeat(253), namespace: "s".repeat(63), serviceAccount: "a".repeat(253) };
  t.true(encodeZdsRequest({ kind: "add", uid: "0".repeat(36), workload }).length <= zdsMaxMessageBytes);
  t.throws(() => encodeZdsRequest({ kind: "add", uid: "0".repeat(1100), workload }), { instanceOf: ProtocolEncodeError });
});

test("requests and responses without meaning are refused", (t) => {
  for (const bytes of [[], len(4, []), len(1, []), len(2, len(1, "the wrong field")), len(5, [])]) {
    t.is(t.throws(() => decodeZdsRequest(Uint8Array.from(bytes)), { instanceOf: ProtocolDecodeError }).code, "PROTOCOL_MISSING_FIELD");
  }
  t.throws(() => decodeZdsResponse(new Uint8Array()), { instanceOf: ProtocolDecodeError });
});

test("garbage throws the decode error or decodes, and nothing else", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      for (const decode of [decodeZdsHello, decodeZdsRequest, decodeZdsResponse]) {
        try {
          decode(bytes);
        } catch (error) {
          if (!(error instanceof ProtocolDecodeError)) throw error;
        }
      }
    }),
    { numRuns: 3000 },
  );
  t.pass();
});
