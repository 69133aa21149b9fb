import type { Pattern } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { anyCluster, anyEndpoints, anyRouteTable, anyTarget } from "../sample-waypoint.ts";
import { decodeCluster, encodeCluster } from "./cluster-codec.ts";
import { decodeEndpoints, encodeEndpoints } from "./endpoint-codec.ts";
import { decodeTarget, encodeTarget } from "./listener-codec.ts";
import { decodeRouteTable, encodeRouteTable } from "./route-codec.ts";

function returns<T>(t: ExecutionContext, arbitrary: fc.Arbitrary<T>, encode: (value: T) => Uint8Array, decode: (bytes: Uint8Array) => T): void {
  fc.assert(
    fc.property(arbitrary, (value) => {
      const decoded = decode(encode(value));
      t.deepEqual(comparable(decoded), comparable(value));
    }),
    { numRuns: 150 },
  );
  t.pass();
}

/** Patterns are equal when their sources are. */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== "object" || value === null) return value;
  if ("matches" in value) return { pattern: (value as Pattern).source };
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, comparable(field)]));
}

test("every target comes back from the wire as it was", (t) => {
  returns(t, anyTarget, encodeTarget, decodeTarget);
});

test("every route table comes back from the wire as it was", (t) => {
  returns(t, anyRouteTable, encodeRouteTable, decodeRouteTable);
});

test("every cluster comes back from the wire as it was", (t) => {
  returns(t, anyCluster, encodeCluster, decodeCluster);
});

test("all endpoints of a cluster come back from the wire as they were", (t) => {
  returns(t, anyEndpoints, encodeEndpoints, decodeEndpoints);
});
