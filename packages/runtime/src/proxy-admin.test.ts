/** What an administrator of a proxy asks, and hears. */
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import test, { type ExecutionContext } from "ava";
import { MeshError } from "./error.ts";
import { LogFilter } from "./log.ts";
import { createRegistry } from "./metrics.ts";
import type { ProfileRequest } from "./profile.ts";
import { serveProxyAdmin } from "./proxy-admin.ts";
import { Readiness } from "./readiness.ts";

/** Below what the kernel gives away, where a port that was found free may be anybody's a moment later; apart from those of other test processes. */
const portsEach = 60;
let nextPort = 17_000 + (process.pid % 50) * portsEach;
const lastPort = nextPort + portsEach;

/** On a port that is free once it is closed. */
async function occupied(): Promise<{ server: Server; port: number }> {
  while (nextPort < lastPort) {
    const port = nextPort++;
    const server = createServer().listen(port, "0.0.0.0");
    const listens = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (listens) return { server, port };
  }
  throw new Error("this process has used all of its ports");
}

async function freePorts(count: number): Promise<number[]> {
  const all = await Promise.all(Array.from({ length: count }, occupied));
  await Promise.all(all.map(({ server }) => once(server.close(), "close")));
  return all.map(({ port }) => port);
}

interface Asked {
  readonly ports: { readonly admin: number; readonly metrics: number; readonly readiness: number };
  readonly heard: string[];
  readonly logFilter: LogFilter;
  readonly ask: (path: string, over?: { port?: number; method?: string }) => Promise<string>;
}

async function start(
  t: ExecutionContext,
  given: { ports?: Asked["ports"]; take?: (thread: number, request: ProfileRequest) => Promise<string> } = {},
): Promise<Asked> {
  const [admin = 0, metrics = 0, readiness = 0] = await freePorts(3);
  const ports = given.ports ?? { admin, metrics, readiness };
  const logFilter = new LogFilter("info");
  const heard: string[] = [];
  const servers = await serveProxyAdmin({
    name: "sample",
    ports,
    ipv6: false,
    metrics: createRegistry(),
    readiness: new Readiness(),
    logFilter,
    onLogFilter: () => heard.push(`filter ${logFilter}`),
    dump: async () => ({ all: 1 }),
    quit: () => heard.push("quit"),
    profiles: { count: () => 2, take: given.take ?? (async (thread, { kind }) => JSON.stringify({ thread, kind })) },
  });
  t.teardown(() => servers[Symbol.asyncDispose]());
  const ask = async (path: string, { port = admin, method = "GET" } = {}): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers: { connection: "close" } });
    return `${response.status} ${await response.text()}`;
  };
  return { ports, heard, logFilter, ask };
}

test("the index names the proxy and every page it has", async (t) => {
  const { ask, ports } = await start(t);
  const index = await ask("/");
  t.true(index.startsWith("200 <!doctype html><title>sample</title>"));
  for (const path of ["/config_dump", "/logging", "/quitquitquit", "/debug/pprof/profile", "/debug/pprof/heap"]) t.true(index.includes(`href="${path}"`), path);
  t.is(await ask("/config_dump"), '200 {\n  "all": 1\n}\n');
  t.is(await ask("/healthz/ready", { port: ports.readiness }), "200 ready\n");
  t.true((await ask("/metrics", { port: ports.metrics })).startsWith("200 "));
});

test("what changes the process is asked by POST only", async (t) => {
  const { ask, heard } = await start(t);
  for (const path of ["/quitquitquit", "/logging?level=debug"]) t.is(await ask(path), "405 method not allowed\n");
  t.deepEqual(heard, []);
  t.is(await ask("/quitquitquit", { method: "POST" }), "200 shutdown now\n");
  t.deepEqual(heard, ["quit"]);
});

test("a log filter that is none changes nothing, not even by the reset before it", async (t) => {
  const { ask, heard, logFilter } = await start(t);
  t.is(await ask("/logging?level=debug", { method: "POST" }), `200 current log level is ${logFilter}\n`);
  const before = logFilter.toString();
  t.true((await ask("/logging?reset=&level=loud", { method: "POST" })).startsWith('400 "loud" is not a log filter'));
  t.is(logFilter.toString(), before);
  t.deepEqual(heard, [`filter ${before}`]);
});

test("a profile is of the first thread that is not the main one, unless another is named", async (t) => {
  const { ask } = await start(t);
  t.is(await ask("/debug/pprof/heap"), '200 {"thread":1,"kind":"heap"}');
  t.is(await ask("/debug/pprof/profile?thread=0"), '200 {"thread":0,"kind":"cpu"}');
  t.is(await ask("/debug/pprof/heap/profiling?activate=true&thread=2"), "200 heap profiling is on\n");
  t.is(await ask("/debug/pprof/heap?thread=3"), "400 thread is 0 to 2\n");
  t.is(await ask("/debug/pprof/profile?seconds=301"), "400 seconds is 1 to 300, frequency 1 to 1000\n");
});

test("a profile that is being taken already is a conflict, any other failure is told", async (t) => {
  const { ask } = await start(t, {
    take: (thread) => Promise.reject(thread === 1 ? new MeshError("RUNTIME_PROFILE_BUSY", "busy") : new Error("broken")),
  });
  t.is(await ask("/debug/pprof/heap"), "409 busy\n");
  t.is(await ask("/debug/pprof/heap?thread=2"), "500 broken\n");
});

test("when one of the ports is taken none is left open", async (t) => {
  const { server, port } = await occupied();
  t.teardown(() => server.close());
  const [admin = 0, readiness = 0] = await freePorts(2);
  await t.throwsAsync(start(t, { ports: { admin, metrics: port, readiness } }), { code: "RUNTIME_LISTEN_FAILED" });
  const again = createServer().listen(admin, "127.0.0.1");
  await once(again, "listening");
  again.close();
});
