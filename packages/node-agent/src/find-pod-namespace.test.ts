import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { currentNamespace, openNamespace, sameNamespace } from "@fairway/linux";
import test from "ava";
import { findPodNamespaces, podUidOf, startTimeOf } from "./find-pod-namespace.ts";
import { isKubelet, resolveProbeSource, userOf } from "./probe-source.ts";
import { isPolicyRuleListed, ownTables } from "./rules-apply.ts";
import { skipped, testDirectory, testNamespace } from "./test-namespaces.ts";

const uid = "6bdcb0d2-1c1d-4b4a-9d3b-0e6a1b1c2d3e";
const other = "11111111-2222-3333-4444-555555555555";

const cgroups: readonly (readonly [string, string, string | undefined])[] = [
  ["cgroupfs, version 2", `0::/kubepods/besteffort/pod${uid}/0123abcd`, uid],
  ["systemd, version 2", `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll("-", "_")}.slice/cri-containerd-ab.scope`, uid],
  ["version 1, many hierarchies", `12:pids:/kubepods/pod${uid}/x\n1:name=systemd:/kubepods/pod${uid}/x\n0::/`, uid],
  ["seen from another cgroup namespace", `0::/../../kubepods/besteffort/pod${uid}/x`, uid],
  ["a cluster inside a pod: the inner pod's", `0::/kubepods/pod${other}/docker/kubelet/kubepods/pod${uid}/x`, uid],
  ["a static pod, named by a hash", "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/x", "0123456789abcdef0123456789abcdef"],
  ["no pod", "0::/system.slice/kubelet.service", undefined],
  ["something that only looks like one", "0::/kubepods/podium/x", undefined],
  ["nothing", "", undefined],
];

for (const [title, cgroup, expected] of cgroups) {
  test(`the pod of a cgroup: ${title}`, (t) => {
    t.is(podUidOf(cgroup), expected);
  });
}

test("a start time is read past a command with spaces and parentheses", (t) => {
  const fields = ["S", ...Array.from({ length: 18 }, (_, index) => String(index)), "4711", "0"];
  t.is(startTimeOf(`12 (a) b (c)) ${fields.join(" ")}`), 4711);
  t.is(startTimeOf("12 (x) S 1 2"), undefined);
  t.is(startTimeOf(""), undefined);
});

test.serial("the namespace of a pod is that of its oldest process outside the node's own", async (t) => {
  if (skipped(t)) return;
  const [first, second] = [testNamespace(t), testNamespace(t)];
  using host = currentNamespace();
  const proc = await testDirectory(t);
  addProcess(proc, { pid: 10, uid, startedAt: 5, net: "/proc/self/ns/net" });
  addProcess(proc, { pid: 11, uid, startedAt: 900, net: second.path });
  addProcess(proc, { pid: 9, uid, startedAt: 40, net: first.path });
  addProcess(proc, { pid: 12, uid, startedAt: 1, net: "/nowhere" });
  addProcess(proc, { pid: 13, uid: other, startedAt: 1, net: second.path });
  mkdirSync(join(proc, "sys"));
  mkdirSync(join(proc, "99"));
  const found = findPodNamespaces(new Set([uid, "absent"]), { hostProc: proc, exclude: [host] });
  t.deepEqual([...found.keys()], [uid]);
  const namespace = found.get(uid);
  if (namespace === undefined) return t.fail();
  t.true(sameNamespace(namespace, first.namespace));
  namespace[Symbol.dispose]();
  using again = openNamespace(first.path);
  return t.true(sameNamespace(again, first.namespace));
});

test("a kubelet is known by its name, and by its words where the name is not enough", (t) => {
  t.true(isKubelet("kubelet", ""));
  t.true(isKubelet("k3s", ""));
  t.true(isKubelet("k3s-agent", ""));
  t.true(isKubelet("kubelite", "/snap/kubelite\0--start-kubelet=true"));
  t.false(isKubelet("kubelite", "/snap/kubelite\0--start-proxy"));
  t.false(isKubelet("kube-proxy", "kubelet"));
  t.is(userOf("Name:\tkubelet\nUid:\t1000\t1001\t1000\t1000\n"), 1001);
  t.is(userOf("Name:\tkubelet\n"), undefined);
});

test("the kubelet's user is found in /proc; where there is none it is root", async (t) => {
  const proc = await testDirectory(t);
  t.deepEqual(resolveProbeSource({ kind: "scan" }, proc), { kind: "user", uid: 0 });
  t.deepEqual(resolveProbeSource({ kind: "scan" }, join(proc, "absent")), { kind: "user", uid: 0 });
  mkdirSync(join(proc, "77"));
  writeFileSync(join(proc, "77/comm"), "kubelet\n");
  writeFileSync(join(proc, "77/status"), "Uid:\t0\t42\t0\t0\n");
  t.deepEqual(resolveProbeSource({ kind: "scan" }, proc), { kind: "user", uid: 42 });
  t.deepEqual(resolveProbeSource({ kind: "mark", mark: 7 }, proc), { kind: "mark", mark: 7 });
});

test("a policy rule is recognised whatever the tool calls its table", (t) => {
  const rule = { priority: 32_764, src: "all", fwmark: "0x111", fwmask: "0xfff", table: "100" };
  t.true(isPolicyRuleListed(JSON.stringify([{ priority: 0, table: "local" }, rule])));
  t.true(isPolicyRuleListed(JSON.stringify([{ ...rule, table: 100 }])));
  for (const wrong of [
    { ...rule, priority: 1 },
    { ...rule, table: "101" },
    { ...rule, fwmark: "0x1" },
  ])
    t.false(isPolicyRuleListed(JSON.stringify([wrong])));
  for (const odd of ["", "{}", "[null]", "[1]"]) t.false(isPolicyRuleListed(odd));
});

test("our tables are told from others in a ruleset", (t) => {
  const nat = "table inet istio-ambient-nat {\n\tchain a {\n\t\taccept\n\t}\n}";
  const tables = ownTables(`table inet theirs {\n\tchain a {\n\t}\n}\n${nat}\ntable inet istio-ambient-mangle {\n}\n`);
  t.deepEqual([...tables.keys()], ["istio-ambient-mangle", "istio-ambient-nat"]);
  t.is(tables.get("istio-ambient-nat"), nat);
});

function addProcess(proc: string, { pid, uid: pod, startedAt, net }: { pid: number; uid: string; startedAt: number; net: string }): void {
  const directory = join(proc, String(pid));
  mkdirSync(join(directory, "ns"), { recursive: true });
  writeFileSync(join(directory, "cgroup"), `0::/kubepods/besteffort/pod${pod}/x\n`);
  writeFileSync(join(directory, "stat"), `${pid} (x) S ${Array.from({ length: 18 }, () => 0).join(" ")} ${startedAt} 0\n`);
  symlinkSync(net, join(directory, "ns/net"));
}
