import test from "ava";
import { ApiError } from "./api-error.ts";
import { decodeProtobuf } from "./protobuf.ts";
import { messageTexts } from "./protobuf-messages.ts";

const bytes = (number: number, content: Buffer | string): Buffer => {
  const value = Buffer.from(content);
  return Buffer.concat([Buffer.from([(number << 3) | 2, value.length]), value]);
};
const integer = (number: number, value: number): Buffer => Buffer.from([number << 3, value]);
const envelope = (apiVersion: string, kind: string, raw: Buffer): Buffer =>
  Buffer.concat([Buffer.from("k8s\0"), bytes(1, Buffer.concat([bytes(1, apiVersion), bytes(2, kind)])), bytes(2, raw)]);

test("a typed client's message becomes the JSON its YAML would be", (t) => {
  const metadata = bytes(1, Buffer.concat([bytes(1, "d"), bytes(2, ""), bytes(11, Buffer.concat([bytes(1, "app"), bytes(2, "web")]))]));
  const port = Buffer.concat([bytes(1, ""), integer(2, 0), integer(3, 80), bytes(4, "TCP")]);
  const container = Buffer.concat([bytes(1, "c"), bytes(2, "image"), bytes(6, port)]);
  const template = bytes(3, bytes(2, bytes(2, container)));
  const spec = bytes(2, Buffer.concat([integer(1, 0), template]));
  t.deepEqual(decodeProtobuf(envelope("apps/v1", "Deployment", Buffer.concat([metadata, spec]))), {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "d", labels: { app: "web" } },
    spec: { replicas: 0, template: { spec: { containers: [{ name: "c", image: "image", ports: [{ containerPort: 80, protocol: "TCP" }] }] } } },
  });
});

test("what the table does not hold is refused, never dropped", (t) => {
  const unknownField = t.throws(() => decodeProtobuf(envelope("v1", "ConfigMap", bytes(15, "x"))), { instanceOf: ApiError });
  t.is(unknownField?.httpCode, 415);
  const unknownKind = t.throws(() => decodeProtobuf(envelope("v1", "Mystery", Buffer.alloc(0))), { instanceOf: ApiError });
  t.is(unknownKind?.httpCode, 415);
});

test("bytes that are no message are a 400", (t) => {
  const whole = envelope("v1", "ConfigMap", Buffer.concat([bytes(1, bytes(1, "a")), bytes(2, Buffer.concat([bytes(1, "k"), bytes(2, "v")]))]));
  for (const broken of [
    Buffer.from("json"),
    Buffer.concat([Buffer.from("k8s\0"), Buffer.from([0xff])]),
    whole.subarray(0, whole.length - 1),
    Buffer.concat([Buffer.from("k8s\0"), Buffer.from([0x09, 1])]),
  ]) {
    const error = t.throws(() => decodeProtobuf(broken), { instanceOf: ApiError });
    t.true(error !== undefined && (error.httpCode === 400 || error.httpCode === 415));
  }
  // Every single-byte corruption either decodes or is refused as a client's mistake.
  for (let index = 0; index < whole.length; index += 1) {
    for (const value of [0x00, 0x7f, 0x80, 0xff]) {
      const corrupt = Buffer.from(whole);
      corrupt[index] = value;
      try {
        decodeProtobuf(corrupt);
      } catch (thrown) {
        t.true(thrown instanceof ApiError);
      }
    }
  }
});

test("every message the table refers to is in it", (t) => {
  const scalars = new Set(["s", "b", "i", "y", "m", "M", "R", "T", "U", "Q", "I", "-"]);
  for (const [message, text] of Object.entries(messageTexts)) {
    for (const field of text.split(" ")) {
      const type = (field.split(":")[2] ?? "").replace(/[?*]/g, "");
      t.true(scalars.has(type) || type in messageTexts, `${message} ${field}`);
    }
  }
});
