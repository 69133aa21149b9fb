/** The pure decisions of the controllers, case by case. */
import test from "ava";
import type { EndpointSlice, NodeObject, Pod, Service } from "../resources.ts";
import { canonical, countOf, revisionHash, satisfies } from "./context.ts";
import { daemonStep } from "./daemonset.ts";
import { slicesOf } from "./endpoint-slices.ts";
import { fits } from "./node-fit.ts";
import { expendable } from "./replicaset.ts";
import { type RolloutSet, rolloutStep } from "./rollout-step.ts";
import { chooseNode } from "./scheduler.ts";

const pod = (
  name: string,
  extra: Partial<Pod["spec"]> = {},
  more: { labels?: Record<string, string>; ready?: boolean; owner?: string; ips?: string[]; deleted?: boolean } = {},
): Pod => ({
  metadata: {
    name,
    namespace: "shop",
    uid: name,
    ...(more.labels === undefined ? {} : { labels: more.labels }),
    ...(more.deleted === true ? { deletionTimestamp: "now" } : {}),
    ...(more.owner === undefined
      ? {}
      : { ownerReferences: [{ apiVersion: "apps/v1", kind: "ReplicaSet", name: more.owner, uid: more.owner, controller: true }] }),
  },
  spec: { containers: [], ...extra },
  status: {
    ...(more.ips?.[0] === undefined ? {} : { podIP: more.ips[0], podIPs: more.ips.map((ip) => ({ ip })) }),
    conditions: [{ type: "Ready", status: more.ready === true ? "True" : "False" }],
  },
});

/** Plays a rollout to its end: every pod asked for becomes available in the next round. */
function play(replicas: number, maxSurge: number, maxUnavailable: number): { most: number; fewest: number; rounds: number } {
  let current: RolloutSet = { name: "new", replicas: 0, available: 0 };
  let old: RolloutSet = { name: "old", replicas, available: replicas };
  let [most, fewest, rounds] = [replicas, replicas, 0];
  while ((current.available < replicas || old.replicas > 0) && rounds < 100) {
    const step = rolloutStep(current, old.replicas > 0 ? [old] : [], { replicas, maxSurge, maxUnavailable });
    const wanted = step.get("new") ?? current.replicas;
    const left = step.get("old") ?? old.replicas;
    most = Math.max(most, wanted + left);
    // Pods that go are gone at once, pods that come are available one round later.
    fewest = Math.min(fewest, Math.min(current.available, wanted) + left);
    current = { name: "new", replicas: wanted, available: wanted };
    old = { name: "old", replicas: left, available: left };
    rounds += 1;
  }
  return { most, fewest, rounds };
}

test("a rollout ends, and never has more or fewer pods than its limits allow", (t) => {
  for (const replicas of [1, 2, 3, 10]) {
    for (const maxSurge of [0, 1, 3]) {
      for (const maxUnavailable of [0, 1, 2]) {
        const { most, fewest, rounds } = play(replicas, maxSurge, maxUnavailable);
        const label = `${replicas} replicas, surge ${maxSurge}, unavailable ${maxUnavailable}`;
        t.true(rounds < 100, label);
        t.true(most <= replicas + maxSurge, label);
        t.true(fewest >= replicas - (maxSurge === 0 && maxUnavailable === 0 ? 1 : maxUnavailable), label);
      }
    }
  }
});

test("a new set whose pods do not become available holds the old one, and old pods that are broken go first", (t) => {
  const limits = { replicas: 4, maxSurge: 1, maxUnavailable: 0 };
  t.deepEqual([...rolloutStep({ name: "new", replicas: 1, available: 0 }, [{ name: "old", replicas: 4, available: 4 }], limits)], []);
  t.deepEqual([...rolloutStep({ name: "new", replicas: 1, available: 0 }, [{ name: "old", replicas: 5, available: 4 }], limits)], [["old", 4]]);
  t.deepEqual([...rolloutStep({ name: "new", replicas: 6, available: 6 }, [], limits)], [["new", 4]]);
});

test("the least missed pods go first", (t) => {
  const unscheduled = pod("unscheduled");
  const unready = pod("unready", { nodeName: "n" });
  const ready = pod("ready", { nodeName: "n" }, { ready: true });
  t.deepEqual(
    expendable([ready, unscheduled, unready]).map(({ metadata }) => metadata.name),
    ["unscheduled", "unready", "ready"],
  );
});

const labelled = (name: string, hash: string, ready: boolean): Pod => pod(name, {}, { labels: { "controller-revision-hash": hash }, ready });
const named = ({ create, remove }: ReturnType<typeof daemonStep>): [string[], string[]] => [create, remove.map(({ metadata }) => metadata.name)];

test("daemons come to empty nodes and are replaced one node at a time", (t) => {
  const one = { onDelete: false, maxSurge: 0, maxUnavailable: 1 };
  t.deepEqual(
    named(
      daemonStep(
        new Map([
          ["a", []],
          ["b", [labelled("b1", "x", true)]],
        ]),
        "x",
        one,
      ),
    ),
    [["a"], []],
  );
  const both = new Map([
    ["a", [labelled("a1", "x", true)]],
    ["b", [labelled("b1", "x", true)]],
  ]);
  t.deepEqual(named(daemonStep(both, "y", one)), [[], ["a1"]]);
  t.deepEqual(
    named(
      daemonStep(
        new Map([
          ["a", []],
          ["b", [labelled("b1", "x", true)]],
        ]),
        "y",
        one,
      ),
    ),
    [["a"], []],
  );
  t.deepEqual(named(daemonStep(both, "y", { ...one, onDelete: true })), [[], []]);
  t.deepEqual(named(daemonStep(new Map([["a", [labelled("a1", "x", false)]]]), "y", one)), [[], ["a1"]]);
});

test("with surge a daemon's successor is ready before it goes", (t) => {
  const surge = { onDelete: false, maxSurge: 1, maxUnavailable: 0 };
  const both = (first: Pod[]): Map<string, Pod[]> =>
    new Map([
      ["a", first],
      ["b", [labelled("b1", "x", true)]],
    ]);
  t.deepEqual(named(daemonStep(both([labelled("a1", "x", true)]), "y", surge)), [["a"], []]);
  t.deepEqual(named(daemonStep(both([labelled("a1", "x", true), labelled("a2", "y", false)]), "y", surge)), [[], []]);
  t.deepEqual(named(daemonStep(both([labelled("a1", "x", true), labelled("a2", "y", true)]), "y", surge)), [[], ["a1"]]);
});

const node = (name: string, labels: Record<string, string> = {}, unschedulable = false): NodeObject => ({
  metadata: { name, labels },
  spec: { unschedulable },
});

test("a pod goes where its kind is rarest, then where the fewest pods are, and only where it fits", (t) => {
  const nodes = [node("node-2"), node("node-10"), node("node-1", { disk: "ssd" }), node("node-0", {}, true)];
  t.is(chooseNode(pod("p"), nodes, []), "node-1");
  t.is(chooseNode(pod("p", { nodeSelector: { disk: "hdd" } }), nodes, []), undefined);
  const busy = [pod("x", { nodeName: "node-1" }, { owner: "rs" }), pod("y", { nodeName: "node-2" }), pod("z", { nodeName: "node-2" })];
  t.is(chooseNode(pod("p", {}, { owner: "rs" }), nodes.slice(0, 1).concat(nodes.slice(2, 3)), busy), "node-2");
  t.is(chooseNode(pod("p"), nodes.slice(0, 1).concat(nodes.slice(2, 3)), busy), "node-1");
});

test("anti-affinity keeps pods apart: preferred where it can, required always and both ways", (t) => {
  const nodes = [node("node-1", { "kubernetes.io/hostname": "node-1" }), node("node-2", { "kubernetes.io/hostname": "node-2" })];
  const term = { topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: { app: "web" } } };
  const preferring = { affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, podAffinityTerm: term }] } } };
  const requiring = { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } } };
  const web = pod("web", { nodeName: "node-2" }, { labels: { app: "web" } });
  const crowd = [web, pod("x", { nodeName: "node-1" }), pod("y", { nodeName: "node-1" })];
  t.is(chooseNode(pod("api"), nodes, crowd), "node-2");
  t.is(chooseNode(pod("api", preferring), nodes, crowd), "node-1");
  t.is(chooseNode(pod("api", preferring), nodes.slice(1), crowd), "node-2");
  t.is(chooseNode(pod("api", requiring), nodes.slice(1), crowd), undefined);
  t.is(chooseNode(pod("late", {}, { labels: { app: "web" } }), nodes.slice(1), [pod("api", { nodeName: "node-2", ...requiring })]), undefined);
});

test("node affinity is a choice of terms, each of which must hold as a whole", (t) => {
  const wanting = (nodeSelectorTerms: object[]): Pod["spec"] => ({
    containers: [],
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } } },
  });
  const ssd = { key: "disk", operator: "In", values: ["ssd"] };
  t.true(fits(node("a", { disk: "ssd" }), wanting([{ matchExpressions: [ssd] }])));
  t.false(fits(node("a", { disk: "ssd" }), wanting([{ matchExpressions: [ssd, { key: "gpu", operator: "Exists" }] }])));
  t.true(fits(node("a", { cpu: "9" }), wanting([{ matchExpressions: [ssd] }, { matchExpressions: [{ key: "cpu", operator: "Gt", values: ["8"] }] }])));
  t.true(fits(node("a"), wanting([{ matchFields: [{ key: "metadata.name", operator: "In", values: ["a"] }] }])));
  t.false(fits(node("a"), wanting([{}])));
});

const web: Service = {
  metadata: { name: "web", namespace: "shop", uid: "s" },
  spec: { selector: { app: "web" }, ipFamilies: ["IPv4", "IPv6"], clusterIP: "10.96.1.0", ports: [{ name: "http", port: 80, targetPort: "web" }] },
};
const webPod = (name: string, port: number, more: Parameters<typeof pod>[2]): Pod =>
  pod(name, { nodeName: "node-1", containers: [{ name: "main", ports: [{ name: "web", containerPort: port }] }] }, { labels: { app: "web" }, ...more });
const addresses = (slices: EndpointSlice[]): unknown[] =>
  slices.map(({ addressType, endpoints = [], ports = [] }) => [addressType, ports[0]?.port, endpoints.flatMap((endpoint) => endpoint.addresses)]);

test("a service has slices per family and per resolved port", (t) => {
  const pods = [webPod("a", 8080, { ready: true, ips: ["10.244.1.2", "fd00::2"] }), webPod("b", 9090, { ready: true, ips: ["10.244.1.3"] })];
  t.deepEqual(addresses(slicesOf(web, pods, () => "local-1")), [
    ["IPv4", 8080, ["10.244.1.2"]],
    ["IPv4", 9090, ["10.244.1.3"]],
    ["IPv6", 8080, ["fd00::2"]],
  ]);
  t.deepEqual(addresses(slicesOf(web, [], () => undefined)), [
    ["IPv4", undefined, []],
    ["IPv6", undefined, []],
  ]);
  t.deepEqual(
    slicesOf({ ...web, spec: {} }, pods, () => undefined),
    [],
  );
});

test("an endpoint is ready while its pod is, and no longer once the pod is told to end", (t) => {
  const conditions = (more: Parameters<typeof pod>[2], spec = {}): unknown =>
    slicesOf({ ...web, spec: { ...web.spec, ipFamilies: ["IPv4"], ...spec } }, [webPod("a", 1, { ips: ["10.244.1.2"], ...more })], () => undefined)[0]
      ?.endpoints?.[0]?.conditions;
  t.deepEqual(conditions({ ready: true }), { ready: true, serving: true, terminating: false });
  t.deepEqual(conditions({ ready: false }), { ready: false, serving: false, terminating: false });
  t.deepEqual(conditions({ ready: true, deleted: true }), { ready: false, serving: true, terminating: true });
  t.deepEqual(conditions({ ready: false }, { publishNotReadyAddresses: true }), { ready: true, serving: true, terminating: false });
});

test("counts may be shares, rounded as asked, and hashes do not depend on the order of keys", (t) => {
  t.is(countOf("25%", 10, 0, "up"), 3);
  t.is(countOf("25%", 10, 0, "down"), 2);
  t.is(countOf(undefined, 10, "50%", "up"), 5);
  t.is(countOf("nonsense", 10, 0, "up"), 0);
  t.is(canonical({ b: 1, a: [{ d: 1, c: 2 }] }), '{"a":[{"c":2,"d":1}],"b":1}');
  t.is(revisionHash({ a: 1, b: 2 }), revisionHash({ b: 2, a: 1 }));
  t.not(revisionHash({ a: 1 }), revisionHash({ a: 2 }));
});

test("a requirement compares as its operator says, and an operator it does not know is not met", (t) => {
  const met = (operator: string, values: string[], labels: Record<string, string>): boolean => satisfies({ key: "a", operator, values }, labels);
  t.deepEqual([met("In", ["1"], { a: "1" }), met("In", ["1"], {}), met("NotIn", ["1"], {}), met("NotIn", ["1"], { a: "1" })], [true, false, true, false]);
  t.deepEqual(
    [met("Exists", [], { a: "" }), met("DoesNotExist", [], { a: "" }), met("Lt", ["3"], { a: "2" }), met("Gt", ["3"], {})],
    [true, false, true, false],
  );
  t.false(met("Unheard", ["1"], { a: "1" }));
});
