import { createServer } from "node:http";
import test, { type ExecutionContext } from "ava";
import { TestPeers } from "./test-peers.ts";
import { startProgram } from "./test-program.ts";
import { apiConfig, application, endpoint, eventually, loopbackAddresses, workload } from "./test-waypoint.ts";
import { spawnThread } from "./traffic-thread.ts";

const at = loopbackAddresses();

async function get(port: number, path: string): Promise<{ status: number; body: string }> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`);
  return { status: answer.status, body: await answer.text() };
}

async function untilReady(t: ExecutionContext, port: number): Promise<void> {
  for (let turn = 0; turn < 2_000; turn++) {
    const { status } = await get(port, "/healthz/ready").catch(() => ({ status: 0 }));
    if (status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.fail("it never became ready");
}

test.serial("ready means certificate, configuration and listener; then requests flow through every thread, and SIGTERM ends it", async (t) => {
  const http = createServer((request, response) => response.end(`hello ${request.url}`));
  t.teardown(() => http.closeAllConnections());
  const app = await application(t, at(2), (socket) => void http.emit("connection", socket));
  const program = await startProgram(t, { ip: at(1), mesh: { workloads: [workload("b", at(2))] }, spawn: spawnThread });
  const { ports } = program.config;
  for (let turn = 0; turn < 2_000; turn++) {
    const { body } = await get(ports.readiness, "/healthz/ready").catch(() => ({ body: "" }));
    if (body.includes("configuration") && !body.includes("certificate")) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.like(await get(ports.readiness, "/healthz/ready"), { status: 500, body: "not ready, pending: configuration, listener\n" });

  program.view.say(apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }));
  await untilReady(t, ports.readiness);
  const peers = new TestPeers(t, program.authority, at(1));
  await peers.workload("b", at(2), app);
  for (let round = 0; round < 8; round++) t.like(await peers.request("a", `${at(200)}:80`, `/${round}`), { status: 200, body: `hello /${round}` });

  const metrics = await get(ports.metrics, "/stats/prometheus");
  t.regex(metrics.body, /istio_requests_total\{reporter="waypoint",.*response_code="200".*\} 8\n/);
  t.regex(metrics.body, /istio_build\{component="waypoint",tag="test"\} 1\n/);
  const dump = JSON.parse((await get(ports.admin, "/config_dump")).body);
  t.like(dump, { gateway: "default/waypoint", synced: true });
  t.is(dump.targets[0].hostname, "api.default.svc.cluster.local");
  t.true(dump.threads.flat().some((cluster: { name: string }) => cluster.name === "api"));
  t.notRegex(JSON.stringify(dump), /PRIVATE KEY/);
  await eventually(t, () => program.lines.filter((line) => line.includes('"GET /')).length === 8);

  await program.stop();
  await t.throwsAsync(get(ports.readiness, "/healthz/ready"));
});

test.serial("a change of routes reaches requests of a tunnel that is already open, in every thread", async (t) => {
  const http = createServer((_, response) => response.end("b"));
  t.teardown(() => http.closeAllConnections());
  const app = await application(t, at(2), (socket) => void http.emit("connection", socket));
  const program = await startProgram(t, { ip: at(1), mesh: { workloads: [workload("b", at(2))] } });
  program.view.say(apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }));
  await untilReady(t, program.config.ports.readiness);
  const peers = new TestPeers(t, program.authority, at(1));
  await peers.workload("b", at(2), app);
  t.is((await peers.request("a", `${at(200)}:80`, "/")).status, 200);
  program.view.say(
    apiConfig({
      vip: at(200),
      endpoints: [endpoint("b", at(2), app.port)],
      port: { policies: [{ namespace: "default", name: "none", action: "deny", dryRun: false, rules: [{ kind: "any" }] }] },
    }),
  );
  let denied = 0;
  for (let turn = 0; turn < 100 && denied < 8; turn++) denied = (await peers.request("a", `${at(200)}:80`, "/")).status === 403 ? denied + 1 : 0;
  t.is(denied, 8);
});

test.serial("without a certificate it is not ready and asks on", async (t) => {
  let asked = 0;
  const program = await startProgram(t, {
    ip: at(1),
    mesh: {},
    ca: (own) => ({
      sign: () => {
        asked++;
        return Promise.reject(new Error("no CA"));
      },
      [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
    }),
  });
  program.view.say(apiConfig({ vip: at(200), endpoints: [] }));
  await eventually(t, () => asked > 0 && program.lines.some((line) => line.includes("there is no certificate yet")));
  t.like(await get(program.config.ports.readiness, "/healthz/ready"), { status: 500 });
  await program.stop();
});
