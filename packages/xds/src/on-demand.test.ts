/** A partial view against our own server, and against one that answers as the reference's does. */
import { networkId, parseCidr, parseIp, resolveOutbound, type Service, type ServiceKey, type Snapshot, serviceKey } from "@fairway/model";
import { addressTypeUrl } from "@fairway/protocol";
import { errorCode, silentLogger, systemClock } from "@fairway/runtime";
import test from "ava";
import { createXdsMeshView } from "./mesh-view.ts";
import { node, soon, start, until } from "./test-discovery.ts";
import { policy, policyNamed, policyResource, service, serviceResource, workload, workloadResource } from "./test-mesh.ts";
import { scripted } from "./test-scripted-server.ts";
import { accessTo } from "./test-server.ts";

const onDemand = { clusterId: "Kubernetes" };
const elsewhere = { node: "node-2" };
const empty = { systemVersionInfo: "", resources: [], removedResources: [], controlPlane: undefined };

test("nothing but policies comes unasked; a workload is found by its address, and followed", async (t) => {
  const mesh = await start(t);
  const a = workload("a", { ...elsewhere, addresses: [parseIp("10.1.0.1")] });
  mesh.addresses.update({ set: [workloadResource(a), workloadResource(workload("b", elsewhere))] });
  mesh.policies.update({ set: [policyResource(policy("p"))] });
  const view = mesh.connect({ onDemand });
  await view.synced.until(Boolean, soon());
  t.deepEqual(view.snapshot.policy(policyNamed("p")), policy("p"));
  await view.demand?.fetch(["/10.1.0.1"], soon());
  t.deepEqual(
    [...view.snapshot.workloads()].map(({ name }) => name),
    ["a"],
  );
  mesh.addresses.update({ set: [workloadResource({ ...a, serviceAccount: "other" })] });
  await until(view, (snapshot) => snapshot.workload(a.uid)?.serviceAccount === "other");
  mesh.addresses.update({ delete: [a.uid] });
  await until(view, (snapshot) => snapshot.workload(a.uid) === undefined);
});

test("a service brings all its endpoints, and those that come later", async (t) => {
  const mesh = await start(t);
  const web = service("web", "10.96.0.1");
  const key: ServiceKey = serviceKey(web.namespace, web.hostname);
  const endpoint = (name: string) => workload(name, { ...elsewhere, services: new Map([[key, []]]) });
  mesh.addresses.update({
    set: [serviceResource(web), workloadResource(endpoint("e1")), workloadResource(endpoint("e2")), workloadResource(workload("x", elsewhere))],
  });
  const view = mesh.connect({ onDemand });
  await view.demand?.fetch(["/10.96.0.1"], soon());
  t.deepEqual([...view.snapshot.endpoints(key)].map(({ name }) => name).toSorted(), ["e1", "e2"]);
  t.is(view.snapshot.workload(workload("x").uid), undefined);
  mesh.addresses.update({ set: [workloadResource(endpoint("e3"))], delete: [endpoint("e1").uid] });
  await until(view, (snapshot) => snapshot.workload(endpoint("e3").uid) !== undefined && snapshot.workload(endpoint("e1").uid) === undefined);
});

test("everybody who shares an address comes, and whose range holds it", async (t) => {
  const mesh = await start(t);
  const one = service("one", "10.96.0.1");
  const two = { ...service("two", "10.96.0.1"), namespace: "other" };
  const range = {
    ...service("range", "10.96.0.9"),
    vips: [],
    cidrVips: [{ network: one.vips[0]?.network ?? ("" as never), range: parseCidr("10.96.0.0/16") }],
  };
  mesh.addresses.update({ set: [one, two, range].map(serviceResource) });
  const view = mesh.connect({ onDemand });
  await view.demand?.fetch(["/10.96.0.1"], soon());
  t.deepEqual([...view.snapshot.services()].map(({ name }) => name).toSorted(), ["one", "range", "two"]);
  await view.demand?.fetch(["/10.96.7.7"], soon());
  t.is(view.snapshot.serviceByAddress("" as never, parseIp("10.96.7.7"), "default")?.name, "range");
});

test("an address that belongs to nobody is answered, and known when somebody gets it", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect({ onDemand });
  await view.demand?.fetch(["/10.1.0.7"], soon());
  t.is([...view.snapshot.workloads()].length, 0);
  const late = workload("late", { ...elsewhere, addresses: [parseIp("10.1.0.7")] });
  mesh.addresses.update({ set: [workloadResource(late)] });
  await until(view, (snapshot) => snapshot.workload(late.uid) !== undefined);
});

test("what was asked for is asked for again after a reconnect, found or not", async (t) => {
  const mesh = await start(t);
  const a = workload("a", { ...elsewhere, addresses: [parseIp("10.1.0.1")] });
  mesh.addresses.update({ set: [workloadResource(a)] });
  const view = mesh.connect({ onDemand });
  await view.demand?.fetch(["/10.1.0.1", "/10.1.0.2"], soon());
  const before = view.snapshot.workload(a.uid);
  await mesh.stop();
  const b = workload("b", { ...elsewhere, addresses: [parseIp("10.1.0.2")] });
  mesh.addresses.update({ set: [workloadResource(b)] });
  await mesh.restart();
  await until(view, (snapshot) => snapshot.workload(b.uid) !== undefined);
  t.is(view.snapshot.workload(a.uid), before, "the same object: it was not sent again");
  const again = { ...a, uid: "Kubernetes//Pod/default/again" as typeof a.uid };
  mesh.addresses.update({ delete: [a.uid] });
  mesh.addresses.update({ set: [workloadResource(again)] });
  await until(view, (snapshot) => snapshot.workload(again.uid) !== undefined);
});

test("names over the bound are unsubscribed and what came under them is dropped; this node's workloads and a local file's are kept", async (t) => {
  const mesh = await start(t);
  const workloads = Array.from({ length: 6 }, (_, index) => workload(`w${index}`, { ...elsewhere, addresses: [parseIp(`10.1.0.${index}`)] }));
  mesh.addresses.update({ set: [...workloads.map(workloadResource), workloadResource(workload("own", { addresses: [parseIp("10.1.0.100")] }))] });
  const view = mesh.connect({ onDemand: { ...onDemand, maxNames: 4 }, initial: { workloads: [workload("file", elsewhere)] } });
  await view.demand?.fetch(["/10.1.0.100"], soon());
  for (const index of workloads.keys()) await view.demand?.fetch([`/10.1.0.${index}`], soon());
  t.deepEqual([...view.snapshot.workloads()].map(({ name }) => name).toSorted(), ["file", "own", "w2", "w3", "w4", "w5"]);
  t.is(view.demand?.size, 4);
  const [gone] = workloads;
  if (gone === undefined) return t.fail();
  await view.demand?.fetch(["/10.1.0.0"], soon());
  t.deepEqual(view.snapshot.workload(gone.uid), gone, "it is sent again although this stream sent it before");
});

test("a pod of this node is asked for by its uid when somebody waits for it", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: [workloadResource(workload("a"))] });
  const view = mesh.connect({ onDemand });
  t.is([...view.snapshot.workloads()].length, 0);
  const found = await view.waitForWorkload({ namespace: "default", name: "a", serviceAccount: "default" }, { ...soon(), timeoutMs: 5_000 });
  t.is(found.uid, workload("a").uid);
});

test("the subscription is written as the reference writes it, and an answer under another name counts by its alias", async (t) => {
  const { target, requests } = await scripted(t, (stream, request) => {
    if (request.typeUrl !== addressTypeUrl || request.node !== undefined) return;
    const [asked] = request.resourceNamesSubscribe;
    if (asked !== "/10.9.0.1") return;
    // Named by its uid; the address that was asked for stands among the aliases only.
    const { name, body } = workloadResource(workload("a", { addresses: [parseIp("10.9.0.2")] }));
    const resource = { name, version: "1", resource: { typeUrl: addressTypeUrl, value: body }, aliases: [asked], ttl: undefined, cacheControl: undefined };
    stream.write({ ...empty, typeUrl: addressTypeUrl, nonce: "n", resources: [resource] });
  });
  const view = createXdsMeshView({ access: accessTo(target), node, nodeName: undefined, clock: systemClock, log: silentLogger, onDemand });
  t.teardown(() => view[Symbol.asyncDispose]());
  const first = await requests.find(({ typeUrl }) => typeUrl === addressTypeUrl);
  t.deepEqual(first.resourceNamesSubscribe, ["*"]);
  t.deepEqual(first.resourceNamesUnsubscribe, ["*"]);
  await view.demand?.fetch(["/10.9.0.1"], soon());
  t.is([...view.snapshot.workloads()].length, 1);
  const asking = await requests.find(({ resourceNamesSubscribe }) => resourceNamesSubscribe.includes("/10.9.0.1"));
  t.deepEqual([asking.resourceNamesSubscribe, asking.resourceNamesUnsubscribe, asking.responseNonce, asking.node], [["/10.9.0.1"], [], "", undefined]);
});

test("a resource that cannot be read fails whoever asked for it by its alias", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: [{ name: "c1//Pod/default/broken", body: Buffer.from("nonsense"), aliases: ["/10.1.0.1"] }] });
  const view = mesh.connect({ onDemand });
  t.is(errorCode(await t.throwsAsync(async () => view.demand?.fetch(["/10.1.0.1"], soon()))), "XDS_DEMAND_REFUSED");
});

test("while the control plane is away a question ends at its deadline and what is known is answered from memory", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: [workloadResource(workload("a", { ...elsewhere, addresses: [parseIp("10.1.0.1")] }))] });
  const view = mesh.connect({ onDemand: { ...onDemand, answerTimeoutMs: 1_500 } });
  await view.synced.until(Boolean, soon());
  await view.demand?.fetch(["/10.1.0.1"], soon());
  await mesh.stop();
  await t.notThrowsAsync(async () => view.demand?.fetch(["/10.1.0.1"], soon()));
  t.is(errorCode(await t.throwsAsync(async () => view.demand?.fetch(["/10.1.0.9"], soon()))), "XDS_DEMAND_TIMEOUT");
});

test("a decision is run until everything it looks at is known: the service, its waypoint, and the gateway before that", async (t) => {
  const mesh = await start(t);
  const gateway = (hostname: string) => ({ destination: { kind: "hostname" as const, namespace: "default", hostname }, hbonePort: 80 });
  const edge = service("edge", "10.96.0.3");
  const waypoint = service("waypoint", "10.96.0.2");
  const web = { ...service("web", "10.96.0.1"), waypoint: gateway(waypoint.hostname) };
  const memberOf = (of: Service) =>
    new Map([[serviceKey(of.namespace, of.hostname), [{ servicePort: 80, targetPort: 8080, appProtocol: "unknown" as const }]]]);
  const far = workload("far", { ...elsewhere, network: networkId("far"), networkGateway: gateway(edge.hostname), services: memberOf(waypoint) });
  const replica = workload("replica", { ...elsewhere, addresses: [parseIp("10.1.0.3")], services: memberOf(edge) });
  mesh.addresses.update({ set: [...[edge, waypoint, web].map(serviceResource), ...[far, replica].map(workloadResource)] });
  const view = mesh.connect({ onDemand });
  const source = workload("source", { addresses: [parseIp("10.1.0.9")] });
  let runs = 0;
  const route = await view.decide((snapshot) => {
    runs++;
    const context = { snapshot, network: networkId(""), random: () => 0, ownPorts: new Set<number>() };
    return resolveOutbound(context, source, { ip: parseIp("10.96.0.1"), port: 80 });
  }, soon());
  t.is(route.kind, "double-hbone");
  t.is(route.target.workload?.uid, replica.uid);
  t.true(runs > 3);
  const before = runs;
  await view.decide((snapshot) => snapshot.service(serviceKey(web.namespace, web.hostname)), soon());
  t.is(runs, before);
});

test("what is only for the labels is asked for, and not waited for", async (t) => {
  const { target, requests } = await scripted(t, () => undefined);
  const view = createXdsMeshView({ access: accessTo(target), node, nodeName: undefined, clock: systemClock, log: silentLogger, onDemand });
  t.teardown(() => view[Symbol.asyncDispose]());
  await requests.find(({ typeUrl }) => typeUrl === addressTypeUrl);
  const found = await view.decide((snapshot) => snapshot.workloadByAddress(networkId(""), parseIp("10.9.0.1")), { ...soon(), labels: true });
  t.is(found, undefined);
  await requests.find(({ resourceNamesSubscribe }) => resourceNamesSubscribe.includes("/10.9.0.1"));
});

test("labels refuse nobody when there are too many names, decisions do", async (t) => {
  const { target } = await scripted(t, () => undefined);
  const limits = { ...onDemand, maxNames: 1, answerTimeoutMs: 60_000 };
  const view = createXdsMeshView({ access: accessTo(target), node, nodeName: undefined, clock: systemClock, log: silentLogger, onDemand: limits });
  t.teardown(() => view[Symbol.asyncDispose]());
  const find = (ip: string) => (snapshot: Snapshot) => snapshot.workloadByAddress(networkId(""), parseIp(ip));
  const left = new AbortController();
  const waiting = t.throwsAsync(view.decide(find("10.9.0.1"), { signal: left.signal }), { message: "left" });
  t.is(await view.decide(find("10.9.0.2"), { ...soon(), labels: true }), undefined);
  t.is(errorCode(await t.throwsAsync(view.decide(find("10.9.0.2"), soon()))), "XDS_DEMAND_OVERLOADED");
  left.abort(new Error("left"));
  await waiting;
});

test("a hostname is looked for in the client's namespace and in its own", async (t) => {
  const mesh = await start(t);
  const other = { ...service("other", "10.96.0.5"), namespace: "shop", hostname: "other.shop.svc.cluster.local" };
  mesh.addresses.update({ set: [serviceResource(other)] });
  const view = mesh.connect({ onDemand });
  t.is((await view.decide((snapshot) => snapshot.serviceByHostname(other.hostname, "default"), soon()))?.name, "other");
});

test("a decision that never settles ends with an error", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect({ onDemand });
  let looked = 0;
  const endless = view.decide((snapshot) => snapshot.workloadByAddress(networkId(""), parseIp(`10.1.0.${looked++}`)), soon());
  t.is(errorCode(await t.throwsAsync(endless)), "XDS_DEMAND_UNSETTLED");
});
