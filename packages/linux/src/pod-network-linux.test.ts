import { readdirSync } from "node:fs";
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { inNamespace } from "./namespace.ts";
import { descriptorOf } from "./node-handle.ts";
import { listen, listenOptions, podNetworkCompliance, text } from "./pod-network.compliance.ts";
import { linuxPodNetwork } from "./pod-network-linux.ts";
import { getMark, getUserTimeout } from "./socket-options.ts";
import { getOption } from "./system-calls.ts";
import { joined, skipped, testNamespace } from "./test-namespaces.ts";

const signal = new AbortController().signal;

podNetworkCompliance(test, { name: "linux", needsPrivileges: true, open: (t) => linuxPodNetwork(testNamespace(t).namespace) });
podNetworkCompliance(test, { name: "linux, own namespace", needsPrivileges: true, open: () => linuxPodNetwork(undefined) });

test.serial("a listener lives in its namespace only", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  await using network = linuxPodNetwork(pod.namespace);
  const { listener } = await listen(network, {});
  await using own = linuxPodNetwork(undefined);
  const error = await t.throwsAsync(own.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal }));
  t.is(errorCode(error), "LINUX_DIAL_REFUSED");
});

test.serial("sockets carry the mark they were asked for, accepted ones included", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  await using network = linuxPodNetwork(pod.namespace);
  const { listener, accepted } = await listen(network, { mark: 1337, transparent: true, keepalive: { timeMs: 180_000, intervalMs: 180_000, retries: 9 } });
  t.true(listener.transparent);
  const { socket } = await network.dial({
    host: "127.0.0.1",
    port: listener.port,
    mark: 0x111,
    timeoutMs: 5_000,
    signal,
    keepalive: { timeMs: 180_000, intervalMs: 180_000, retries: 9, userTimeoutMs: 1_800_000 },
  });
  t.is(getUserTimeout(descriptorOf(socket) ?? -1), 1_800_000);
  t.is(getUserTimeout(descriptorOf(await accepted) ?? -1), 0);
  t.is(getMark(descriptorOf(socket) ?? -1), 0x111);
  t.is(getMark(descriptorOf(await accepted) ?? -1), 1337);
  socket.destroy();
});

for (const family of ["ip", "ip6"] as const) {
  test.serial(`a redirected ${family} connection names its original destination on a listener of both families`, async (t) => {
    if (skipped(t)) return;
    const [client, pod] = [testNamespace(t), testNamespace(t)];
    const addresses = joined(client, pod);
    const target = family === "ip" ? addresses.b : addresses.b6;
    pod.nft(`table inet t {\n chain pre { type nat hook prerouting priority -100;\n meta l4proto tcp redirect to :15006\n }\n}\n`);
    await using network = linuxPodNetwork(pod.namespace);
    const { accepted } = await listen(network, { host: "::", port: 15006 });
    await using outside = linuxPodNetwork(client.namespace);
    const { socket } = await outside.dial({ host: target, port: 8080, mark: 0, timeoutMs: 5_000, signal });
    t.deepEqual(network.originalDestination(await accepted), { ip: target, port: 8080 });
    socket.destroy();
  });
}

for (const family of ["ip", "ip6"] as const) {
  test.serial(`a dial inside the pod keeps the ${family} client's address, and the answer comes back`, async (t) => {
    if (skipped(t)) return;
    const [client, pod] = [testNamespace(t), testNamespace(t)];
    const { a, b, a6, b6 } = joined(client, pod);
    const [source, target] = family === "ip" ? [a, b] : [a6, b6];
    const flag = family === "ip" ? "-4" : "-6";
    pod.nft(`table inet t {
      chain pre { type filter hook prerouting priority -150;\n meta mark and 0xfff == 0x539 ct mark set ct mark and 0xfffff000 or 0x111\n }
      chain out { type route hook output priority -150;\n ct mark and 0xfff == 0x111 meta mark set ct mark\n }
    }\n`);
    pod.ip(flag, "rule", "add", "fwmark", "0x111/0xfff", "lookup", "100", "pref", "32764");
    pod.ip(flag, "route", "replace", "local", "default", "dev", "lo", "table", "100");
    await using network = linuxPodNetwork(pod.namespace);
    const { listener, accepted } = await listen(network, { host: "::" });
    const { socket, sourceKept } = await network.dial({ host: target, port: listener.port, mark: 0x539, timeoutMs: 5_000, signal, source });
    t.true(sourceKept);
    const app = await accepted;
    t.true(app.remoteAddress?.endsWith(source));
    app.end("from the app");
    t.is(await text(socket), "from the app");
    socket.end();
  });
}

test.serial("dialled and accepted sockets send at once, and ask a silent peer after 180 seconds, nine times", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  await using network = linuxPodNetwork(pod.namespace);
  const keepalive = { timeMs: 180_000, intervalMs: 180_000, retries: 9 };
  const { listener, accepted } = await listen(network, { keepalive });
  const { socket } = await network.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal, keepalive });
  // SO_KEEPALIVE at the level of sockets; TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT at that of TCP.
  const options = [
    [1, 9],
    [6, 1],
    [6, 4],
    [6, 5],
    [6, 6],
  ] as const;
  for (const each of [socket, await accepted]) {
    const values = options.map(([level, option]) => {
      const bytes = Buffer.alloc(4);
      getOption(descriptorOf(each) ?? -1, level, option, bytes);
      return bytes.readUInt32LE();
    });
    t.deepEqual(values, [1, 1, 180, 180, 9]);
  }
  socket.destroy();
});

test.serial("a dial that nobody answers ends by its own timeout", async (t) => {
  if (skipped(t)) return;
  const [client, pod] = [testNamespace(t), testNamespace(t)];
  const { b } = joined(client, pod);
  pod.nft("table inet t {\n chain pre { type filter hook prerouting priority 0;\n meta l4proto tcp drop\n }\n}\n");
  const clock = new ManualClock();
  await using network = linuxPodNetwork(client.namespace, { clock });
  const dial = t.throwsAsync(network.dial({ host: b, port: 80, mark: 0, timeoutMs: 10_000, signal }));
  await clock.advance(10_000);
  t.is(errorCode(await dial), "LINUX_DIAL_TIMEOUT");
});

test.serial("an unreachable network is LINUX_DIAL_FAILED", async (t) => {
  if (skipped(t)) return;
  await using network = linuxPodNetwork(testNamespace(t).namespace);
  const error = await t.throwsAsync(network.dial({ host: "192.0.2.1", port: 80, mark: 0, timeoutMs: 5_000, signal }));
  t.is(errorCode(error), "LINUX_DIAL_FAILED");
});

test.serial("no dial and no listen leaves a descriptor behind, however it ends", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  await using network = linuxPodNetwork(pod.namespace);
  inNamespace(pod.namespace, () => {});
  const settled = await descriptors();
  const port = 4;
  for (let round = 0; round < 500; round += 1) {
    await Promise.all([
      t.throwsAsync(network.dial({ host: "127.0.0.1", port, mark: 0x539, timeoutMs: 5_000, signal, source: "127.0.0.9" })),
      t.throwsAsync(network.dial({ host: "192.0.2.1", port, mark: 1, timeoutMs: 5_000, signal })),
      t.throwsAsync(network.dial({ host: "nonsense", port, mark: 1, timeoutMs: 5_000, signal })),
      t.throwsAsync(network.listen(listenOptions({ host: "192.0.2.1" }))),
    ]);
  }
  for (let round = 0; round < 500; round += 1) {
    const accepted: { destroy(): void }[] = [];
    const listener = await network.listen(listenOptions({ reusePort: true, transparent: true, onConnection: (peer) => accepted.push(peer) }));
    const { socket } = await network.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal });
    socket.destroy();
    listener.close();
    for (const peer of accepted) peer.destroy();
  }
  t.is(await descriptors(), settled);
});

/** Open descriptors, once what is closing has closed. */
async function descriptors(): Promise<number> {
  let count = -1;
  for (let same = 0; same < 5; ) {
    await new Promise((resolve) => setImmediate(resolve));
    const now = readdirSync("/proc/self/fd").length;
    same = now === count ? same + 1 : 0;
    count = now;
  }
  return count;
}
