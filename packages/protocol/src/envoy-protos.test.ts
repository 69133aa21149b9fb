import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import test from "ava";

const theirs = join(dirname(createRequire(import.meta.url).resolve("@grpc/grpc-js-xds/package.json")), "deps");
const ours = join(import.meta.dirname, "..", "proto");

const files: readonly [string, string, readonly string[]][] = [
  [
    "envoy/service/discovery/v3/discovery.proto",
    "envoy-api",
    ["DiscoveryRequest", "DiscoveryResponse", "DeltaDiscoveryRequest", "DeltaDiscoveryResponse", "Resource", "CacheControl"],
  ],
  ["envoy/config/core/v3/base.proto", "envoy-api", ["Locality", "Node", "ControlPlane"]],
  ["google/rpc/status.proto", "googleapis", ["Status"]],
];

for (const [file, source, messages] of files) {
  test(`every field that we define in ${file} has the number and the type of the original`, (t) => {
    const original = fieldsOf(readFileSync(join(theirs, source, file), "utf8"));
    const own = fieldsOf(readFileSync(join(ours, file), "utf8"));
    t.deepEqual([...own.keys()].sort(), [...messages].sort());
    for (const [message, fields] of own) {
      t.true(fields.size > 0, message);
      for (const [field, definition] of fields)
        t.is<string | undefined, string | undefined>(definition, original.get(message)?.get(field), `${message}.${field}`);
    }
  });
}

/** Message name to field name to `type = number`; package prefixes are left out. */
function fieldsOf(proto: string): Map<string, Map<string, string>> {
  const messages = new Map<string, Map<string, string>>();
  const open: (string | undefined)[] = [];
  const code = proto.replaceAll(/\/\/.*$/gm, "").replaceAll(/\[[^\]]*\]/g, "");
  for (const [, message, brace, label = "", type = "", field = "", number] of code.matchAll(
    /\bmessage\s+(\w+)\s*\{|([{}])|(repeated\s+|optional\s+)?(map<[^>]+>|[\w.]+)\s+(\w+)\s*=\s*(\d+)\s*;/g,
  )) {
    if (message !== undefined) {
      open.push(message);
      messages.set(message, new Map());
    } else if (brace === "{") open.push(open.at(-1));
    else if (brace === "}") open.pop();
    else messages.get(open.at(-1) ?? "")?.set(field, `${label.trim()} ${type.split(".").at(-1)} = ${number}`);
  }
  return messages;
}
