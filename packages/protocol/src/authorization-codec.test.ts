import { type AuthorizationPolicy, emptyMatch, parseCidr } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { authorizationTypeUrl, decodeAuthorization, encodeAuthorization } from "./authorization-codec.ts";
import { ProtocolDecodeError, type ProtocolDecodeErrorCode } from "./protocol-error.ts";
import { anyPolicy, fieldContent, fieldNumbers, int, len } from "./sample-resources.ts";

const decode = (...fields: number[][]) => decodeAuthorization(Uint8Array.from([len(1, "p"), ...fields].flat()));
/** One rule of one clause of one match; matches are field 2 of a clause. */
const match = (...fields: number[][]) => len(5, len(1, len(2, fields.flat())));
const matchOf = (policy: AuthorizationPolicy) => policy.rules[0]?.clauses[0]?.matches[0];

test("the type URL is that of the protocol", (t) => t.is(authorizationTypeUrl, "type.googleapis.com/istio.security.Authorization"));

test("policies survive the wire", (t) => {
  fc.assert(fc.property(anyPolicy, (policy) => void t.deepEqual(decodeAuthorization(encodeAuthorization(policy)), policy)));
});

test("a policy written by hand from the field table is read field by field", (t) => {
  const policy = decode(
    len(2, "shop"),
    int(3, 2),
    int(4, 1),
    int(6, 1),
    len(7, len(1, "ignored")),
    match(
      len(1, len(1, "exact")),
      len(2, len(2, "prefix")),
      len(3, len(3, "suffix")),
      len(4, len(4, [])),
      len(5, [...len(1, [10, 0, 0, 0]), ...int(2, 8)]),
      len(6, [...len(1, [10, 1, 0, 0]), ...int(2, 16)]),
      len(7, [...len(1, [10, 2, 0, 0]), ...int(2, 16)]),
      len(8, [...len(1, [10, 3, 0, 0]), ...int(2, 0)]),
      len(9, [80, 0x90, 0x3f]),
      int(10, 81),
      len(11, [...len(1, "ns"), ...len(2, "sa")]),
      len(12, len(2, "other")),
    ),
  );
  t.deepEqual(policy, {
    name: "p",
    namespace: "shop",
    scope: "workload-selector",
    action: "deny",
    dryRun: true,
    rules: [
      {
        clauses: [
          {
            matches: [
              {
                namespaces: [{ kind: "exact", value: "exact" }],
                notNamespaces: [{ kind: "prefix", value: "prefix" }],
                principals: [{ kind: "suffix", value: "suffix" }],
                notPrincipals: [{ kind: "presence" }],
                sourceIps: [parseCidr("10.0.0.0/8")],
                notSourceIps: [parseCidr("10.1.0.0/16")],
                destinationIps: [parseCidr("10.2.0.0/16")],
                notDestinationIps: [parseCidr("10.3.0.0/0")],
                destinationPorts: [80, 8080],
                notDestinationPorts: [81],
                serviceAccounts: [{ namespace: "ns", serviceAccount: "sa" }],
                notServiceAccounts: [{ namespace: "", serviceAccount: "other" }],
              },
            ],
          },
        ],
      },
    ],
  });
});

test("every field is written under its own number, and a clause's matches under 2", (t) => {
  const full = decode(
    len(2, "ns"),
    int(3, 1),
    int(4, 1),
    int(6, 1),
    match(
      ...[1, 2, 3, 4].map((field) => len(field, len(1, "x"))),
      ...[5, 6, 7, 8].map((field) => len(field, len(1, [1, 2, 3, 4]))),
      int(9, 1),
      int(10, 1),
      len(11, []),
      len(12, []),
    ),
  );
  const bytes = encodeAuthorization(full);
  t.deepEqual(fieldNumbers(bytes), [1, 2, 3, 4, 5, 6]);
  const clause = fieldContent(fieldContent(bytes, 5), 1);
  t.deepEqual(fieldNumbers(clause), [2]);
  t.deepEqual(fieldNumbers(fieldContent(clause, 2)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
});

test("a match that says nothing stays a match", (t) => {
  t.deepEqual(matchOf(decode(match())), emptyMatch);
  t.deepEqual(decode(len(5, len(1, []))).rules, [{ clauses: [{ matches: [] }] }]);
  t.deepEqual(decode(len(5, [])).rules, [{ clauses: [] }]);
});

const refused: readonly [string, ProtocolDecodeErrorCode, () => unknown][] = [
  ["a string matcher without type", "PROTOCOL_MISSING_FIELD", () => decode(match(len(3, [])))],
  ["a string matcher of an unknown type", "PROTOCOL_MISSING_FIELD", () => decode(match(len(3, len(5, "regex"))))],
  ["an address of three bytes", "PROTOCOL_INVALID_FIELD", () => decode(match(len(5, len(1, [1, 2, 3]))))],
  ["an absent address", "PROTOCOL_INVALID_FIELD", () => decode(match(len(8, [])))],
  ["a range longer than its family", "PROTOCOL_INVALID_FIELD", () => decode(match(len(7, [...len(1, [1, 2, 3, 4]), ...int(2, 33)])))],
  ["a port beyond the last", "PROTOCOL_INVALID_FIELD", () => decode(match(int(9, 65_536)))],
  ["an unknown scope", "PROTOCOL_UNKNOWN_ENUM", () => decode(int(3, 3))],
  ["an unknown action", "PROTOCOL_UNKNOWN_ENUM", () => decode(int(4, 2))],
  ["a policy without name", "PROTOCOL_MISSING_FIELD", () => decodeAuthorization(new Uint8Array())],
  ["text that is not UTF-8", "PROTOCOL_MALFORMED", () => decode(len(2, [0xc3, 0x28]))],
];
for (const [name, code, decodeIt] of refused) {
  test(`a policy is refused as a whole for ${name}`, (t) => {
    const error = t.throws(decodeIt, { instanceOf: ProtocolDecodeError });
    t.is(error.code, code);
  });
}

test("truncated policies and garbage throw the decode error or decode, and nothing else", (t) => {
  const check = (bytes: Uint8Array) => {
    try {
      decodeAuthorization(bytes);
    } catch (error) {
      if (!(error instanceof ProtocolDecodeError)) throw error;
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), { numRuns: 2000 });
  fc.assert(
    fc.property(anyPolicy.map(encodeAuthorization), fc.nat(), fc.nat(255), (bytes, at, byte) => {
      check(bytes.subarray(0, at % bytes.length));
      const copy = bytes.slice();
      copy[at % copy.length] = byte;
      check(copy);
    }),
    { numRuns: 1000 },
  );
  t.pass();
});
