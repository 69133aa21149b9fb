/** Connections through running pods when the facts for a decision do not come. */
import { MeshError } from "@fairway/runtime";
import test from "ava";
import { application, client, eventually, loopbackAddresses, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

test.serial("no answer about an address in time refuses the connection and says so: nothing leaves in plaintext for want of an answer", async (t) => {
  let reached = 0;
  const app = await application(t, at(2), () => void reached++);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  mesh.mesh.withheld = new MeshError("XDS_DEMAND_TIMEOUT", "the control plane did not say what is there");
  await t.throwsAsync(async () => readAll(await client(t, at(1), a.port("outbound") ?? 0)), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().length === 1);
  t.regex(mesh.accessLines()[0] ?? "", /warn\taccess\tconnection failed\t.*error=/);
  t.is(reached, 0);
});
