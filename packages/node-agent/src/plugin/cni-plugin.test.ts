import { spawn } from "node:child_process";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { build } from "esbuild";
import type { AddRequest, AddResponse } from "../plugin-protocol.ts";
import { testDirectory } from "../test-namespaces.ts";
import { addressesIn, parseArguments, runPlugin } from "./cni-plugin.ts";

const result = { cniVersion: "1.0.0", interfaces: [{ name: "eth0" }], ips: [{ address: "10.0.0.2/24" }, { address: "fd00::2/64" }] };
const config = { cniVersion: "1.0.0", name: "pods", type: "fairway-cni", agentSocket: "/agent.sock", agentNamespace: "fairway-system", prevResult: result };
const env = { CNI_COMMAND: "ADD", CNI_NETNS: "/run/netns/x", CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=uid-1" };

async function runWith(overrides: {
  env?: Record<string, string | undefined>;
  config?: unknown;
  stdin?: string;
  answer?: AddResponse | Error;
}): Promise<{ exitCode: number; output: Record<string, unknown> | undefined; asked: [string, AddRequest][] }> {
  const asked: [string, AddRequest][] = [];
  const { exitCode, stdout } = await runPlugin({
    env: { ...env, ...overrides.env },
    stdin: overrides.stdin ?? JSON.stringify({ ...config, ...(overrides.config as object) }),
    pid: 42,
    ask: async (socket, request) => {
      asked.push([socket, request]);
      const answer = overrides.answer ?? { result: "enrolled" };
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  return { exitCode, output: stdout === "" ? undefined : (JSON.parse(stdout) as Record<string, unknown>), asked };
}

test("ADD asks the agent and prints the result it was given", async (t) => {
  const { exitCode, output, asked } = await runWith({});
  t.is(exitCode, 0);
  t.deepEqual(output, result);
  t.deepEqual(asked, [
    ["/agent.sock", { netns: "/run/netns/x", podName: "web-1", podNamespace: "shop", podUid: "uid-1", ips: ["10.0.0.2", "fd00::2"], pid: 42 }],
  ]);
});

test("VERSION says what is supported; DEL and CHECK do nothing and say nothing", async (t) => {
  t.like((await runWith({ env: { CNI_COMMAND: "VERSION" } })).output, { supportedVersions: ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
  for (const CNI_COMMAND of ["DEL", "CHECK", "GC", "STATUS"]) {
    const { exitCode, output, asked } = await runWith({ env: { CNI_COMMAND }, stdin: "" });
    t.deepEqual([exitCode, output, asked], [0, undefined, []]);
  }
});

test("a pod that the agent refuses does not start, and the reason is passed on", async (t) => {
  const { exitCode, output } = await runWith({ answer: { error: "ztunnel is absent", code: "NODE_AGENT_ZTUNNEL_ABSENT" } });
  t.is(exitCode, 1);
  t.is(output?.["code"], 11);
  t.regex(String(output?.["msg"]), /shop\/web-1 could not be enrolled: ztunnel is absent/);
});

test("without an agent no pod starts, and the error says what to check", async (t) => {
  const { exitCode, output } = await runWith({ answer: new Error("connect ENOENT") });
  t.is(exitCode, 1);
  t.regex(String(output?.["details"]), /check that the node agent's pod runs on this node/);
});

test("excluded namespaces, the agent itself and what is no pod start without asking", async (t) => {
  for (const overrides of [
    { config: { excludeNamespaces: ["shop"] } },
    { env: { CNI_ARGS: "K8S_POD_NAMESPACE=fairway-system;K8S_POD_NAME=fairway-node-agent-x1" } },
    { env: { CNI_ARGS: "" } },
    { env: { CNI_ARGS: undefined } },
  ]) {
    const { exitCode, output, asked } = await runWith(overrides);
    t.deepEqual([exitCode, output, asked.length], [0, result, 0]);
  }
  const { asked } = await runWith({ env: { CNI_ARGS: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=fairway-node-agent-x1" } });
  t.is(asked.length, 1, "the agent's name in another namespace opens nothing");
});

test("a plugin that is not chained, or is called wrongly, fails with the spec's codes", async (t) => {
  t.is((await runWith({ config: { prevResult: undefined } })).output?.["code"], 7);
  t.is((await runWith({ stdin: "nonsense" })).output?.["code"], 6);
  t.is((await runWith({ config: { cniVersion: "9.9.9" } })).output?.["code"], 1);
  t.is((await runWith({ env: { CNI_COMMAND: "EXPLODE" } })).output?.["code"], 4);
  t.is((await runWith({ env: { CNI_NETNS: "" } })).output?.["code"], 4);
});

test("arguments and addresses are read as far as they make sense", (t) => {
  t.deepEqual(
    [...parseArguments("A=1;;B;=2;C=3=4")],
    [
      ["A", "1"],
      ["C", "3=4"],
    ],
  );
  t.deepEqual(addressesIn({ ips: [{ address: "10.0.0.1/8" }, {}, null, { address: 5 }] }), ["10.0.0.1"]);
  t.deepEqual(addressesIn({ ips: "10.0.0.1" }), []);
});

test.serial("the bundled executable is one small file and speaks to the agent's socket", async (t) => {
  const directory = await testDirectory(t);
  const file = join(directory, "fairway-cni");
  const entry = new URL("./main.js", import.meta.url).pathname;
  await build({ entryPoints: [entry], outfile: file, bundle: true, platform: "node", target: "node24", format: "cjs", minify: true, metafile: true }).then(
    ({ metafile }) => {
      const bytes = Object.values(metafile.outputs)[0]?.bytes ?? 0;
      t.true(bytes > 0 && bytes < 16_384, `${bytes} bytes`);
    },
  );
  const socket = join(directory, "agent.sock");
  const requests: string[] = [];
  await serve(t, socket, (body) => {
    requests.push(body);
    return body.includes("bad-pod") ? { error: "no", code: "X" } : { result: "left-out" };
  });
  const stdin = JSON.stringify({ ...config, agentSocket: socket });
  const good = await execute(file, env, stdin);
  t.is(good.code, 0);
  t.deepEqual(JSON.parse(good.stdout), result);
  t.like(JSON.parse(requests[0] ?? ""), { podName: "web-1", ips: ["10.0.0.2", "fd00::2"] });
  const bad = await execute(file, { ...env, CNI_ARGS: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=bad-pod" }, stdin);
  t.is(bad.code, 1);
  t.is((JSON.parse(bad.stdout) as { code: number }).code, 11);
  const absent = await execute(file, env, JSON.stringify({ ...config, agentSocket: join(directory, "none.sock") }));
  t.is(absent.code, 1);
  t.regex(absent.stdout, /did not answer/);
});

function execute(file: string, environment: Record<string, string>, stdin: string): Promise<{ code: number | null; stdout: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file], { env: environment, stdio: ["pipe", "pipe", "ignore"] });
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout }));
    child.stdin.end(stdin);
  });
}

async function serve(t: ExecutionContext, socket: string, answer: (body: string) => AddResponse): Promise<Server> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on("end", () => response.end(JSON.stringify(answer(body))));
  });
  await new Promise<void>((resolve) => server.listen(socket, () => resolve()));
  t.teardown(() => void server.close());
  return server;
}
