import test from "ava";
import { type PluginEntry, pluginType, primaryConfig, withoutPlugin, withPlugin } from "./cni-config.ts";

const entry: PluginEntry = {
  agentSocket: "/var/run/fairway-cni/agent.sock",
  agentNamespace: "fairway-system",
  agentPodPrefix: "fairway-node-agent-",
  excludeNamespaces: ["kube-system"],
};
const list = (...types: readonly string[]): string =>
  JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: types.map((type) => ({ type })), disableCheck: true });
const typesOf = (text: string | undefined): string[] => (JSON.parse(text ?? "{}") as { plugins: { type: string }[] }).plugins.map(({ type }) => type);

test("the first valid file by name is the one that counts", (t) => {
  const files = [
    { name: "20-b.conflist", text: list("bridge") },
    { name: "10-a.conflist", text: "not json" },
    { name: "05-x.conflist.tmp", text: list("bridge") },
    { name: "11-empty.conflist", text: JSON.stringify({ name: "x", plugins: [] }) },
    { name: "12-single.conf", text: JSON.stringify({ type: "ptp" }) },
  ];
  t.is(primaryConfig(files)?.name, "12-single.conf");
  t.is(primaryConfig(files.slice(0, 4))?.name, "20-b.conflist");
  t.is(primaryConfig([]), undefined);
});

test("our entry is added last, and all else stays as it was", (t) => {
  const chained = withPlugin({ name: "10.conflist", text: list("bridge", "portmap") }, entry);
  t.is(chained?.file.name, "10.conflist");
  t.is(chained?.replaces, undefined);
  t.deepEqual(typesOf(chained?.file.text), ["bridge", "portmap", pluginType]);
  const value = JSON.parse(chained?.file.text ?? "") as Record<string, unknown>;
  t.is(value["disableCheck"], true);
  t.like((value["plugins"] as unknown[]).at(-1), { type: pluginType, ...entry });
});

test("an entry that is right needs no change; one that is old, doubled or not last is put right", (t) => {
  const right = withPlugin({ name: "10.conflist", text: list("bridge") }, entry)?.file.text ?? "";
  t.is(withPlugin({ name: "10.conflist", text: right }, entry), undefined);
  const changed = withPlugin({ name: "10.conflist", text: right }, { ...entry, excludeNamespaces: [] });
  t.deepEqual(typesOf(changed?.file.text), ["bridge", pluginType]);
  for (const text of [list("bridge", pluginType, "portmap"), list(pluginType, "bridge", pluginType)]) {
    t.is(typesOf(withPlugin({ name: "10.conflist", text }, entry)?.file.text).filter((type) => type === pluginType).length, 1);
    t.is(typesOf(withPlugin({ name: "10.conflist", text }, entry)?.file.text).at(-1), pluginType);
  }
});

test("a single configuration becomes a list, in place of its file", (t) => {
  const chained = withPlugin({ name: "10-ptp.conf", text: JSON.stringify({ cniVersion: "0.3.1", name: "n", type: "ptp" }) }, entry);
  t.is(chained?.file.name, "10-ptp.conflist");
  t.is(chained?.replaces, "10-ptp.conf");
  t.like(JSON.parse(chained?.file.text ?? ""), { name: "k8s-pod-network", cniVersion: "0.3.1" });
  t.deepEqual(typesOf(chained?.file.text), ["ptp", pluginType]);
});

test("taking the entry out gives back the list, and leaves a file without it alone", (t) => {
  const chained = withPlugin({ name: "10.conflist", text: list("bridge") }, entry);
  if (chained === undefined) return t.fail();
  t.deepEqual(JSON.parse(withoutPlugin(chained.file)?.text ?? ""), JSON.parse(list("bridge")));
  return t.is(withoutPlugin({ name: "10.conflist", text: list("bridge") }), undefined);
});

test("no file makes it fail", (t) => {
  const texts = ["", "null", "[]", "1", '"x"', "{", '{"plugins":1}', '{"name":"a","plugins":[null]}', '{"name":"a","plugins":[{"type":1}]}', '{"type":null}'];
  for (const name of ["a.conf", "a.conflist", "a.json"]) {
    for (const text of texts) {
      t.is(primaryConfig([{ name, text }]), undefined, `${name} ${text}`);
      t.is(withPlugin({ name, text }, entry), undefined);
      t.is(withoutPlugin({ name, text }), undefined);
    }
  }
});
