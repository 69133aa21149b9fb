import test from "ava";
import fc from "fast-check";
import { ProtocolDecodeError } from "../protocol-error.ts";
import { anyCluster, anyEndpoints, anyRouteTable, anyTarget } from "../sample-waypoint.ts";
import { decodeCluster, encodeCluster } from "./cluster-codec.ts";
import { decodeEndpoints, encodeEndpoints } from "./endpoint-codec.ts";
import { decodeTarget, encodeTarget } from "./listener-codec.ts";
import { decodeRouteTable, encodeRouteTable } from "./route-codec.ts";

const decoders = [
  ["a target", decodeTarget, anyTarget.map(encodeTarget)],
  ["a route table", decodeRouteTable, anyRouteTable.map(encodeRouteTable)],
  ["a cluster", decodeCluster, anyCluster.map(encodeCluster)],
  ["endpoints", decodeEndpoints, anyEndpoints.map(encodeEndpoints)],
] as const;

for (const [what, decode, valid] of decoders) {
  test(`whatever the bytes are, reading ${what} gives a value or a ProtocolDecodeError`, (t) => {
    const damage = fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255), kind: fc.constantFrom("replace", "insert", "remove", "cut") }), {
      minLength: 1,
      maxLength: 4,
    });
    const survives = (bytes: Uint8Array) => {
      try {
        decode(bytes);
      } catch (thrown) {
        if (!(thrown instanceof ProtocolDecodeError)) throw thrown;
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), survives), { numRuns: 300 });
    fc.assert(
      fc.property(valid, damage, (bytes, changes) => {
        survives(changes.reduce(damaged, bytes));
      }),
      { numRuns: 300 },
    );
    t.pass();
  });
}

function damaged(bytes: Uint8Array, { at, byte, kind }: { at: number; byte: number; kind: string }): Uint8Array {
  const position = bytes.length === 0 ? 0 : at % bytes.length;
  const [before, after] = [bytes.subarray(0, position), bytes.subarray(position)];
  switch (kind) {
    case "cut":
      return before;
    case "insert":
      return new Uint8Array([...before, byte, ...after]);
    case "remove":
      return new Uint8Array([...before, ...after.subarray(1)]);
    default:
      return new Uint8Array([...before, byte, ...after.subarray(1)]);
  }
}
