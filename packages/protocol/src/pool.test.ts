import test from "ava";
import { decodeAddress } from "./address-codec.ts";
import { Pool } from "./pool.ts";
import { int, len } from "./sample-resources.ts";

test("equal keys share one value", (t) => {
  const pool = new Pool<object>(10);
  t.is(
    pool.share("a", () => ({})),
    pool.share("a", () => ({})),
  );
  t.not(
    pool.share("a", () => ({})),
    pool.share("b", () => ({})),
  );
});

test("a pool never holds more than its limit, and serves whoever comes after", (t) => {
  const pool = new Pool<string>(10);
  for (let index = 0; index < 95; index++) {
    t.is(
      pool.share(`key-${index}`, (key) => key),
      `key-${index}`,
    );
    t.true(pool.size <= 10);
  }
});

test("workloads with equal services share their map, others do not", (t) => {
  const decode = (uid: string, service: string) => {
    const address = decodeAddress(Uint8Array.from(len(1, [...len(20, uid), ...len(22, [...len(1, service), ...len(2, [])])])));
    return address.kind === "workload" ? address.workload.services : undefined;
  };
  t.is(decode("a", "ns/web"), decode("b", "ns/web"));
  t.deepEqual([...(decode("c", "ns/other")?.keys() ?? [])], ["ns/other"] as never);
});

test("no name of a service passes for another service with its ports", (t) => {
  const decode = (service: string, ports: readonly number[]) => {
    const address = decodeAddress(Uint8Array.from(len(1, [...len(20, "uid"), ...len(22, [...len(1, service), ...len(2, ports)])])));
    return address.kind === "workload" ? [...address.workload.services] : [];
  };
  t.deepEqual(decode("ns/a", len(1, [...int(1, 80), ...int(2, 8080)]))[0]?.[1], [{ servicePort: 80, targetPort: 8080, appProtocol: "unknown" }]);
  for (const name of ["ns/a 80 8080 unknown", "ns/a 1 80 8080 unknown", "ns/a:80:8080", 'ns/a",[{"servicePort":80']) {
    t.deepEqual(decode(name, []), [[name, []]] as never);
  }
});
