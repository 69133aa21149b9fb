import test from "ava";
import fc from "fast-check";
import { readClusterName, readListenerName } from "./proxyless-names.ts";

const where = { namespace: "client", clusterDomain: "cluster.local" };
const api = { service: "shop/api", port: 8080 };

for (const [name, expected] of [
  ["api.shop.svc.cluster.local:8080", api],
  ["api.shop.svc:8080", api],
  ["api.shop:8080", api],
  ["api:8080", { service: "client/api", port: 8080 }],
  ["api.shop.svc.cluster.local", undefined],
  ["api.shop.svc.example.org:8080", undefined],
  ["api.shop.more:8080", undefined],
  ["api.svc:8080", undefined],
  [".shop:8080", undefined],
  ["api.:8080", undefined],
  [":8080", undefined],
  ["api:0", undefined],
  ["api:080", undefined],
  ["api:65536", undefined],
  ["api:http", undefined],
  ["", undefined],
  [`${"a".repeat(600)}:80`, undefined],
] as const) {
  test(`a listener by the name ${JSON.stringify(name.slice(0, 40))}`, (t) => {
    t.deepEqual(readListenerName(name, where), expected);
  });
}

for (const [name, expected] of [
  ["outbound|8080||api.shop.svc.cluster.local", api],
  ["outbound|8080|v1|api.shop.svc.cluster.local", undefined],
  ["inbound-vip|8080|http|api.shop.svc.cluster.local", undefined],
  ["outbound|8080||api.shop", undefined],
  ["outbound|8080||api.svc.cluster.local", undefined],
  ["outbound|8080||api.shop.svc.cluster.local|", undefined],
  ["grpc_reject", undefined],
  ["", undefined],
] as const) {
  test(`a cluster by the name ${JSON.stringify(name)}`, (t) => {
    t.deepEqual(readClusterName(name, "cluster.local"), expected);
  });
}

test("whatever a client asks for is a port of a service or nothing", (t) => {
  fc.assert(
    fc.property(fc.string(), (name) => {
      for (const found of [readListenerName(name, where), readClusterName(name, "cluster.local")]) {
        if (found === undefined) continue;
        t.regex(found.service, /^[^/]+\/[^/.]+$|^[^.]+\/[^.]+$/s);
        t.true(found.port > 0 && found.port < 65_536);
      }
    }),
  );
  t.pass();
});
