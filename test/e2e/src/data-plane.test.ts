/** What connections of applications must survive when they cross the mesh: every test runs between two enrolled pods on two nodes. */
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh, services } from "./mesh.ts";

const megabyte = 1024 * 1024;
const large = 200 * megabyte;
const client = { namespace: "shop", name: "client" };
/** A machine with much else to do is not what kills a pod. */
const livenessProbe = { tcpSocket: { port: 7000 }, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 3 };
let mesh: Mesh;

test.before(async () => {
  mesh = await Mesh.raise("dp");
  await mesh.namespace("shop", { enrolled: true });
  await mesh.namespace("plain", { enrolled: false });
  await Promise.all([
    mesh.app({ namespace: "shop", name: "client", node: 1 }),
    mesh.app({
      namespace: "shop",
      name: "server",
      node: 2,
      headless: true,
      probes: { livenessProbe },
    }),
    mesh.app({ namespace: "plain", name: "plain", node: 2 }),
  ]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

/** Bytes that node 1 and node 2 exchanged on port 15008 while `during` ran, and TCP packets of the application between pods outside of it. */
async function onTheWire(during: () => Promise<void>): Promise<{ tunnel: number; other: number }> {
  const addresses = new Set(Object.values({ ...(await mesh.addresses("shop", "client")) }).concat(Object.values(await mesh.addresses("shop", "server"))));
  const seen = { tunnel: 0, other: 0 };
  await using capture = mesh.cluster.capture("underlay", ({ protocol, source, destination, payload }) => {
    if (protocol !== "tcp" || payload.byteLength === 0 || !addresses.has(source.ip) || !addresses.has(destination.ip)) return;
    if (source.port === 15_008 || destination.port === 15_008) seen.tunnel += payload.byteLength;
    else seen.other += payload.byteLength;
  });
  await during();
  if (capture.counts.dropped > 0) throw new Error("the capture lost packets: it proves nothing");
  return seen;
}

for (const family of ["v4", "v6"] as const) {
  test.serial(`a service address (IP${family}) is reached through the tunnel, and the application sees the client's own address`, async (t) => {
    const server = await mesh.serviceAddresses("shop", "server");
    const { [family]: own } = await mesh.addresses("shop", "client");
    let answer: { reply?: string } = {};
    const wire = await onTheWire(async () => {
      answer = await mesh.act(client, "echo", server[family], 7006, "");
    });
    t.is(answer.reply, own);
    t.true(wire.tunnel > 0);
    t.is(wire.other, 0);
  });

  test.serial(`a pod address (IP${family}) is reached through the tunnel`, async (t) => {
    const server = await mesh.addresses("shop", "server");
    let answer: { reply?: string } = {};
    const wire = await onTheWire(async () => {
      answer = await mesh.act(client, "echo", server[family], 7000, "over the pod address");
    });
    t.is(answer.reply, "over the pod address");
    t.true(wire.tunnel > 0);
    t.is(wire.other, 0);
  });
}

test.serial("a headless service leads to the pod, through the tunnel", async (t) => {
  const { clusterIP } = (await mesh.cluster.client.get(services, "server-headless", "shop")).spec;
  t.is(clusterIP, "None");
  let answer: { reply?: string } = {};
  const wire = await onTheWire(async () => {
    answer = await mesh.act(client, "echo", "server-headless", 7000, "headless");
  });
  t.is(answer.reply, "headless");
  t.true(wire.tunnel > 0);
  t.is(wire.other, 0);
});

test.serial("a server that speaks first is heard before the client said anything", async (t) => {
  t.deepEqual(await mesh.act(client, "greeting", "server", 7001), { greeting: "hello from the server\n", echoed: "thanks" });
});

test.serial("the client's half-close arrives, and the answer after it comes back", async (t) => {
  const { reply, expected } = await mesh.act(client, "upload", "server", 7002, 1_000);
  t.is(reply, expected);
});

test.serial("the server's half-close arrives, and the client may go on sending", async (t) => {
  t.deepEqual(await mesh.act(client, "farewell", "server", 7004, 5 * megabyte), { bye: "bye", sent: 5 * megabyte });
  await t.notThrowsAsync(async () => {
    await eventually("the server's having read everything that was sent after its own end", async () => {
      const { reply } = await mesh.act(client, "echo", "server", 7005, "");
      return reply === String(5 * megabyte) ? true : undefined;
    });
  });
});

test.serial("200 MB up arrive whole", async (t) => {
  const { reply, expected } = await mesh.act(client, "upload", "server", 7002, large);
  t.is(reply, expected);
});

test.serial("200 MB down arrive whole", async (t) => {
  const { reply, expected } = await mesh.act(client, "download", "server", 7003, large);
  t.is(reply, expected);
});

test.serial("1,000 connections stand at the same time, each with its own bytes", async (t) => {
  t.deepEqual(await mesh.act(client, "many", "server", 7000, 1_000), { standing: 1_000, failed: 0 });
});

test.serial("a pod reaches itself through its own service", async (t) => {
  const server = { namespace: "shop", name: "server" };
  t.like(await mesh.act(server, "echo", "server", 7000, "myself"), { reply: "myself" });
  const { v6 } = await mesh.serviceAddresses("shop", "server");
  t.like(await mesh.act(server, "echo", v6, 7000, "myself over IPv6"), { reply: "myself over IPv6" });
});

test.serial("a pod outside the mesh is reached in the clear, and reaches in", async (t) => {
  const { v4 } = await mesh.addresses("shop", "client");
  const plain = await mesh.serviceAddresses("plain", "plain");
  t.like(await mesh.act(client, "echo", plain.v4, 7006, ""), { reply: v4 });
  t.like(await mesh.act({ namespace: "plain", name: "plain" }, "echo", "server.shop", 7000, "from outside"), { reply: "from outside" });
});

test.serial("a destination that nobody knows is reached as if there were no mesh", async (t) => {
  const [address = ""] = mesh.cluster.outside.addresses;
  const external = mesh.cluster.spawnOutside([
    process.execPath,
    "-e",
    'require("net").createServer((s) => s.on("error", () => {}).end("external")).listen(9100, "0.0.0.0", () => console.log("listening"))',
  ]);
  try {
    await new Promise((resolve) => external.stdout.once("data", resolve));
    t.like(await mesh.act(client, "echo", address, 9100, ""), { reply: "external" });
  } finally {
    external.kill();
  }
});

test.serial("UDP is not touched", async (t) => {
  const server = await mesh.addresses("shop", "server");
  t.like(await mesh.act(client, "udp", server.v4, 7053, "datagram"), { reply: "datagram" });
  t.like(await mesh.act(client, "udp", server.v6, 7053, "datagram over IPv6"), { reply: "datagram over IPv6" });
});

test.serial("a connection to a port where nobody listens fails", async (t) => {
  const { error } = await mesh.act(client, "echo", "server", 7999, "x");
  t.truthy(error);
});

test.serial("the kubelet's probes reach enrolled pods, also under STRICT", async (t) => {
  await mesh.apply([
    { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "default", namespace: "shop" }, spec: { mtls: { mode: "STRICT" } } },
  ]);
  await eventually("a refusal of the pod outside the mesh", async () => {
    const { error } = await mesh.act({ namespace: "plain", name: "plain" }, "echo", "server.shop", 7000, "x");
    return error;
  });
  // Ready is what the kubelet's probe made it, which began when nobody outside was let in any more; alive, what the other one let live.
  await mesh.app({ namespace: "shop", name: "probed", node: 2, probes: { livenessProbe } });
  for (const name of ["probed", "server"]) t.is((await mesh.pod("shop", name)).status?.containerStatuses?.[0]?.restartCount, 0, name);
  t.like(await mesh.act(client, "echo", "server", 7000, "still here"), { reply: "still here" });
});
