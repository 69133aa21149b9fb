import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { applyChange, emptySnapshot, type Workload } from "@fairway/model";
import test from "ava";
import { decodeAddress } from "./address-codec.ts";
import { int, len } from "./sample-resources.ts";

const count = 10_000;
const budgetBytes = 900;

test("a workload of a large mesh, received and indexed, costs less than 900 bytes", (t) => {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect !== "function") throw new Error("no garbage collector to call");
  const used = () => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  receive(0, 1000);
  const before = used();
  const snapshot = applyChange(emptySnapshot, { workloads: receive(0, count) });
  const each = (used() - before) / count;
  t.is([...snapshot.workloads()].length, count);
  t.log(`${Math.round(each)} bytes each`);
  t.true(each > 200 && each < budgetBytes, `${each} bytes`);
});

/** As they come from the wire: five pods to a deployment, forty pods to a node. */
function receive(from: number, to: number): Workload[] {
  return Array.from({ length: to - from }, (_, offset) => {
    const index = from + offset;
    const deployment = Math.floor(index / 5);
    const app = `service-${deployment}`;
    const namespace = `namespace-${deployment % 50}`;
    const name = `${app}-7d9f8b6c5d-${index.toString(36).padStart(5, "0")}`;
    const port = (service: number, target: number) => len(1, [...int(1, service), ...int(2, target)]);
    const services = [...len(1, `${namespace}/${app}.${namespace}.svc.cluster.local`), ...len(2, [...port(80, 8080), ...port(443, 8443)])];
    const workload = [
      ...len(1, name),
      ...len(2, namespace),
      ...len(3, [10, index >> 16, (index >> 8) & 0xff, index & 0xff]),
      ...int(5, 1),
      ...len(7, app),
      ...len(9, `node-${Math.floor(index / 40)}.internal`),
      ...len(10, app),
      ...len(11, "latest"),
      ...len(13, app),
      ...len(18, "Kubernetes"),
      ...len(20, `Kubernetes//Pod/${namespace}/${name}`),
      ...len(22, services),
      ...len(24, [...len(1, "region"), ...len(2, `zone-${index % 3}`)]),
    ];
    const address = decodeAddress(Uint8Array.from(len(1, workload)));
    if (address.kind !== "workload") throw new Error("not a workload");
    return address.workload;
  });
}
