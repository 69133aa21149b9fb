import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { applyNft, inNamespace, runIn } from "@fairway/linux";
import { type Clock, errorCode, ManualClock, systemClock } from "@fairway/runtime";
import test from "ava";
import { HostProbes } from "./host-probes.ts";
import { proveCapture } from "./live-probe.ts";
import { podRedirection } from "./rules-apply.ts";
import { ask, defaultRules, listenAsApp, listenAsZtunnel, skipped, testNode } from "./test-namespaces.ts";

const signal = new AbortController().signal;
const appPort = 8080;
/** What is waited for in vain is not waited for long. */
const quick: Clock = { ...systemClock, schedule: (delayMs, task) => systemClock.schedule(delayMs / 25, task) };
const nftRedirection = podRedirection();

test.serial("what a pod sends and receives goes through ztunnel, on both families", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 2);
  const [client, server] = pods;
  if (client === undefined || server === undefined) return t.fail();
  await nftRedirection.apply(client.pod.namespace, defaultRules, signal);
  await nftRedirection.apply(server.pod.namespace, defaultRules, signal);
  await listenAsApp(server.pod.network, appPort);
  await listenAsZtunnel(client.pod.network);
  await listenAsZtunnel(server.pod.network);
  for (const family of ["ipv4", "ipv6"] as const) {
    const target = server[family];
    t.is(await ask(client.pod.network, target, appPort), `15001 ${target} ${appPort} ${client[family]}`, "outbound");
    t.is(
      await ask(client.pod.network, target, appPort, { mark: 0x539 }),
      `15006 ${target} ${appPort} ${client[family]}`,
      "ztunnel's own, inbound at the server",
    );
    t.is(await ask(client.pod.network, target, 15008, { mark: 0x539 }), `15008 ${target} 15008 ${client[family]}`, "tunnels arrive unredirected");
  }
});

test.serial("a captured pod hands connections of a closing listener on to another of its port, and is as before when it is let go", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  const { namespace } = own.pod;
  const setting = (): string => inNamespace(namespace, () => readFileSync("/proc/sys/net/ipv4/tcp_migrate_req", "utf8").trim());
  if (!existsSync("/proc/sys/net/ipv4/tcp_migrate_req")) return void t.log("SKIPPED (this kernel hands nothing on)");
  t.is(setting(), "0");
  await nftRedirection.apply(namespace, defaultRules, signal);
  t.is(setting(), "1");
  await nftRedirection.remove(namespace, signal);
  t.is(setting(), "0");
});

test.serial("a pod that talks to itself, by loopback or by its own address, is left alone", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  await nftRedirection.apply(own.pod.namespace, defaultRules, signal);
  await listenAsApp(own.pod.network, appPort);
  for (const host of ["127.0.0.1", "::1", own.ipv4, own.ipv6]) t.true((await ask(own.pod.network, host, appPort)).startsWith("app "), host);
});

test.serial("ztunnel reaches the application with the client's address, and the answer comes back to it", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  await nftRedirection.apply(own.pod.namespace, defaultRules, signal);
  await listenAsApp(own.pod.network, appPort);
  t.is(await ask(own.pod.network, own.ipv4, appPort, { mark: 0x539, source: "10.77.99.9" }), "app 10.77.99.9");
  t.is(await ask(own.pod.network, own.ipv6, appPort, { mark: 0x539, source: "fd77:99::9" }), "app fd77:99::9");
});

test.serial("probes of the node's own processes reach the application; forwarded traffic of the same node does not", async (t) => {
  if (skipped(t)) return;
  const { node, pods } = testNode(t, 2);
  const [server, neighbour] = pods;
  if (server === undefined || neighbour === undefined) return t.fail();
  await nftRedirection.apply(server.pod.namespace, defaultRules, signal);
  await listenAsApp(server.pod.network, appPort);
  await listenAsZtunnel(server.pod.network);
  const { probeIpv4, probeIpv6 } = defaultRules;
  for (const source of [{ kind: "user", uid: 0 }, { kind: "any-local" }] as const) {
    const probes = new HostProbes({ namespace: node.namespace, probeIpv4, probeIpv6, source });
    await probes.install(signal);
    t.true((await ask(node.network, server.ipv4, appPort)).startsWith("15006 "), "before the pod is in the set, probes are captured like all else");
    await probes.set("uid-1", [server.ipv4, server.ipv6], signal);
    t.is(await ask(node.network, server.ipv4, appPort), `app ${probeIpv4}`);
    t.is(await ask(node.network, server.ipv6, appPort), `app ${probeIpv6}`);
    t.is(await ask(neighbour.pod.network, server.ipv4, appPort), `15006 ${server.ipv4} ${appPort} ${neighbour.ipv4}`);
    t.is(await ask(neighbour.pod.network, server.ipv6, appPort), `15006 ${server.ipv6} ${appPort} ${neighbour.ipv6}`);
    await probes.remove("uid-1", signal);
    t.true((await ask(node.network, server.ipv4, appPort)).startsWith("15006 "));
    await probes.uninstall(signal);
    t.is(node.exec("nft", "list", "tables"), "");
  }
});

test.serial("applying the rules again opens no window: every connection made meanwhile is captured", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 2);
  const [client, server] = pods;
  if (client === undefined || server === undefined) return t.fail();
  await nftRedirection.apply(client.pod.namespace, defaultRules, signal);
  await listenAsApp(server.pod.network, appPort);
  await listenAsZtunnel(client.pod.network);
  let applying = true;
  const answers: string[] = [];
  const asking = (async () => {
    while (applying) answers.push(await ask(client.pod.network, server.ipv4, appPort));
  })();
  for (let round = 0; round < 20; round += 1) await nftRedirection.apply(client.pod.namespace, { ...defaultRules, bypassInbound: round % 2 === 0 }, signal);
  applying = false;
  await asking;
  t.true(answers.length > 20, `${answers.length} connections`);
  t.deepEqual(
    answers.filter((answer) => !answer.startsWith("15001 ")),
    [],
  );
});

test.serial("rules that somebody changed have another fingerprint, rules that only counted have not", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  const { namespace, network } = own.pod;
  const applied = await nftRedirection.apply(namespace, defaultRules, signal);
  await listenAsZtunnel(network);
  await ask(network, "10.77.5.5", 80);
  t.is(await nftRedirection.inspect(namespace, signal), applied);
  await applyNft(namespace, "flush chain inet istio-ambient-nat istio-output\n", { signal });
  t.not(await nftRedirection.inspect(namespace, signal), applied);
  await applyNft(namespace, "delete table inet istio-ambient-nat\n", { signal });
  t.is(await nftRedirection.inspect(namespace, signal), undefined);
  t.is(await nftRedirection.apply(namespace, defaultRules, signal), applied);
});

test.serial("rules and routes are applied twice and removed twice without complaint, and leave nothing", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  const { namespace } = own.pod;
  const before = [own.pod.exec("ip", "rule"), own.pod.exec("ip", "-6", "rule")];
  for (let round = 0; round < 2; round += 1) await nftRedirection.apply(namespace, { ...defaultRules, dnsCapture: true }, signal);
  const rules = (await runIn(namespace, ["ip", "rule"], { signal })).stdout;
  t.is(rules.match(/fwmark 0x111\/0xfff lookup 100/g)?.length, 1);
  t.true((await runIn(namespace, ["ip", "-6", "route", "list", "table", "100"], { signal })).stdout.includes("local default dev lo"));
  for (let round = 0; round < 2; round += 1) await nftRedirection.remove(namespace, signal);
  t.deepEqual([own.pod.exec("ip", "rule"), own.pod.exec("ip", "-6", "rule")], before);
  t.is(own.pod.exec("nft", "list", "tables"), "");
});

test.serial("a pod that leaves is captured no more, and what came through a tunnel is still answered", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 2);
  const [client, server] = pods;
  if (client === undefined || server === undefined) return t.fail();
  for (const { pod } of pods) {
    await nftRedirection.apply(pod.namespace, defaultRules, signal);
    await listenAsZtunnel(pod.network);
  }
  await listenAsApp(server.pod.network, appPort);
  for (const { pod } of pods) for (let round = 0; round < 2; round += 1) await nftRedirection.uncapture(pod.namespace, signal);
  for (const family of ["ipv4", "ipv6"] as const) {
    t.is(await ask(client.pod.network, server[family], appPort), `app ${client[family]}`, "neither outbound nor inbound");
    t.true((await ask(client.pod.network, server[family], 15008)).startsWith("15008 "));
  }
  return t.is(await ask(server.pod.network, server.ipv4, appPort, { mark: 0x539, source: "10.77.99.9" }), "app 10.77.99.9");
});

test.serial("the proof holds when ztunnel resets, and when it does not end the connection", async (t) => {
  if (skipped(t)) return;
  for (const behaviour of ["resets", "stays"] as const) {
    const { pods } = testNode(t, 1);
    const [own] = pods;
    if (own === undefined) return t.fail();
    const { namespace, network } = own.pod;
    const ends: Promise<unknown>[] = [];
    for (const port of [15001, 15006, 15008]) {
      const onConnection = (socket: Socket): void => {
        if (behaviour === "resets") socket.resetAndDestroy();
        else
          ends.push(
            new Promise((resolve) =>
              socket
                .once("close", resolve)
                .on("error", () => {})
                .resume(),
            ),
          );
      };
      await network.listen({ host: "::", port, mark: 0x539, reusePort: true, transparent: true, backlog: 128, onConnection });
    }
    await nftRedirection.apply(namespace, defaultRules, signal);
    for (let round = 0; round < 5; round += 1) await t.notThrowsAsync(proveCapture(namespace, { rules: defaultRules, signal, clock: quick }), behaviour);
    await Promise.all(ends);
    t.is(ends.length, behaviour === "resets" ? 0 : 10);
  }
});

test.serial("a proof that is aborted says why, also while it waits for the end", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  const { namespace, network } = own.pod;
  const controller = new AbortController();
  const reason = new Error("the agent stops");
  for (const port of [15001, 15006, 15008]) {
    const onConnection = (socket: Socket): void => {
      socket.on("error", () => {}).resume();
      setTimeout(() => controller.abort(reason), 20);
    };
    await network.listen({ host: "::", port, mark: 0x539, reusePort: true, transparent: true, backlog: 128, onConnection });
  }
  await nftRedirection.apply(namespace, defaultRules, signal);
  t.is(await t.throwsAsync(proveCapture(namespace, { rules: defaultRules, signal: controller.signal, clock: new ManualClock() })), reason);
});

test.serial("the proof holds only with rules and ztunnel, and says which is missing", async (t) => {
  if (skipped(t)) return;
  const { pods } = testNode(t, 1);
  const [own] = pods;
  if (own === undefined) return t.fail();
  const { namespace, network } = own.pod;
  const prove = (dnsCapture = false): Promise<void> => proveCapture(namespace, { rules: { ...defaultRules, dnsCapture }, signal });
  const silent = await t.throwsAsync(prove());
  t.is(errorCode(silent), "NODE_AGENT_NOT_CAPTURED");
  t.regex(silent.message, /15001, 15006, 15008/);
  await listenAsZtunnel(network);
  const open = await t.throwsAsync(prove());
  t.is(errorCode(open), "NODE_AGENT_NOT_CAPTURED");
  await nftRedirection.apply(namespace, defaultRules, signal);
  await t.notThrowsAsync(prove());
  const noDns = await t.throwsAsync(prove(true));
  t.regex(noDns.message, /15053/);
  t.is(
    inNamespace(namespace, () => 1),
    1,
  );
});

test.serial("connections that are open when a pod is enrolled live on, at either end", async (t) => {
  if (skipped(t)) return;
  for (const enrolledEnd of ["client", "server"] as const) {
    const { pods } = testNode(t, 2);
    const [client, server] = pods;
    if (client === undefined || server === undefined) return t.fail();
    await server.pod.network.listen({
      host: "::",
      port: appPort,
      mark: 0,
      reusePort: false,
      transparent: false,
      backlog: 1,
      onConnection: (socket) => socket.pipe(socket),
    });
    const { socket } = await client.pod.network.dial({ host: server.ipv4, port: appPort, mark: 0, timeoutMs: 20_000, signal });
    const echo = async (text: string): Promise<string> => {
      const answered = once(socket, "data");
      socket.resume();
      socket.write(text);
      return String((await answered)[0]);
    };
    t.is(await echo("before"), "before");
    const { pod } = enrolledEnd === "client" ? client : server;
    await listenAsZtunnel(pod.network);
    await nftRedirection.apply(pod.namespace, defaultRules, signal);
    t.is(await echo("after"), "after", enrolledEnd);
    const asked = await ask(client.pod.network, server.ipv4, appPort);
    t.true(asked.startsWith(enrolledEnd === "client" ? "15001 " : "15006 "), "new ones are captured");
    socket.destroy();
  }
});
