/** The outbound decisions of ztunnel contract 5 through running pods: who is reached, as whom, and by which way. */
import type { Socket } from "node:net";
import { type GatewayAddress, networkId, parseCidr, parseIp, type Service, type Workload } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import { application, client, eventually, loopbackAddresses, readAll, service, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const vip = "10.96.0.1";
const none = networkId("");
const gateway = (ip: string): GatewayAddress => ({ destination: { kind: "address", network: none, ip: parseIp(ip) }, hbonePort: 15_008 });
const saying = (word: string) => (socket: Socket) => void socket.end(word);

interface Place {
  readonly name: string;
  readonly host: number;
  readonly is?: Partial<Workload>;
  /** Whether a ztunnel serves it. */
  readonly served?: boolean;
}

/** Pod a, and each place as an endpoint of `web`; each answers with its name. They share one port, as endpoints do. */
async function start(t: ExecutionContext, places: readonly Place[], balancing: Partial<Service> = {}, source: Partial<Workload> = {}) {
  const applications = [];
  let port = 0;
  for (const { name, host } of places) {
    const app = await application(t, at(host), saying(name), port);
    port = app.port;
    applications.push(app);
  }
  const endpoints = places.map(({ name, host, is = {} }) => workload(name, at(host), is));
  const web = service("web", vip, 80, port, endpoints);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1), source), ...web.workloads], services: [{ ...web.service, ...balancing }] } });
  for (const { name, host, is = {}, served = true } of places) if (served && is.tunnelProtocol !== "none") await mesh.pod(name, at(host));
  let destination = { ip: vip, port: 80 };
  const a = await mesh.pod("a", at(1), () => destination);
  /** What whoever is reached says, or how it failed. */
  const ask = async (to: { ip: string; port: number } = { ip: vip, port: 80 }): Promise<string> => {
    destination = to;
    try {
      return (await readAll((await client(t, at(1), a.port("outbound") ?? 0)).end())).toString();
    } catch {
      const failures = mesh.accessLines().filter((line) => line.includes('direction="outbound"') && line.includes("error="));
      return `refused: ${/error="([^"]*)"/.exec(failures.at(-1) ?? "")?.[1] ?? "?"}`;
    }
  };
  return { mesh, web, port, ask };
}

async function many(ask: () => Promise<string>, times = 8): Promise<string[]> {
  const answers = new Set<string>();
  for (let turn = 0; turn < times; turn++) answers.add(await ask());
  return [...answers].toSorted();
}

const here = { region: "r1", zone: "z1", subzone: "" };
const there = { region: "r2", zone: "z2", subzone: "" };
const one: Place = { name: "one", host: 2 };
const two: Place = { name: "two", host: 3 };

test.serial("every endpoint of a service is reached, those without capacity are not", async (t) => {
  const { ask } = await start(t, [one, two, { name: "three", host: 4, is: { capacity: 0 } }]);
  t.deepEqual(await many(ask, 24), ["one", "two"]);
});

test.serial("STRICT reaches only what is as near as it says", async (t) => {
  const loadBalancing = { routingPreference: ["region" as const], mode: "strict" as const, healthPolicy: "only-healthy" as const };
  const places = [
    { ...one, is: { locality: here } },
    { ...two, is: { locality: there } },
  ];
  t.deepEqual(await many((await start(t, places, { loadBalancing }, { locality: here })).ask), ["one"]);
});

test.serial("STRICT with nobody near refuses", async (t) => {
  const loadBalancing = { routingPreference: ["node" as const], mode: "strict" as const, healthPolicy: "only-healthy" as const };
  const { ask } = await start(t, [{ ...one, is: { node: "other" } }], { loadBalancing });
  t.regex(await ask(), /^refused: no healthy upstream/);
});

test.serial("FAILOVER prefers what is near, and goes on where nobody is", async (t) => {
  const loadBalancing = { routingPreference: ["region" as const, "zone" as const], mode: "failover" as const, healthPolicy: "only-healthy" as const };
  const places = [
    { ...one, is: { locality: here } },
    { ...two, is: { locality: there } },
  ];
  const { ask, mesh, web } = await start(t, places, { loadBalancing }, { locality: here });
  t.deepEqual(await many(ask), ["one"]);
  const [near] = web.workloads;
  if (near === undefined) return t.fail();
  mesh.mesh.apply({ workloads: [{ ...near, status: "unhealthy" }] });
  t.deepEqual(await many(ask), ["two"]);
});

test.serial("an endpoint that cannot be reached gives way to a farther one before the first byte", async (t) => {
  const loadBalancing = { routingPreference: ["region" as const], mode: "failover" as const, healthPolicy: "only-healthy" as const };
  const places = [
    { ...one, served: false, is: { locality: here } },
    { ...two, is: { locality: there } },
  ];
  const { ask, mesh } = await start(t, places, { loadBalancing }, { locality: here });
  t.is(await ask(), "two");
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_outbound_retries_total 1\n/);
});

test.serial("the unhealthy are not reached, unless the service wants them", async (t) => {
  const unhealthy = [{ ...one, is: { status: "unhealthy" as const } }];
  t.regex(await (await start(t, unhealthy)).ask(), /^refused: no healthy upstream/);
});

test.serial("publishNotReadyAddresses reaches the unhealthy", async (t) => {
  const loadBalancing = { routingPreference: [], mode: "unspecified" as const, healthPolicy: "allow-all" as const };
  t.is(await (await start(t, [{ ...one, is: { status: "unhealthy" } }], { loadBalancing })).ask(), "one");
});

test.serial("a range of addresses is a service, an exact address goes before it, the longer range before the shorter", async (t) => {
  const { ask, mesh, web, port } = await start(t, [one, two]);
  const [first, second] = web.workloads;
  if (first === undefined || second === undefined) return t.fail();
  const ports = [{ servicePort: 80, targetPort: port, appProtocol: "unknown" as const }];
  const ranged = (name: string, cidr: string): Service => ({
    ...service(name, vip, 80, port, []).service,
    vips: [],
    cidrVips: [{ network: none, range: parseCidr(cidr) }],
  });
  const member = (of: Workload, name: string): Workload => ({ ...of, services: new Map([[`default/${name}.default.svc.cluster.local` as never, ports]]) });
  mesh.mesh.apply({
    services: [ranged("wide", "10.96.0.0/16"), ranged("narrow", "10.96.7.0/24")],
    workloads: [member(first, "wide"), member(second, "narrow")],
  });
  t.is(await ask({ ip: "10.96.1.1", port: 80 }), "one");
  t.is(await ask({ ip: "10.96.7.1", port: 80 }), "two");
  t.regex(await ask(), /^refused: no healthy upstream: default\/web/, "the exact address, which has no endpoints left");
  t.regex(await ask({ ip: "10.96.7.1", port: 81 }), /^refused: no healthy upstream: default\/narrow/);
});

test.serial("a PASSTHROUGH service is reached where the client said, in plaintext and under its name", async (t) => {
  const loadBalancing = { routingPreference: [], mode: "passthrough" as const, healthPolicy: "allow-all" as const };
  const outside = await application(t, at(9), saying("outside"));
  const { ask, mesh } = await start(t, [one], { loadBalancing, vips: [{ network: none, ip: parseIp(at(9)) }] });
  t.is(await ask({ ip: at(9), port: outside.port }), "outside");
  await eventually(t, () => mesh.accessLines().some((line) => line.includes(`connection complete`) && line.includes(`dst.addr=${at(9)}:${outside.port}`)));
  const line = mesh.accessLines().find((candidate) => candidate.includes("connection complete")) ?? "";
  t.regex(line, /dst\.service="web\.default\.svc\.cluster\.local"/);
  t.notRegex(line, /hbone_addr|identity/);
});

test.serial("a set of weighted waypoints gets its shares, and nothing goes to one without weight", async (t) => {
  const { ask, mesh, web } = await start(t, [one, two, { name: "three", host: 4 }]);
  const weighted = (weights: readonly number[]): Service => ({
    ...web.service,
    waypoint: gateway(at(4)),
    weightedWaypoints: [2, 3].map((host, index) => ({ destination: gateway(at(host)), weight: weights[index] ?? 0 })),
  });
  // The waypoints answer what comes for the service themselves, which is what tells them apart here.
  mesh.mesh.apply({
    services: [weighted([1, 0])],
    workloads: web.workloads.map((each) => ({ ...each, applicationTunnel: { protocol: "none", port: undefined } })),
  });
  const chosen = async (): Promise<string> => {
    await ask();
    const line = mesh.accessLines().findLast((candidate) => /complete.*direction="outbound"/.test(candidate)) ?? "";
    return /dst\.workload="(\w+)"/.exec(line)?.[1] ?? line;
  };
  t.deepEqual(await many(chosen), ["one"]);
  mesh.mesh.apply({ services: [weighted([0, 1])] });
  t.deepEqual(await many(chosen), ["two"]);
  mesh.mesh.apply({ services: [weighted([1, 1])] });
  t.deepEqual(await many(chosen, 24), ["one", "two"]);
  mesh.mesh.apply({ services: [weighted([0, 0])] });
  t.deepEqual(await many(chosen), ["three"], "a set without any weight is none");
});

test.serial("of several workloads with one address a tunnelled pod owns it", async (t) => {
  const { ask, mesh, port } = await start(t, [one]);
  const stale = (uid: string, is: Partial<Workload>): Workload => ({ ...workload("stale", at(2), is), uid: uid as Workload["uid"] });
  mesh.mesh.apply({
    workloads: [
      stale("Kubernetes//Pod/default/aaa", { tunnelProtocol: "none" }),
      stale("Kubernetes/networking.istio.io/WorkloadEntry/default/aaa", { tunnelProtocol: "hbone", serviceAccount: "nobody" }),
      stale("Kubernetes/networking.istio.io/WorkloadEntry/default/aab", { tunnelProtocol: "none" }),
    ],
  });
  t.is(await ask({ ip: at(2), port }), "one");
  await eventually(t, () => mesh.accessLines().some((line) => /complete.*dst\.workload="one".*dst\.identity="[^"]*\/sa\/one".*outbound/.test(line)));
});

test.serial("a workload on the host's network is an endpoint, and nobody by its address", async (t) => {
  const { ask, mesh, port } = await start(t, [{ ...one, is: { networkMode: "host-network", tunnelProtocol: "none" } }]);
  t.is(await ask(), "one");
  t.is(await ask({ ip: at(2), port }), "one");
  await eventually(t, () => mesh.accessLines().filter((line) => line.includes("complete")).length === 2);
  const [byService = "", byAddress = ""] = mesh.accessLines().filter((line) => line.includes("complete"));
  t.regex(byService, /dst\.workload="one"/);
  t.notRegex(byAddress, /dst\.workload/);
});

test.serial("a workload that is known by name is resolved, dialled, and asked for by the address that was dialled", async (t) => {
  const { ask, mesh, web } = await start(t, [one]);
  Object.assign(mesh.parts, { ...mesh.parts, lookup: async (hostname: string) => (hostname === "one.example" ? [at(2)] : []) });
  const a = await mesh.pod("a", at(7), () => ({ ip: vip, port: 80 }));
  mesh.mesh.apply({
    workloads: [
      workload("one-by-address", at(2), { serviceAccount: "one", name: "one" }),
      ...web.workloads.map((each) => ({ ...each, addresses: [], hostname: "one.example" })),
    ],
  });
  t.is((await readAll((await client(t, at(7), a.port("outbound") ?? 0)).end())).toString(), "one");
  t.regex(await ask(), /^refused: /, "without a resolver that knows it");
  t.regex(
    await mesh.registry.metrics(),
    /istio_on_demand_dns_total\{source_workload="a",source_canonical_service="a",source_canonical_revision="v1",source_workload_namespace="default",source_principal="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a",source_app="a",source_version="v1",source_cluster="Kubernetes",hostname="one\.example"\} [1-9]/,
  );
});

for (const [what, port] of [
  ["15001", 15_001],
  ["15006", 15_006],
  ["15008", 15_008],
  ["15080", 15_080],
  ["15081", 15_081],
] as const) {
  test.serial(`a pod that calls its own mesh port ${what} on loopback is refused, not sent in a circle`, async (t) => {
    const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1))] } });
    const ports = { ...mesh.parts.config.ports, outbound: 15_001, plaintext: 15_006 };
    const a = await mesh.pod("a", at(1), () => ({ ip: "127.0.0.1", port }), ["outbound"], { ports });
    await t.throwsAsync(async () => readAll(await client(t, at(1), a.port("outbound") ?? 0)), { code: "ECONNRESET" });
    await eventually(t, () => mesh.accessLines().some((line) => line.includes("attempted recursive call to ourselves")));
  });
}
