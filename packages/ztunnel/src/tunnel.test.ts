import test from "ava";
import { application, client, loopbackAddresses, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

test.serial("bytes pass from a captured client through a tunnel to the application and back", async (t) => {
  const echo = await application(t, at(2), (socket) => socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: echo.port }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  setTimeout(() => console.log(mesh.lines.join("")), 3000);
  socket.end("hello");
  t.is((await readAll(socket)).toString(), "hello");
  t.log(mesh.lines.join(""));
});
