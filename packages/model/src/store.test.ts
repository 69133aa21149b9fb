import test from "ava";
import fc from "fast-check";
import { type IpAddress, type NetworkId, networkId, parseIp } from "./address.ts";
import type { AuthorizationPolicy } from "./policy.ts";
import { aMesh, aPolicy, aService, aWorkload, keyOfService } from "./sample-mesh.ts";
import type { Service } from "./service.ts";
import type { Snapshot, SnapshotChange } from "./snapshot.ts";
import { applyChange, emptySnapshot } from "./store.ts";
import { type PolicyKey, policyKey, type ServiceKey, serviceKey, type Workload, type WorkloadUid } from "./workload.ts";

const local = networkId("");
const ip1 = parseIp("10.0.0.1");

test("overlapping claims to an address go to pods in the mesh, then pods, then others in the mesh, then the rest", (t) => {
  const other = (name: string) => `cluster1/networking.istio.io/WorkloadEntry/default/${name}` as WorkloadUid;
  const claims = [
    aWorkload("d", { ips: ["10.0.0.1"], uid: other("d"), tunnelProtocol: "none" }),
    aWorkload("c", { ips: ["10.0.0.1"], uid: other("c") }),
    aWorkload("b", { ips: ["10.0.0.1"], tunnelProtocol: "none" }),
    aWorkload("a", { ips: ["10.0.0.1"] }),
  ];
  let snapshot = aMesh({ workloads: claims });
  for (const expected of ["a", "b", "c", "d"]) {
    const owner = snapshot.workloadByAddress(local, ip1);
    t.is(owner?.name, expected);
    snapshot = applyChange(snapshot, { removedWorkloads: owner === undefined ? [] : [owner.uid] });
  }
  t.is(snapshot.workloadByAddress(local, ip1), undefined);
});

test("host-network workloads are never found by address and still are endpoints", (t) => {
  const agent = aWorkload("agent", { ips: ["10.0.0.1"], networkMode: "host-network", of: { "default/agent": { 80: 80 } } });
  const snapshot = aMesh({ workloads: [agent] });
  t.is(snapshot.workloadByAddress(local, ip1), undefined);
  t.deepEqual([...snapshot.endpoints(serviceKey("default", "agent"))], [agent]);
});

test("an address belongs to one network", (t) => {
  const remote = aWorkload("remote", { ips: ["10.0.0.1"], network: networkId("west") });
  const snapshot = aMesh({ workloads: [remote] });
  t.is(snapshot.workloadByAddress(local, ip1), undefined);
  t.is(snapshot.workloadByAddress(networkId("west"), ip1), remote);
});

test("endpoints may come before their service, unhealthy ones included", (t) => {
  const early = aWorkload("early", { of: { "default/web.default": { 80: 80 } }, status: "unhealthy" });
  const staged = aMesh({ workloads: [early] });
  const snapshot = applyChange(staged, { services: [aService("web")] });
  t.deepEqual([...snapshot.endpoints(serviceKey("default", "web.default"))], [early]);
});

test("a workload that changes leaves the addresses, services and nodes it had", (t) => {
  const before = aWorkload("pod", { ips: ["10.0.0.1", "10.0.0.2"], of: { "default/a": {}, "default/b": {} } });
  const after = aWorkload("pod", { ips: ["10.0.0.2", "10.0.0.3"], of: { "default/b": {}, "default/c": {} }, node: "node2" });
  const snapshot = applyChange(aMesh({ workloads: [before] }), { workloads: [after] });
  const found = (ip: string) => snapshot.workloadByAddress(local, parseIp(ip));
  t.deepEqual([found("10.0.0.1"), found("10.0.0.2"), found("10.0.0.3")], [undefined, after, after]);
  const endpoints = (host: string) => [...snapshot.endpoints(serviceKey("default", host))];
  t.deepEqual([endpoints("a"), endpoints("b"), endpoints("c")], [[], [after], [after]]);
  t.deepEqual([[...snapshot.workloadsOnNode("node1")], [...snapshot.workloadsOnNode("node2")]], [[], [after]]);
});

test("what is removed and sent again in one change stays", (t) => {
  const pod = aWorkload("pod", { ips: ["10.0.0.1"], of: { "default/a": {} } });
  const web = aService("web", { ip: ["10.1.0.1"] });
  const policy = aPolicy("p");
  const everything = { workloads: [pod], services: [web], policies: [policy] };
  const snapshot = applyChange(aMesh(everything), {
    ...everything,
    removedWorkloads: [pod.uid],
    removedServices: [keyOfService(web)],
    removedPolicies: [policyKey("default", "p")],
  });
  t.is(snapshot.workloadByAddress(local, ip1), pod);
  t.deepEqual([...snapshot.endpoints(serviceKey("default", "a"))], [pod]);
  t.is(snapshot.serviceByAddress(local, parseIp("10.1.0.1"), "x"), web);
  t.deepEqual(snapshot.policiesFor(pod).policies, [policy]);
});

test("a snapshot does not see what comes after it", (t) => {
  const before = aMesh({ workloads: [aWorkload("pod", { ips: ["10.0.0.1"] })], policies: [aPolicy("p")] });
  applyChange(before, { removedWorkloads: [aWorkload("pod").uid], removedPolicies: [policyKey("default", "p")] });
  t.is(before.workloadByAddress(local, ip1)?.name, "pod");
  t.is(before.policiesFor(aWorkload("pod")).policies.length, 1);
});

test("the pod that the node agent describes is found by name and service account, on its node", (t) => {
  const here = aWorkload("pod", { serviceAccount: "web", node: "node1" });
  const entry = aWorkload("pod", { serviceAccount: "web", node: "node1", uid: "a/networking.istio.io/WorkloadEntry/default/pod" as WorkloadUid });
  const snapshot = aMesh({ workloads: [entry, here, aWorkload("other")] });
  const pod = { namespace: "default", name: "pod", serviceAccount: "web" };
  t.is(snapshot.workloadByName(pod, "node1"), here);
  t.is(snapshot.workloadByName(pod, undefined), here);
  t.is(snapshot.workloadByName(pod, "node2"), undefined);
  t.is(snapshot.workloadByName({ ...pod, serviceAccount: "other" }, "node1"), undefined);
  t.is(snapshot.workloadByName({ ...pod, namespace: "elsewhere" }, "node1"), undefined);
});

test("a workload is found by its DNS name in its namespace", (t) => {
  const vm = aWorkload("vm", { hostname: "vm.example.com" });
  const snapshot = aMesh({ workloads: [vm, aWorkload("nameless")] });
  t.is(snapshot.workloadByHostname("default", "vm.example.com"), vm);
  t.is(snapshot.workloadByHostname("other", "vm.example.com"), undefined);
  t.is(snapshot.workloadByHostname("default", ""), undefined);
});

test("of several services at one virtual address the client's own namespace wins, then the canonical one", (t) => {
  const a = aService("a", { namespace: "a", ip: ["10.1.0.1"] });
  const b = aService("b", { namespace: "b", ip: ["10.1.0.1"], canonical: true });
  const c = aService("c", { namespace: "c", ip: ["10.1.0.1"] });
  const snapshot = aMesh({ services: [c, b, a] });
  const seenFrom = (namespace: string) => snapshot.serviceByAddress(local, parseIp("10.1.0.1"), namespace)?.name;
  t.deepEqual([seenFrom("a"), seenFrom("b"), seenFrom("c"), seenFrom("d")], ["a", "b", "c", "b"]);
  const without = applyChange(snapshot, { removedServices: [keyOfService(b)] });
  t.is(without.serviceByAddress(local, parseIp("10.1.0.1"), "d")?.name, "a");
});

test("a service that is visible to its namespace only is hidden by address, range and name", (t) => {
  const hidden = aService("hidden", { namespace: "a", ip: ["10.1.0.1"], ranges: ["10.2.0.0/16"], visibility: "namespace" });
  const fallback = aService("fallback", { namespace: "b", ranges: ["10.0.0.0/8"] });
  const snapshot = aMesh({ services: [hidden, fallback] });
  const seenFrom = (namespace: string) => [
    snapshot.serviceByAddress(local, parseIp("10.1.0.1"), namespace)?.name,
    snapshot.serviceByAddress(local, parseIp("10.2.0.9"), namespace)?.name,
    snapshot.serviceByHostname("hidden.a", namespace)?.name,
  ];
  t.deepEqual(seenFrom("a"), ["hidden", "hidden", "hidden"]);
  t.deepEqual(seenFrom("c"), ["fallback", "fallback", undefined]);
});

test("all services at an address are found, whoever sees them, exact ones before ranges", (t) => {
  const hidden = aService("hidden", { namespace: "a", ip: ["10.1.0.1"], visibility: "namespace" });
  const shared = aService("shared", { namespace: "b", ip: ["10.1.0.1"] });
  const narrow = aService("narrow", { namespace: "c", ranges: ["10.1.0.0/16"], visibility: "namespace" });
  const wide = aService("wide", { namespace: "d", ranges: ["10.0.0.0/8"] });
  const snapshot = aMesh({ services: [wide, narrow, shared, hidden] });
  const at = (ip: string, network = local) => [...snapshot.servicesAtAddress(network, parseIp(ip))].map(({ name }) => name);
  t.deepEqual(new Set(at("10.1.0.1").slice(0, 2)), new Set(["hidden", "shared"]));
  t.deepEqual(at("10.1.0.1").slice(2), ["narrow", "wide"]);
  t.deepEqual(at("10.9.9.9"), ["wide"]);
  t.deepEqual(at("11.0.0.1"), []);
  t.deepEqual(at("10.1.0.1", networkId("west")), []);
});

test("ranges are matched longest first, an exact address before any, and the client's namespace before length", (t) => {
  const wide = aService("wide", { namespace: "a", ranges: ["10.0.0.0/8", "fd00::/16"] });
  const narrow = aService("narrow", { namespace: "b", ranges: ["10.9.0.0/16"] });
  const exact = aService("exact", { namespace: "c", ip: ["10.9.9.9"] });
  const canonical = aService("canonical", { namespace: "d", ranges: ["10.9.200.77/16"], canonical: true });
  const snapshot = aMesh({ services: [wide, narrow, exact] });
  const at = (ip: string, namespace: string, mesh = snapshot) => mesh.serviceByAddress(local, parseIp(ip), namespace)?.name;
  t.is(at("10.8.0.1", "x"), "wide");
  t.is(at("10.9.0.1", "x"), "narrow");
  t.is(at("10.9.0.1", "a"), "wide");
  t.is(at("10.9.9.9", "a"), "exact");
  t.is(at("fd00:1::1", "x"), "wide");
  t.is(at("fd01::1", "x"), undefined);
  t.is(at("11.0.0.1", "x"), undefined);
  t.is(snapshot.serviceByAddress(networkId("west"), parseIp("10.9.0.1"), "x"), undefined);
  t.is(at("10.9.0.1", "x", applyChange(snapshot, { services: [canonical] })), "canonical");
  t.is(at("10.9.0.1", "x", applyChange(snapshot, { removedServices: [keyOfService(narrow)] })), "wide");
});

test("services are found by name, then by the wildcards over it that there are, the most specific one first", (t) => {
  const named = (hostname: string): Service => aService(hostname, { hostname });
  const hostnames = ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"];
  const all = aMesh({ services: [...hostnames.map(named), aService("other", { namespace: "other", hostname: "*.example.com" })] });
  const found = (snapshot: Snapshot, name: string): readonly [string, number][] =>
    [...snapshot.servicesNamed(name)].map(({ hostname, services }) => [hostname, [...services].length]);
  t.deepEqual(found(all, "a.b.example.com"), [
    ["a.b.example.com", 1],
    ["*.b.example.com", 1],
    ["*.example.com", 2],
    ["*.com", 1],
  ]);
  t.deepEqual(found(all, "*.example.com"), [
    ["*.example.com", 2],
    ["*.com", 1],
  ]);
  const fewer = applyChange(all, { removedServices: ["*.com", "*.example.com"].map((hostname) => serviceKey("default", hostname)) });
  t.deepEqual(found(fewer, "x.example.com"), [
    ["x.example.com", 0],
    ["*.example.com", 1],
  ]);
  const none = applyChange(fewer, {
    services: [aService("other", { namespace: "other", hostname: "elsewhere" })],
    removedServices: [serviceKey("other", "*.example.com")],
  });
  t.deepEqual(found(none, "x.example.com"), [["x.example.com", 0]]);
});

test("policies are found for the mesh, for a namespace, and by name; those named but not known are reported", (t) => {
  const global = aPolicy("global", {}, { namespace: "istio-system", scope: "global" });
  const own = aPolicy("own");
  const foreign = aPolicy("foreign", {}, { namespace: "other" });
  const selected = aPolicy("selected", {}, { scope: "workload-selector" });
  const snapshot = aMesh({ policies: [global, own, foreign, selected] });
  const names = (workload: Workload) => snapshot.policiesFor(workload).policies.map(({ name }) => name);
  t.deepEqual(names(aWorkload("plain")).sort(), ["global", "own"]);
  t.deepEqual(names(aWorkload("elsewhere", { namespace: "empty" })), ["global"]);
  const naming = aWorkload("naming", {
    authorizationPolicies: [policyKey("default", "selected"), policyKey("default", "own"), policyKey("default", "nowhere")],
  });
  t.deepEqual(names(naming).sort(), ["global", "own", "selected"]);
  t.deepEqual(snapshot.policiesFor(naming).missing, [policyKey("default", "nowhere")]);
  t.is(snapshot.policiesFor(naming), snapshot.policiesFor(naming));
  t.is(applyChange(snapshot, { workloads: [naming] }).policiesFor(naming), snapshot.policiesFor(naming));
});

test("a policy that changes its scope is found under the new one only", (t) => {
  const narrow = aPolicy("p", {}, { scope: "workload-selector" });
  const before = aMesh({ policies: [aPolicy("p")] });
  const after = applyChange(before, { policies: [narrow] });
  t.is(before.policiesFor(aWorkload("w")).policies.length, 1);
  t.deepEqual(after.policiesFor(aWorkload("w")).policies, []);
  t.is(after.policy(policyKey("default", "p")), narrow);
});

// The property: however a mesh came to be, it answers as one built at once from what is in it.

const ips = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1"];
const names = ["a", "b", "c"];
const networks = ["", "west"];
const nodes = ["", "node1", "node2"];

const someWorkload: fc.Arbitrary<Workload> = fc
  .record({
    name: fc.constantFrom(...names),
    kind: fc.constantFrom("/", "x/"),
    namespace: fc.constantFrom("ns1", "ns2"),
    ips: fc.subarray(ips),
    network: fc.constantFrom(...networks),
    node: fc.constantFrom(...nodes),
    hostname: fc.constantFrom("", "vm"),
    networkMode: fc.constantFrom<Workload["networkMode"]>("standard", "host-network"),
    tunnelProtocol: fc.constantFrom<Workload["tunnelProtocol"]>("none", "hbone"),
    serviceAccount: fc.constantFrom("default", "web"),
    of: fc.subarray(["ns1/a.ns1", "ns2/a.ns1", "ns1/b.ns1"]),
    policies: fc.subarray(["ns1/a", "ns2/b"]),
  })
  .map(({ name, kind, namespace, network, of, policies, ...fields }) =>
    aWorkload(name, {
      ...fields,
      namespace,
      uid: `c/${kind}Pod/${namespace}/${name}` as WorkloadUid,
      network: networkId(network),
      of: Object.fromEntries(of.map((key) => [key, { 80: 8080 }])),
      authorizationPolicies: policies.map((key) => key as PolicyKey),
    }),
  );

const someService: fc.Arbitrary<Service> = fc
  .record({
    name: fc.constantFrom("a", "b"),
    namespace: fc.constantFrom("ns1", "ns2"),
    ip: fc.subarray(ips),
    ranges: fc.subarray(["10.0.0.0/8", "10.0.0.0/24", "10.1.0.0/16", "fd00::/64", "0.0.0.0/0"]),
    canonical: fc.boolean(),
    visibility: fc.constantFrom<Service["visibility"]>("public", "namespace"),
  })
  .map(({ name, ...fields }) => aService(name, { ...fields, hostname: `${name}.ns1` }));

const somePolicy: fc.Arbitrary<AuthorizationPolicy> = fc
  .record({
    name: fc.constantFrom("a", "b"),
    namespace: fc.constantFrom("ns1", "ns2"),
    scope: fc.constantFrom<AuthorizationPolicy["scope"]>("global", "namespace", "workload-selector"),
  })
  .map(({ name, ...fields }) => aPolicy(name, {}, fields));

const someChange: fc.Arbitrary<SnapshotChange> = fc.record({
  workloads: fc.array(someWorkload, { maxLength: 5 }),
  services: fc.array(someService, { maxLength: 3 }),
  policies: fc.array(somePolicy, { maxLength: 3 }),
  removedWorkloads: fc.array(
    someWorkload.map(({ uid }) => uid),
    { maxLength: 3 },
  ),
  removedServices: fc.array(someService.map(keyOfService), { maxLength: 2 }),
  removedPolicies: fc.array(
    somePolicy.map(({ namespace, name }) => policyKey(namespace, name)),
    { maxLength: 2 },
  ),
});

test("any sequence of changes equals a snapshot built fresh from what is left", (t) => {
  fc.assert(
    fc.property(fc.array(someChange, { maxLength: 12 }), (changes) => {
      const workloads = new Map<WorkloadUid, Workload>();
      const services = new Map<ServiceKey, Service>();
      const policies = new Map<PolicyKey, AuthorizationPolicy>();
      let snapshot = emptySnapshot;
      for (const change of changes) {
        snapshot = applyChange(snapshot, change);
        for (const uid of change.removedWorkloads ?? []) workloads.delete(uid);
        for (const key of change.removedServices ?? []) services.delete(key);
        for (const key of change.removedPolicies ?? []) policies.delete(key);
        for (const workload of change.workloads ?? []) workloads.set(workload.uid, workload);
        for (const service of change.services ?? []) services.set(keyOfService(service), service);
        for (const policy of change.policies ?? []) policies.set(policyKey(policy.namespace, policy.name), policy);
      }
      const fresh = aMesh({ workloads: [...workloads.values()].reverse(), services: [...services.values()], policies: [...policies.values()] });
      const expected = answers(fresh);
      const actual = answers(snapshot);
      for (const [question, answer] of Object.entries(expected)) t.is(actual[question], answer, question);
      t.is([...snapshot.workloads()].length, workloads.size);
    }),
    { numRuns: 150 },
  );
});

test("a snapshot of another make is copied, not refused", (t) => {
  const mesh = aMesh({ workloads: [aWorkload("a", { ips: ["10.0.0.1"] })] });
  const foreign: Snapshot = {
    ...Object.fromEntries(["workload", "service", "policy"].map((name) => [name, () => undefined])),
    workloads: () => mesh.workloads(),
    services: () => [],
    policies: () => [],
  } as unknown as Snapshot;
  t.is(applyChange(foreign, {}).workloadByAddress(local, ip1)?.name, "a");
});

/** Every question a snapshot can be asked over the sample names, with a comparable answer. */
function answers(snapshot: Snapshot): Record<string, string> {
  const result: Record<string, string> = {};
  const some = (items: Iterable<{ name: string; namespace: string }>) =>
    [...items]
      .map((item) => JSON.stringify(item, (_, value: unknown) => (value instanceof Map ? [...value] : value)))
      .sort()
      .join();
  const one = (item: { name: string; namespace: string } | undefined) => some(item === undefined ? [] : [item]);
  const ranges = [...ips, "10.0.0.200", "192.168.0.1"].map(parseIp);
  result["all"] = some([...snapshot.workloads(), ...snapshot.services(), ...snapshot.policies()]);
  for (const [network, ip] of pairs<NetworkId, IpAddress>(networks.map(networkId), ranges)) {
    result[`workload ${network}/${ip}`] = one(snapshot.workloadByAddress(network, ip));
    result[`services ${network}/${ip}`] = some(snapshot.servicesAtAddress(network, ip));
    for (const namespace of ["ns1", "ns2", "ns3"]) result[`vip ${network}/${ip} from ${namespace}`] = one(snapshot.serviceByAddress(network, ip, namespace));
  }
  for (const [namespace, name] of pairs(["ns1", "ns2"], names)) {
    result[`host ${name} from ${namespace}`] = one(snapshot.serviceByHostname(`${name}.ns1`, namespace));
    result[`endpoints ${namespace}/${name}`] = some(snapshot.endpoints(serviceKey(namespace, `${name}.ns1`)));
    for (const [serviceAccount, node] of pairs(["default", "web"], [...nodes, undefined])) {
      result[`pod ${namespace}/${name}/${serviceAccount}@${node}`] = one(snapshot.workloadByName({ namespace, name, serviceAccount }, node));
    }
  }
  for (const namespace of ["ns1", "ns2"]) result[`vm ${namespace}`] = one(snapshot.workloadByHostname(namespace, "vm"));
  for (const node of nodes) result[`node ${node}`] = some(snapshot.workloadsOnNode(node));
  for (const workload of snapshot.workloads()) {
    const { policies, missing } = snapshot.policiesFor(workload);
    result[`policies ${workload.uid}`] = `${some(policies)} ${[...missing].sort().join()}`;
  }
  return result;
}

function pairs<A, B>(as: readonly A[], bs: readonly B[]): [A, B][] {
  return as.flatMap((a) => bs.map((b): [A, B] => [a, b]));
}
