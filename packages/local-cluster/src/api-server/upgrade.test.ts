import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import test from "ava";
import { WebSocket } from "ws";
import { TestBench } from "./test-bench.ts";

const pods = "/api/v1/namespaces/default/pods";

function open(bench: TestBench, path: string, protocols: string[]): WebSocket {
  const client = new WebSocket(`${bench.server.url.replace("https", "wss")}${pods}${path}`, protocols, {
    ca: bench.server.caPem,
    headers: { authorization: `Bearer ${bench.server.adminToken}` },
  });
  client.on("error", () => undefined);
  return client;
}

async function withPod(bench: TestBench): Promise<void> {
  await bench.send("POST", pods, { metadata: { name: "p" }, spec: { containers: [{ name: "c", image: "i" }] } });
}

async function echoServer(): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** Messages by channel until the socket closes. */
async function collect(client: WebSocket): Promise<ReadonlyMap<number, string>> {
  const channels = new Map<number, string>();
  client.on("message", (data: Buffer) => channels.set(data[0] ?? -1, (channels.get(data[0] ?? -1) ?? "") + data.subarray(1).toString("latin1")));
  await once(client, "close");
  return channels;
}

test("a v4 client forwards a port over its two channels", async (t) => {
  await using bench = await TestBench.start();
  await withPod(bench);
  const echo = await echoServer();
  const { port } = echo.address() as AddressInfo;
  const client = open(bench, `/p/portforward?ports=${port}`, ["v4.channel.k8s.io"]);
  const chunks: Buffer[] = [];
  client.on("message", (data: Buffer) => {
    chunks.push(data);
    if (chunks.length === 2) client.send(Buffer.concat([Buffer.from([0]), Buffer.from("hello")]));
    if (chunks.length === 3) client.close();
  });
  await once(client, "close");
  echo.close();
  t.deepEqual(chunks[0], Buffer.from([0, port & 0xff, port >> 8]));
  t.deepEqual(chunks[1], Buffer.from([1, port & 0xff, port >> 8]));
  t.is(chunks[2]?.subarray(1).toString(), "hello");
});

test("a v4 client runs a command and gets its output and status", async (t) => {
  await using bench = await TestBench.start();
  await withPod(bench);
  const channels = await collect(open(bench, "/p/exec?command=fail&command=3&stdout=true&stderr=true", ["v4.channel.k8s.io"]));
  t.is(channels.get(2), "it failed\n");
  t.deepEqual(JSON.parse(channels.get(3) ?? "{}").details.causes, [{ reason: "ExitCode", message: "3" }]);
});

test("an upgrade that cannot be served is answered with a Status and its code", async (t) => {
  await using bench = await TestBench.start();
  await withPod(bench);
  const refused = async (path: string, protocols: string[]): Promise<number | undefined> => {
    const [, response] = (await once(open(bench, path, protocols), "unexpected-response")) as [unknown, { statusCode?: number; destroy(): void }];
    response.destroy();
    return response.statusCode;
  };
  t.is(await refused("/none/exec?command=cat", ["v5.channel.k8s.io"]), 404);
  t.is(await refused("/p/exec?command=cat", ["v9.channel.k8s.io"]), 400);
  t.is(await refused("/p/attach", ["v5.channel.k8s.io"]), 400);
  t.is(await refused("/p/log", ["v5.channel.k8s.io"]), 400);
});

test("a tunnel that does not speak SPDY is closed, and the server goes on", async (t) => {
  await using bench = await TestBench.start();
  await withPod(bench);
  const broken = [
    Buffer.alloc(64, 0xff),
    Buffer.from("8003000100000014000000010000000000001122334455667788990011", "hex"),
    Buffer.from([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
  ];
  for (const bytes of broken) {
    // By hand: a WebSocket client refuses the "/" in the protocol's name.
    const outgoing = request(`${bench.server.url}${pods}/p/portforward`, {
      ca: bench.server.caPem,
      headers: {
        authorization: `Bearer ${bench.server.adminToken}`,
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io",
      },
    });
    outgoing.end();
    const [response, socket] = (await once(outgoing, "upgrade")) as [IncomingMessage, Socket];
    t.is(response.headers["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
    const chunks: Buffer[] = [];
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.write(Buffer.concat([Buffer.from([0x82, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]));
    while (Buffer.concat(chunks).length < 4) await once(socket, "data");
    const answer = Buffer.concat(chunks);
    t.deepEqual([answer[0], answer.readUInt16BE(2)], [0x88, 1002], "a close frame with the code for a protocol error");
    socket.destroy();
  }
  t.is((await bench.send("GET", "/readyz")).code, 200);
});

test("closing the server ends running sessions", async (t) => {
  const bench = await TestBench.start();
  await withPod(bench);
  const client = open(bench, "/p/exec?command=cat&stdin=true", ["v5.channel.k8s.io"]);
  await once(client, "open");
  const closed = once(client, "close");
  await bench[Symbol.asyncDispose]();
  await closed;
  t.pass();
});
