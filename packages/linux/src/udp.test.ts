import { once } from "node:events";
import { errorCode } from "@fairway/runtime";
import test from "ava";
import { joined, skipped, testNamespace } from "./test-namespaces.ts";
import { udpSocketIn } from "./udp.ts";

test.serial("datagrams travel between sockets of two namespaces, on both families", async (t) => {
  if (skipped(t)) return;
  const [a, b] = [testNamespace(t), testNamespace(t)];
  const addresses = joined(a, b);
  const server = await udpSocketIn(b.namespace, { host: "::", port: 5353, mark: 1337, reusePort: true });
  const sibling = await udpSocketIn(b.namespace, { host: "::", port: 5353, mark: 1337, reusePort: true });
  sibling.close();
  for (const [host, target] of [
    ["0.0.0.0", addresses.b],
    ["::", addresses.b6],
  ] as const) {
    const client = await udpSocketIn(a.namespace, { host, port: 0 });
    const arrived = once(server, "message");
    client.send("ping", 5353, target);
    const [bytes, from] = await arrived;
    t.is(String(bytes), "ping");
    const answered = once(client, "message");
    server.send("pong", from.port, from.address);
    t.is(String((await answered)[0]), "pong");
    client.close();
  }
  server.close();
});

test("an address that is not ours is LINUX_LISTEN_FAILED", async (t) => {
  for (const host of ["192.0.2.1", "nonsense"]) t.is(errorCode(await t.throwsAsync(udpSocketIn(undefined, { host, port: 0 }))), "LINUX_LISTEN_FAILED");
});
