/** Header values of a CONNECT: exact text out, anything in. */

import { parseIp } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import {
  formatAuthority,
  formatBaggage,
  formatForwarded,
  isHeaderValue,
  makeTraceparent,
  parseAuthority,
  parseBaggage,
  parseForwarded,
  parseTraceparent,
} from "./connect-request.ts";

const full = {
  clusterName: "Kubernetes",
  namespace: "shop",
  workloadType: "deployment",
  workloadName: "cart-v1",
  serviceName: "cart",
  serviceVersion: "v1",
  region: "eu-1",
  zone: "eu-1a",
};

test("baggage is written in the order of the contract, without empty values", (t) => {
  t.is(
    formatBaggage(full),
    "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart-v1,service.name=cart,service.version=v1,cloud.region=eu-1,cloud.availability_zone=eu-1a",
  );
  t.is(formatBaggage({ namespace: "shop", workloadName: "" }), "k8s.namespace.name=shop");
  t.is(formatBaggage({}), undefined);
});

test("values that would break the baggage format are left out", (t) => {
  for (const bad of ["a,b", "a=b", "a b", "é", "a\r\nx: y", "\u0000"]) t.is(formatBaggage({ namespace: bad, region: "r" }), "cloud.region=r");
});

test("baggage is read back, from one header or several", (t) => {
  t.deepEqual(parseBaggage(formatBaggage(full)), full);
  t.deepEqual(parseBaggage(["k8s.namespace.name=a", "service.name=b,k8s.namespace.name=c"]), { namespace: "c", serviceName: "b" });
});

test("every workload type names the workload, and the last one wins", (t) => {
  for (const type of ["deployment", "cronjob", "pod", "job"]) t.deepEqual(parseBaggage(`k8s.${type}.name=w`), { workloadType: type, workloadName: "w" });
  t.is(parseBaggage("k8s.pod.name=a,k8s.job.name=b").workloadName, "b");
});

test("empty values are absent, unknown keys ignored, the second segment is the value", (t) => {
  t.deepEqual(parseBaggage("service.name=,x=y,cloud.region,k8s.namespace.name=a=b"), { namespace: "a" });
  t.deepEqual(parseBaggage(undefined), {});
  t.deepEqual(parseBaggage("service.name=caf\u00e9"), {});
  const hostile = parseBaggage("__proto__=x,constructor=y,toString=z");
  t.deepEqual(Object.keys(hostile), []);
  t.is(typeof hostile.toString, "function");
});

test("forwarded is written for both families, with the host when a service was asked for", (t) => {
  t.is(formatForwarded({ ip: parseIp("10.0.0.1"), port: 80 }), 'for="10.0.0.1:80"');
  t.is(formatForwarded({ ip: parseIp("::1"), port: 80 }), 'for="[::1]:80"');
  t.is(formatForwarded({ ip: parseIp("::1"), port: 80 }, "cart.shop.svc.cluster.local"), 'for="[::1]:80";host=cart.shop.svc.cluster.local');
  t.is(formatForwarded({ ip: parseIp("::1"), port: 80 }, "a;b"), 'for="[::1]:80"');
});

test("forwarded is read quoted or not, in any order, with spaces", (t) => {
  const client = { ip: parseIp("10.0.0.1"), port: 80 };
  t.deepEqual(parseForwarded('for="10.0.0.1:80";host=a.b'), { client, host: "a.b" });
  t.deepEqual(parseForwarded(' HOST="a.b" ; For = 10.0.0.1:80 '.trim()), { client, host: "a.b" });
  t.deepEqual(parseForwarded("host=a;host=b, host=c"), { client: undefined, host: "a" });
  for (const empty of [undefined, "", 'host=""', "host=", "for=nobody", "host=\u00e9", ";;;", "="]) t.is(parseForwarded(empty).host, undefined);
});

test("an authority is an address or a name, and the port is mandatory", (t) => {
  t.deepEqual(parseAuthority("10.0.0.1:80"), { kind: "address", address: { ip: parseIp("10.0.0.1"), port: 80 } });
  t.deepEqual(parseAuthority("[fd00::1]:15008"), { kind: "address", address: { ip: parseIp("fd00::1"), port: 15008 } });
  t.deepEqual(parseAuthority("cart.shop.svc.cluster.local:8080"), { kind: "hostname", hostname: "cart.shop.svc.cluster.local", port: 8080 });
  for (const bad of [
    "",
    ":80",
    "a",
    "a:",
    "a:0",
    "a:65536",
    "a:-1",
    "a:8o",
    "1.2.3.4",
    "1.2.3.4.5:80",
    "::1:80",
    "[::1]",
    "[1.2.3.4]:80",
    "a/b:80",
    "u@a:80",
    "a b:80",
    "é:80",
    `${"a".repeat(300)}:80`,
  ]) {
    t.is(parseAuthority(bad), undefined, bad);
  }
});

test("a traceparent is made of the bytes given and read leniently", (t) => {
  const made = makeTraceparent((size) => new Uint8Array(size).fill(0xab));
  t.is(made, `00-${"ab".repeat(16)}-${"ab".repeat(8)}-00`);
  t.deepEqual(parseTraceparent(made), { traceId: "ab".repeat(16), spanId: "ab".repeat(8), sampled: false });
  t.deepEqual(parseTraceparent(` 01-${"AB".repeat(16)}-${"cd".repeat(8)}-01-more `), { traceId: "ab".repeat(16), spanId: "cd".repeat(8), sampled: true });
  for (const bad of [
    undefined,
    "",
    "00",
    `ff-${"ab".repeat(16)}-${"ab".repeat(8)}-00`,
    `00-${"0".repeat(32)}-${"ab".repeat(8)}-00`,
    `00-${"ab".repeat(16)}-${"ab".repeat(8)}-0`,
  ]) {
    t.is(parseTraceparent(bad), undefined, bad);
  }
});

test("no text makes a parser throw, and what was parsed is written back the same", (t) => {
  const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.stringMatching(/^[a-z0-9=,;":.[\] -]*$/), fc.constantFrom("__proto__", "constructor=x"));
  fc.assert(
    fc.property(text, (value) => {
      parseBaggage(value);
      parseBaggage([value, value]);
      parseForwarded(value);
      parseTraceparent(value);
      const authority = parseAuthority(value);
      if (authority !== undefined) t.deepEqual(parseAuthority(formatAuthority(authority)), authority);
      const baggage = formatBaggage({ namespace: value, workloadName: value, workloadType: value, zone: value });
      if (baggage !== undefined) {
        t.true(isHeaderValue(baggage));
        t.is(parseBaggage(baggage).namespace, value);
      }
    }),
    { numRuns: 2_000 },
  );
});
