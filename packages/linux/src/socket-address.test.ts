import { SocketAddress } from "node:net";
import { errorCode } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { canonicalIp, decodeSocketAddress, encodeSocketAddress, encodeUnixAddress } from "./socket-address.ts";

const canonical: readonly (readonly [string, string])[] = [
  ["10.0.0.1", "10.0.0.1"],
  ["::", "::"],
  ["::1", "::1"],
  ["0:0:0:0:0:0:0:1", "::1"],
  ["::ffff:10.0.0.1", "10.0.0.1"],
  ["::FFFF:0a00:0001", "10.0.0.1"],
  ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
  ["fd00:0:0:0:0:0:0:0", "fd00::"],
  ["64:ff9b::192.0.2.1", "64:ff9b::c000:201"],
];

for (const [given, expected] of canonical) {
  test(`${given} is written ${expected}`, (t) => {
    t.is(canonicalIp(given), expected);
  });
}

test("any IPv6 address survives the kernel's form, and is written as the platform writes it", (t) => {
  fc.assert(
    fc.property(fc.ipV6(), fc.integer({ min: 0, max: 65_535 }), (ip, port) => {
      const decoded = decodeSocketAddress(encodeSocketAddress(ip, port));
      const platform = new SocketAddress({ address: ip, family: "ipv6", port }).address;
      t.deepEqual(decoded, { ip: canonicalIp(ip), port });
      // The platform writes IPv4-compatible addresses (::10.0.0.1) in the old form; compare what both agree to be text of groups.
      if (!platform.includes(".")) t.is(decoded?.ip, platform);
    }),
  );
});

test("any IPv4 address survives the kernel's form", (t) => {
  fc.assert(
    fc.property(fc.ipV4(), fc.integer({ min: 0, max: 65_535 }), (ip, port) => {
      t.deepEqual(decodeSocketAddress(encodeSocketAddress(ip, port)), { ip, port });
    }),
  );
});

test("any text is an address or LINUX_BAD_ADDRESS, any bytes an endpoint or nothing", (t) => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        canonicalIp(text);
      } catch (thrown) {
        t.is(errorCode(thrown), "LINUX_BAD_ADDRESS");
      }
    }),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => void decodeSocketAddress(Buffer.from(bytes))));
  t.pass();
});

test("a socket path must fit the kernel's 107 bytes", (t) => {
  t.notThrows(() => encodeUnixAddress(`/${"a".repeat(106)}`));
  for (const path of ["", `/${"a".repeat(107)}`, "/with\0zero"]) t.is(errorCode(t.throws(() => encodeUnixAddress(path))), "LINUX_BAD_ADDRESS");
});
