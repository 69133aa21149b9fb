import { type SpiffeId, workloadIdentity } from "@fairway/model";
import test from "ava";
import { prefetchCertificates } from "./prefetch.ts";
import { MemoryMesh, workload } from "./test-mesh.ts";

/** What was asked for and dropped, by service account, in order. */
function follow(mesh: MemoryMesh, pinned: readonly SpiffeId[] = []): { told: string[]; following: Disposable } {
  const told: string[] = [];
  const account = (id: SpiffeId): string => id.split("/").at(-1) ?? "";
  const certificates = {
    prefetch: (id: SpiffeId) => void told.push(`+${account(id)}`),
    forget: (id: SpiffeId) => void told.push(`-${account(id)}`),
    fetch: () => Promise.reject(new Error("nobody asks")),
  };
  return { told, following: prefetchCertificates({ mesh, certificates: certificates as never, node: "node", pinned }) };
}

test("identities of this node's tunnelled workloads are fetched before anybody asks, those of other nodes are not", (t) => {
  const mesh = new MemoryMesh({
    workloads: [
      workload("a", "10.0.0.1"),
      workload("native", "10.0.0.2", { tunnelProtocol: "none", nativeTunnel: true }),
      workload("plain", "10.0.0.3", { tunnelProtocol: "none" }),
      workload("far", "10.0.0.4", { node: "other" }),
    ],
  });
  const { told, following } = follow(mesh);
  t.deepEqual(told.toSorted(), ["+a", "+native"]);
  mesh.apply({ workloads: [workload("b", "10.0.0.5")] });
  t.is(told.at(-1), "+b");
  following[Symbol.dispose]();
  mesh.apply({ workloads: [workload("c", "10.0.0.6")] });
  t.is(told.length, 3);
});

test("an identity is dropped with its last workload on the node, one's own never", (t) => {
  const [one, two] = [workload("one", "10.0.0.1", { serviceAccount: "web" }), workload("two", "10.0.0.2", { serviceAccount: "web" })];
  const own = workload("self", "10.0.0.3");
  const mesh = new MemoryMesh({ workloads: [one, two, own] });
  const { told } = follow(mesh, [workloadIdentity(own)]);
  mesh.apply({ removedWorkloads: [one.uid, own.uid] });
  t.deepEqual(told.toSorted(), ["+self", "+web"]);
  mesh.apply({ removedWorkloads: [two.uid] });
  t.is(told.at(-1), "-web");
});
