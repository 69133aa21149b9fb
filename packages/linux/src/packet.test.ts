import test from "ava";
import fc from "fast-check";
import { parseFrame } from "./packet.ts";

const ethernet = (type: string): string => `020000000001020000000002${type}`;
const tcp = `1f901f90${"00000001"}${"00000000"}5018ffff00000000`;
const ipv4 = (length: number, protocol: string, fragment = "0000"): string =>
  `4500${length.toString(16).padStart(4, "0")}0000${fragment}40${protocol}00000a0000010a000002`;
const frame = (...parts: readonly string[]): Buffer => Buffer.from(parts.join(""), "hex");
const hello = Buffer.from("hello").toString("hex");

test("a TCP segment over IPv4 is read without the frame's padding", (t) => {
  const packet = parseFrame(frame(ethernet("0800"), ipv4(45, "06"), tcp, hello, "000000"));
  t.deepEqual(packet?.source, { ip: "10.0.0.1", port: 8080 });
  t.deepEqual(packet?.destination, { ip: "10.0.0.2", port: 8080 });
  t.is(Buffer.from(packet?.payload ?? []).toString(), "hello");
  t.deepEqual(packet?.tcpFlags, { fin: false, syn: false, rst: false, psh: true, ack: true });
});

test("a segment that the kernel has not cut yet is read to the end of the frame", (t) => {
  const packet = parseFrame(frame(ethernet("0800"), ipv4(0, "06"), tcp, hello));
  t.is(Buffer.from(packet?.payload ?? []).toString(), "hello");
});

test("a VLAN tag and IPv6 extension headers are passed over", (t) => {
  const source = `fd00${"00".repeat(13)}01`;
  const destination = `fd00${"00".repeat(13)}02`;
  const packet = parseFrame(
    frame(ethernet("8100"), "000186dd", "60000000", "0015", "00", "40", source, destination, "1100000000000000", "00350035000d0000", hello),
  );
  t.is(packet?.protocol, "udp");
  t.deepEqual(packet?.source, { ip: "fd00::1", port: 53 });
  t.is(Buffer.from(packet?.payload ?? []).toString(), "hello");
});

test("later fragments, other protocols and cut headers are nothing", (t) => {
  t.is(parseFrame(frame(ethernet("0800"), ipv4(45, "06", "0001"), tcp, hello)), undefined);
  t.is(parseFrame(frame(ethernet("0800"), ipv4(28, "01"), "0000000000000000")), undefined);
  t.is(parseFrame(frame(ethernet("0806"), "00".repeat(28))), undefined);
  t.is(parseFrame(frame(ethernet("0800"), ipv4(45, "06"), tcp.slice(0, 30))), undefined);
});

test("no bytes make the parser fail", (t) => {
  const types = fc.constantFrom("0800", "86dd", "8100", "0806").map((type) => Buffer.from(ethernet(type), "hex"));
  fc.assert(
    fc.property(types, fc.uint8Array({ maxLength: 120 }), (head, rest) => void parseFrame(Buffer.concat([head, rest]))),
    { numRuns: 2_000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 7, maxLength: 100 }), (rest) => {
      // The right version in front, so that the deeper headers are reached.
      parseFrame(Buffer.concat([Buffer.from(`${ethernet("86dd")}60`, "hex"), rest]));
      parseFrame(Buffer.concat([Buffer.from(`${ethernet("0800")}45`, "hex"), rest]));
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});
