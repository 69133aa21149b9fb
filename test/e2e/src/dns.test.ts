/** The names that an enrolled pod asks for, through the DNS proxy of its ztunnel: real resolvers in real pods, the cluster's own DNS behind. */
import test, { type ExecutionContext } from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh, meshNamespace, services } from "./mesh.ts";

/** Where the outside host is, which plays the internet here. */
const internet = "172.30.0.200";
const client = { namespace: "shop", name: "client" };
const plain = { namespace: "plain", name: "plain" };
/** What ztunnel says for how long an address of the mesh may be kept; the cluster's own DNS says five seconds. */
const meshTtl = 30;
const clusterTtl = 5;
const manyEndpoints = 60;
let mesh: Mesh;

/** Knows that www.example.com has the address 198.51.100.7; no other name exists. */
const resolverOfTheInternet = `
const socket = require("dgram").createSocket("udp4");
socket.on("message", (query, from) => {
  let end = 12;
  while (query[end] !== 0) end += query[end] + 1;
  const type = query.readUInt16BE(end + 1);
  const known = query.subarray(12, end).toString("latin1") === "\\x03www\\x07example\\x03com";
  const data = known && type === 1 ? Buffer.from([198, 51, 100, 7]) : undefined;
  const head = Buffer.from(query.subarray(0, end + 5));
  head.writeUInt16BE(known ? 0x8180 : 0x8183, 2);
  head.writeUInt16BE(data === undefined ? 0 : 1, 6);
  head.writeUInt32BE(0, 8);
  const record = data === undefined ? Buffer.alloc(0) : Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...data]);
  socket.send(Buffer.concat([head, record]), from.port, from.address);
});
socket.bind(53, "0.0.0.0", () => console.log("listening"));
`;

test.before(async () => {
  mesh = await Mesh.raise("dns", undefined, { dnsUpstream: internet });
  const resolver = mesh.cluster.spawnOutside([process.execPath, "-e", resolverOfTheInternet]);
  await new Promise((resolve) => resolver.stdout.once("data", resolve));
  await mesh.namespace("shop", { enrolled: true });
  await mesh.namespace("money", { enrolled: true });
  await mesh.namespace("plain", { enrolled: false });
  const addresses = Array.from({ length: manyEndpoints }, (_, index) => `192.0.2.${index + 1}`);
  await mesh.apply([
    { apiVersion: "v1", kind: "Service", metadata: { name: "many", namespace: "shop" }, spec: { clusterIP: "None", ports: [{ port: 80, protocol: "TCP" }] } },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name: "many-1", namespace: "shop", labels: { "kubernetes.io/service-name": "many" } },
      addressType: "IPv4",
      ports: [{ port: 80, protocol: "TCP" }],
      endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    },
  ]);
  await Promise.all([
    mesh.app({ ...client, node: 1 }),
    mesh.app({ namespace: "shop", name: "server", node: 2, headless: true }),
    mesh.app({ namespace: "money", name: "bank", node: 2 }),
    mesh.app({ namespace: "shop", name: "unasked", node: 1, annotations: { "ambient.istio.io/dns-capture": "false" } }),
    mesh.app({ ...plain, node: 1 }),
  ]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

interface Found {
  readonly addresses?: readonly string[];
  readonly error?: string;
}

function lookup(from: { namespace: string; name: string }, name: string): Promise<Found> {
  return mesh.act<Found>(from, "lookup", name);
}

/** The times to live of an A answer say who gave it. */
async function ttls(from: { namespace: string; name: string }, name: string): Promise<readonly number[]> {
  const { records = [] } = await mesh.act<{ records?: readonly { ttl: number }[] }>(from, "resolve", "A", name);
  return [...new Set(records.map(({ ttl }) => ttl))];
}

async function bothFamilies(t: ExecutionContext, from: { namespace: string; name: string }, name: string, of: { v4: string; v6: string }): Promise<void> {
  t.deepEqual(await lookup(from, name), { addresses: [of.v4, of.v6].sort() }, name);
}

test.serial("a service is found by every form of its name, on both families", async (t) => {
  const server = await mesh.serviceAddresses("shop", "server");
  for (const name of ["server", "server.shop", "server.shop.svc", "server.shop.svc.cluster.local", "server.shop.svc.cluster.local.", "SERVER.Shop"]) {
    await bothFamilies(t, client, name, server);
  }
  const bank = await mesh.serviceAddresses("money", "bank");
  for (const name of ["bank.money", "bank.money.svc", "bank.money.svc.cluster.local"]) await bothFamilies(t, client, name, bank);
  t.regex((await lookup(client, "bank")).error ?? "", /ENOTFOUND/, "not by the bare name from another namespace");
});

test.serial("the answers are ztunnel's: for pods of the mesh, and for them only", async (t) => {
  t.deepEqual(await ttls(client, "server.shop.svc.cluster.local"), [meshTtl]);
  t.deepEqual(await ttls(client, "server"), [meshTtl], "without a search domain, too");
  t.deepEqual(await ttls(plain, "server.shop.svc.cluster.local"), [clusterTtl]);
  await bothFamilies(t, plain, "server.shop", await mesh.serviceAddresses("shop", "server"));
});

test.serial("a headless service is found as its pod", async (t) => {
  await bothFamilies(t, client, "server-headless", await mesh.addresses("shop", "server"));
  t.deepEqual(await ttls(client, "server-headless.shop"), [meshTtl]);
});

test.serial("an answer that no datagram holds comes whole over TCP", async (t) => {
  const found = await eventually("all endpoints", async () => {
    const answer = await lookup(client, "many");
    return answer.addresses?.length === manyEndpoints ? answer : undefined;
  });
  t.is(new Set(found.addresses).size, manyEndpoints);
  const ztunnel = await mesh.ztunnelOf("shop", "client");
  const { body } = await mesh.admin(ztunnel, 15_020, "/metrics");
  t.regex(body, /istio_dns_requests_total\{request_query_type="a",request_protocol="tcp",source_canonical_service="client",/);
});

test.serial("what is not a service of the mesh is the cluster's DNS's: other types, names that are not there, the internet", async (t) => {
  const srv = await mesh.act<{ records?: readonly { port: number; name: string }[] }>(client, "resolve", "SRV", "_tcp-7000._tcp.server.shop.svc.cluster.local");
  t.like(srv.records?.[0], { port: 7_000, name: "server.shop.svc.cluster.local" });
  t.regex((await lookup(client, "nothing.shop")).error ?? "", /ENOTFOUND/);
  t.deepEqual(await lookup(client, "www.example.com"), { addresses: ["198.51.100.7"] });
  const { body } = await mesh.admin(await mesh.ztunnelOf("shop", "client"), 15_020, "/metrics");
  t.regex(body, /istio_dns_upstream_requests_total\{request_query_type="srv",request_protocol="udp",source_canonical_service="client",/);
  t.notRegex(body, /istio_dns_upstream_failures_total\{/);
});

test.serial("a resolver that a pod names itself is answered in the name of that resolver", async (t) => {
  const script = `
    const { Resolver } = require("dns").promises;
    const resolver = new Resolver({ timeout: 3000, tries: 1 });
    resolver.setServers(["${internet}"]);
    resolver.resolve4("server.shop").then((found) => console.log(JSON.stringify(found)), (error) => console.log(JSON.stringify(error.code)));
  `;
  const pod = await mesh.pod("shop", "client");
  const { stdout } = await mesh.cluster.exec({ namespace: "shop", name: pod.metadata.name }, [process.execPath, "-e", script], { timeoutMs: 20_000 });
  t.deepEqual(JSON.parse(stdout), [(await mesh.serviceAddresses("shop", "server")).v4], "nobody outside knows this name");
});

test.serial("a service that appears is found, and one that goes is not", async (t) => {
  const fresh = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "fresh", namespace: "shop" },
    spec: { selector: { app: "server" }, ports: [{ port: 7000 }] },
  };
  await mesh.apply([fresh]);
  const found = await eventually("the new service", async () => ((await lookup(client, "fresh")).addresses?.length === 1 ? true : undefined));
  t.true(found);
  await mesh.cluster.client.delete(services, "fresh", "shop");
  t.true(await eventually("its end", async () => ((await lookup(client, "fresh")).error === undefined ? undefined : true)));
});

test.serial("a pod that wants no capture of its DNS asks the cluster's DNS itself", async (t) => {
  t.deepEqual(await ttls({ namespace: "shop", name: "unasked" }, "server.shop.svc.cluster.local"), [clusterTtl]);
  const server = await mesh.serviceAddresses("shop", "server");
  const { v4 } = await mesh.addresses("shop", "unasked");
  t.like(await mesh.act({ namespace: "shop", name: "unasked" }, "echo", server.v4, 7006, ""), { reply: v4 }, "and is of the mesh all the same");
});

test.serial("without its ztunnel a pod finds nothing, and everything again once it is back", async (t) => {
  const ztunnel = await mesh.ztunnelOf("shop", "client");
  const restarts = ztunnel.status?.containerStatuses?.[0]?.restartCount ?? 0;
  mesh.cluster.signal({ namespace: meshNamespace, name: ztunnel.metadata.name }, "SIGSTOP");
  t.regex((await mesh.act<Found>(client, "resolve", "A", "server.shop.svc.cluster.local")).error ?? "", /ETIMEOUT/, "and is not answered by anybody else");
  mesh.cluster.signal({ namespace: meshNamespace, name: ztunnel.metadata.name }, "SIGKILL");
  await eventually("a ztunnel that was started again", async () => {
    const now = await mesh.ztunnelOf("shop", "client");
    return (now.status?.containerStatuses?.[0]?.restartCount ?? 0) > restarts ? true : undefined;
  });
  const found = await eventually("answers", async () => {
    const answer = await lookup(client, "server");
    return answer.error === undefined ? answer : undefined;
  });
  t.is(found.addresses?.length, 2);
});
