import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import { silentLogger } from "@fairway/runtime";
import test from "ava";
import { decode, encode, streamDecode, streamEncode } from "dns-packet";
import type { DnsSources } from "./records.ts";
import { serveDns } from "./server.ts";

const sources: DnsSources = {
  domain: "cluster.local",
  service: (namespace, name) => (name === "web" ? { metadata: { name, namespace }, spec: { clusterIPs: ["10.96.1.0"] } } : undefined),
  slices: () => [],
  hasNamespace: () => true,
};
const question = (id: number, name: string): Parameters<typeof encode>[0] => ({ type: "query", id, questions: [{ type: "A", name }] });

test("the same question is answered over UDP and TCP, several on one connection even when cut in pieces", async (t) => {
  await using server = await serveDns({ host: "127.0.0.1", port: 0, sources, log: silentLogger });
  const udp = createSocket("udp4");
  try {
    udp.send(encode(question(1, "web.shop.svc.cluster.local")), server.port, "127.0.0.1");
    const [bytes] = (await once(udp, "message")) as [Buffer];
    t.is(decode(bytes).answers?.length, 1);
  } finally {
    udp.close();
  }
  const socket = connect(server.port, "127.0.0.1");
  const both = Buffer.concat([streamEncode(question(2, "web.shop.svc.cluster.local")), streamEncode(question(3, "none.shop.svc.cluster.local"))]);
  socket.write(both.subarray(0, 5));
  socket.write(both.subarray(5));
  let received = Buffer.alloc(0);
  const replies: ReturnType<typeof streamDecode>[] = [];
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk as Buffer]);
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      const end = 2 + received.readUInt16BE(0);
      replies.push(streamDecode(received.subarray(0, end)));
      received = received.subarray(end);
    }
    if (replies.length === 2) break;
  }
  socket.destroy();
  t.deepEqual(
    replies.map((reply) => [reply.id, "rcode" in reply ? reply.rcode : undefined]),
    [
      [2, "NOERROR"],
      [3, "NXDOMAIN"],
    ],
  );
});

test("a connection that sends no DNS is closed and the server goes on", async (t) => {
  await using server = await serveDns({ host: "127.0.0.1", port: 0, sources, log: silentLogger });
  const socket = connect(server.port, "127.0.0.1");
  socket.write(Buffer.from([0, 3, 1, 2, 3]));
  socket.resume();
  await once(socket, "close");
  const udp = createSocket("udp4");
  try {
    udp.send(Buffer.from([1]), server.port, "127.0.0.1");
    udp.send(encode(question(4, "web.shop.svc.cluster.local")), server.port, "127.0.0.1");
    const [bytes] = (await once(udp, "message")) as [Buffer];
    t.is(decode(bytes).id, 4);
  } finally {
    udp.close();
  }
});
