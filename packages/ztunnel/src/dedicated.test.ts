/** Dedicated mode as it is shipped: one process beside each application, in its network namespace, with a mesh and a CA from files. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { linuxPodNetwork, type PodNetwork } from "@fairway/linux";
import { Authority } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { eventually, readAll } from "./test-mesh.ts";
import { skippedWithoutNamespaces, type TestPod, twoPods } from "./test-pods.ts";

const main = fileURLToPath(new URL("./main.js", import.meta.url));
const never = new AbortController().signal;
const vip = "10.98.0.100";

const mesh = (a: string, b: string): string => `
workloads:
  - {name: a, namespace: default, serviceAccount: a, workloadName: a, workloadIps: ["${a}"], protocol: HBONE, services: {}}
  - name: b
    namespace: default
    serviceAccount: b
    workloadName: b
    workloadIps: ["${b}"]
    protocol: HBONE
    authorizationPolicies: [default/only-a]
    services: {default/echo.example: {80: 8000}}
services:
  - {name: echo, namespace: default, hostname: echo.example, vips: ["/${vip}"], ports: {80: 8000}}
policies:
  - name: only-a
    namespace: default
    scope: WorkloadSelector
    action: Allow
    rules: [[[{principals: [{Exact: cluster.local/ns/default/sa/a}], destinationPorts: [8000]}]]]
`;

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** The program in the namespace of its one workload; resolves when it takes connections. */
async function dedicated(t: ExecutionContext, pod: TestPod, name: string, files: string): Promise<() => string> {
  const env = {
    PATH: process.env["PATH"] ?? "",
    PROXY_MODE: "dedicated",
    PROXY_WORKLOAD_INFO: `default/${name}/${name}`,
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(files, "mesh.yaml"),
    LOCAL_CA_PATH: files,
    // A node agent's rules exempt what carries the mark; without rules of one's own, dedicated mode needs none.
    PACKET_MARK: "1337",
    ISTIO_META_DNS_CAPTURE: "false",
    ZTUNNEL_WORKER_THREADS: "1",
  };
  const child = spawn("ip", ["netns", "exec", pod.name, process.execPath, main], { env });
  let output = "";
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      output += String(chunk);
      if (output.includes("ready for connections")) resolve();
    });
  }
  const exited = once(child, "close");
  t.teardown(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const early = exited.then(() => {
    throw new Error(output);
  });
  // The end that every test brings about is nobody's failure.
  early.catch(() => {});
  await Promise.race([ready, early]);
  return () => output;
}

function network(t: ExecutionContext, pod: TestPod): PodNetwork {
  const inside = linuxPodNetwork(pod.open());
  t.teardown(async () => {
    await inside[Symbol.asyncDispose]();
    inside.namespace?.[Symbol.dispose]();
  });
  return inside;
}

async function ask(t: ExecutionContext, from: PodNetwork, host: string, port: number): Promise<string> {
  const { socket } = await from.dial({ host, port, mark: 0, timeoutMs: 5_000, signal: never });
  t.teardown(() => socket.destroy());
  socket.resume().end("hello");
  return (await readAll(socket)).toString();
}

test.serial("two machines of a mesh from a file prove who they are to each other, by address and by service, under its policies", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t);
  const files = directory(t);
  writeFileSync(join(files, "mesh.yaml"), mesh(a.ip, b.ip));
  const { caCert, caKey } = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock }).exportPem();
  writeFileSync(join(files, "ca-cert.pem"), caCert);
  writeFileSync(join(files, "ca-key.pem"), caKey);
  const logOfA = await dedicated(t, a, "a", files);
  const logOfB = await dedicated(t, b, "b", files);

  let seen: string | undefined;
  const serve = (socket: Socket): void => {
    seen = socket.remoteAddress;
    socket.resume().pipe(socket);
  };
  for (const port of [8_000, 8_001]) {
    await network(t, b).listen({ host: "0.0.0.0", port, mark: 0, reusePort: false, transparent: false, backlog: 16, onConnection: serve });
  }
  const client = network(t, a);
  t.is(await ask(t, client, b.ip, 8_000), "hello");
  t.is(seen, a.ip);
  t.is(await ask(t, client, vip, 80), "hello");
  await t.throwsAsync(ask(t, client, b.ip, 8_001), { code: "ECONNRESET" });
  await eventually(t, () => (logOfA().match(/access\tconnection complete/g) ?? []).length === 3);
  t.regex(logOfA(), /dst\.service="echo\.example".*direction="outbound"/);
  await eventually(t, () => /src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a".*direction="inbound"/.test(logOfB()));
  await eventually(t, () => /allow policies exist, but none allowed: default\/only-a/.test(logOfB()));
});

test.serial("a directory without a CA ends the program with a code and the name of the file", async (t) => {
  const child = spawn(process.execPath, [main], {
    env: {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: "default/a/a",
      XDS_ADDRESS: "",
      LOCAL_XDS: "{}",
      LOCAL_CA_PATH: directory(t),
      ISTIO_META_DNS_CAPTURE: "false",
    },
  });
  t.teardown(() => child.kill("SIGKILL"));
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
  });
  const [code] = await once(child, "close");
  t.is(code, 1);
  t.regex(output, /ZTUNNEL_LOCAL_CA.*ca-cert\.pem|ca-cert\.pem.*ZTUNNEL_LOCAL_CA/);
});
