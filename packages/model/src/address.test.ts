import test from "ava";
import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { tryParseIp } from "./address.ts";

const part = fc.oneof(fc.integer({ min: 0, max: 300 }).map(String), fc.constantFrom("", "00", "01", "0x1", "1e1", " 1", "-1", "255 "));
const dotted = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("."));

test("dotted quads are those of the library, as they are written, also inside an IPv6 address", (t) => {
  fc.assert(
    fc.property(dotted, (text) => {
      const expected = ipaddr.IPv4.isValidFourPartDecimal(text) ? text : undefined;
      t.is(tryParseIp(text) as string | undefined, expected);
      if (expected !== undefined) t.is(tryParseIp(`::ffff:${text}`) as string, expected);
    }),
  );
});

test("an address has one form", (t) => {
  const forms = {
    "10.0.0.1": "10.0.0.1",
    "::ffff:10.0.0.1": "10.0.0.1",
    "::FFFF:a00:1": "10.0.0.1",
    "0:0:0:0:0:ffff:10.0.0.1": "10.0.0.1",
    "FD00:0:0::1": "fd00::1",
    "255.255.255.255": "255.255.255.255",
  };
  for (const [text, canonical] of Object.entries(forms)) t.is(tryParseIp(text) as string, canonical);
});

test("what is no plain address is none", (t) => {
  for (const text of [
    "",
    "10.0.0",
    "010.0.0.1",
    "256.1.1.1",
    "10.0.0.1\n",
    " 10.0.0.1",
    "10.0.0.1:80",
    "fe80::1%eth0",
    "::ffff:10.0.0.256",
    "::ffff:",
    "localhost",
    "1::2::3",
  ])
    t.is(tryParseIp(text), undefined, text);
});
