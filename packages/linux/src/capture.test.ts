import { errorCode } from "@fairway/runtime";
import test from "ava";
import { type CapturedPacket, capturePackets } from "./capture.ts";
import { listen, text } from "./pod-network.compliance.ts";
import { linuxPodNetwork } from "./pod-network-linux.ts";
import { joined, skipped, testNamespace } from "./test-namespaces.ts";

test.serial("a capture sees what two pods say to each other, and nothing is dropped", async (t) => {
  if (skipped(t)) return;
  const [a, b] = [testNamespace(t), testNamespace(t)];
  const addresses = joined(a, b);
  const packets: CapturedPacket[] = [];
  await using capture = capturePackets(a.namespace, "eth0", (packet) => packets.push(packet));
  await using server = linuxPodNetwork(b.namespace);
  await using client = linuxPodNetwork(a.namespace);
  for (const host of [addresses.b, addresses.b6]) {
    const { listener, accepted } = await listen(server, { host: "::" });
    const { socket } = await client.dial({ host, port: listener.port, mark: 0, timeoutMs: 5_000, signal: new AbortController().signal });
    const said = `the secret of ${host}`;
    socket.end(said);
    const peer = await accepted;
    t.is(await text(peer), said);
    peer.end("thanks");
    t.is(await text(socket), "thanks");
    while (!packets.some((packet) => packet.direction === "in" && packet.tcpFlags?.fin === true && packet.source.ip === host)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const sent = packets.filter((packet) => packet.direction === "out" && packet.destination.ip === host && packet.destination.port === listener.port);
    t.true(sent[0]?.tcpFlags?.syn);
    t.is(Buffer.concat(sent.map((packet) => packet.payload)).toString(), said);
  }
  t.is(capture.counts.dropped, 0);
  t.true(capture.counts.received >= packets.length);
});

test.serial("on the loopback interface each packet counts once", async (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const packets: CapturedPacket[] = [];
  await using _capture = capturePackets(pod.namespace, "lo", (packet) => packets.push(packet));
  await using network = linuxPodNetwork(pod.namespace);
  const { listener, accepted } = await listen(network, {});
  const { socket } = await network.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal: new AbortController().signal });
  socket.end("once");
  t.is(await text(await accepted), "once");
  while (!packets.some((packet) => packet.tcpFlags?.fin === true)) await new Promise((resolve) => setImmediate(resolve));
  t.is(packets.filter((packet) => packet.tcpFlags?.syn === true && packet.tcpFlags.ack === false).length, 1);
  socket.destroy();
});

test("an interface that is not there is LINUX_CAPTURE_FAILED", (t) => {
  t.is(errorCode(t.throws(() => capturePackets(undefined, "no-such-if0", () => {}))), "LINUX_CAPTURE_FAILED");
});
