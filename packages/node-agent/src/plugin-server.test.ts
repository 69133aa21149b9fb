import { mkdirSync, symlinkSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import type { KubeClient, Pod } from "@fairway/kube";
import { createRegistry, MeshError, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { createAgentMetrics } from "./metrics.ts";
import type { AddRequest } from "./plugin-protocol.ts";
import { PluginServer } from "./plugin-server.ts";
import type { NewPod } from "./pods.ts";
import { testDirectory } from "./test-namespaces.ts";

const wanted: AddRequest = { netns: "/proc/self/ns/net", podName: "web", podNamespace: "shop", podUid: "uid-1", ips: ["10.0.0.2", "nonsense"], pid: 42 };

interface Bench {
  readonly socket: string;
  readonly hostProc: string;
  readonly seen: { pod: Pod; ips: readonly string[]; namespace: string }[];
  outcome: "enrolled" | "left-out" | MeshError;
}

async function bench(t: ExecutionContext): Promise<Bench> {
  const directory = await testDirectory(t);
  const socket = join(directory, "a.sock");
  const hostProc = join(directory, "proc");
  const b: Bench = { socket, hostProc, seen: [], outcome: "enrolled" };
  const get = async (type: { kind: string }, name: string): Promise<unknown> => {
    if (name === "absent") throw new MeshError("KUBE_NOT_FOUND", "there is no such pod");
    return type.kind === "Pod" ? { metadata: { name, namespace: "shop", uid: "uid-1" } } : { metadata: { name } };
  };
  const metrics = createAgentMetrics(createRegistry(), { enrolled: () => 0, pending: () => 0, ztunnels: () => 0, resyncAgeSeconds: () => 0 });
  const server = await PluginServer.listen({
    path: socket,
    client: { get } as unknown as Pick<KubeClient, "get">,
    pods: {
      enrolNew: async ({ pod, ips, namespace, open }: NewPod) => {
        using _opened = open();
        b.seen.push({ pod, ips, namespace: namespace.metadata.name });
        if (b.outcome instanceof MeshError) throw b.outcome;
        return b.outcome;
      },
    },
    hostProc,
    metrics,
    log: silentLogger,
  });
  t.teardown(() => server[Symbol.asyncDispose]());
  return b;
}

function post(socketPath: string, body: string, { path = "/cmdadd", method = "POST" } = {}): Promise<{ status: number; answer: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, path, method }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, answer: JSON.parse(text) as Record<string, unknown> }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

test("a pod is admitted with its object, its namespace's object and its real addresses", async (t) => {
  const b = await bench(t);
  t.deepEqual(await post(b.socket, JSON.stringify(wanted)), { status: 200, answer: { result: "enrolled" } });
  t.like(b.seen[0], { ips: ["10.0.0.2"], namespace: "shop" });
  b.outcome = "left-out";
  t.deepEqual(await post(b.socket, JSON.stringify({ ...wanted, podUid: "" })), { status: 200, answer: { result: "left-out" } });
});

test("a pod that cannot be enrolled, is gone, or is another one by now is refused with the reason", async (t) => {
  const b = await bench(t);
  b.outcome = new MeshError("NODE_AGENT_ZTUNNEL_ABSENT", "no ztunnel");
  t.deepEqual(await post(b.socket, JSON.stringify(wanted)), { status: 500, answer: { error: "no ztunnel", code: "NODE_AGENT_ZTUNNEL_ABSENT" } });
  t.like((await post(b.socket, JSON.stringify({ ...wanted, podName: "absent" }))).answer, { code: "KUBE_NOT_FOUND" });
  t.like((await post(b.socket, JSON.stringify({ ...wanted, podUid: "uid-2" }))).answer, { code: "NODE_AGENT_POD_REPLACED" });
  t.like((await post(b.socket, JSON.stringify({ ...wanted, netns: "/nowhere" }))).answer, { code: "LINUX_NAMESPACE_NOT_FOUND" });
});

test("a namespace that is a path only for the plugin is found through the plugin's own process", async (t) => {
  const b = await bench(t);
  mkdirSync(join(b.hostProc, "42/root/run/netns"), { recursive: true });
  symlinkSync("/proc/self/ns/net", join(b.hostProc, "42/root/run/netns/only-there"));
  t.is((await post(b.socket, JSON.stringify({ ...wanted, netns: "/run/netns/only-there" }))).status, 200);
});

test("what is no request of ours is refused, and the server goes on", async (t) => {
  const b = await bench(t);
  for (const body of [
    "",
    "{",
    "[]",
    "null",
    JSON.stringify({ ...wanted, netns: "relative" }),
    JSON.stringify({ ...wanted, pid: "1" }),
    JSON.stringify({ ...wanted, ips: [1] }),
  ]) {
    t.is((await post(b.socket, body)).status, 400, body);
  }
  t.is((await post(b.socket, "", { path: "/other" })).status, 400);
  t.is((await post(b.socket, "", { method: "GET" })).status, 400);
  await t.throwsAsync(
    post(b.socket, "x".repeat(10_000_000)).then(({ status }) => {
      if (status === 400) throw new Error("refused");
    }),
  );
  t.is((await post(b.socket, JSON.stringify(wanted))).status, 200);
  t.is(b.seen.length, 1);
});
