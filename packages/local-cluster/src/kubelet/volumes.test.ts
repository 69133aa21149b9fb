import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { writeAtomically } from "./atomic-directory.ts";
import { hostPathMounts, machinePath } from "./host-path.ts";
import { type FileSources, tokenWishes, volumeFiles } from "./projected-files.ts";

const file = (text: string, mode = 0o644): { content: Uint8Array; mode: number } => ({ content: Buffer.from(text), mode });

test("files of a volume change together, by one swapped link, and others can read them", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "fairway-volume-"));
  try {
    writeAtomically(
      directory,
      new Map([
        ["a", file("1")],
        ["sub/b", file("2", 0o600)],
      ]),
    );
    const first = readlinkSync(join(directory, "..data"));
    t.is(readFileSync(join(directory, "a"), "utf8"), "1");
    t.is(statSync(join(directory, "sub/b")).mode & 0o777, 0o600);
    t.is(statSync(join(directory, first)).mode & 0o777, 0o755);
    writeAtomically(directory, new Map([["a", file("3")]]));
    t.not(readlinkSync(join(directory, "..data")), first);
    t.is(readFileSync(join(directory, "a"), "utf8"), "3");
    t.deepEqual(
      readdirSync(directory)
        .filter((name) => !name.startsWith("..data-"))
        .sort(),
      ["..data", "a"],
    );
    t.false(existsSync(join(directory, first)));
    t.throws(() => writeAtomically(directory, new Map([["../x", file("")]])), { code: "LOCAL_CLUSTER_VOLUME_FAILED" });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

const sources: FileSources = {
  pod: { metadata: { name: "p", namespace: "shop", labels: { app: "web" } }, spec: { containers: [] } },
  podIps: [],
  hostIps: [],
  configMap: (name) => (name === "roots" ? { metadata: { name }, data: { "ca.crt": "CA" }, binaryData: { bin: "AAE=" } } : undefined),
  secret: (name) => (name === "keys" ? { metadata: { name }, data: { key: "aHVzaA==" } } : undefined),
  token: ({ audience }) => (audience === "istio-ca" ? "TOKEN" : undefined),
};
const texts = (files: ReadonlyMap<string, { content: Uint8Array }> | undefined): Record<string, string> =>
  Object.fromEntries([...(files ?? [])].map(([path, { content }]) => [path, Buffer.from(content).toString("latin1")]));

test("a projected volume gathers tokens, objects and fields of the pod", (t) => {
  const volume = {
    name: "v",
    projected: {
      sources: [
        { serviceAccountToken: { audience: "istio-ca", expirationSeconds: 43_200, path: "token" } },
        { configMap: { name: "roots", items: [{ key: "ca.crt", path: "tls/ca.pem" }] } },
        { secret: { name: "keys" } },
        { downwardAPI: { items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }] } },
        { configMap: { name: "absent", optional: true } },
      ],
    },
  };
  t.deepEqual(texts(volumeFiles(volume, sources)), { token: "TOKEN", "tls/ca.pem": "CA", key: "hush", labels: 'app="web"' });
  t.deepEqual(tokenWishes(volume), [{ audience: "istio-ca", expirationSeconds: 43_200 }]);
});

test("absent objects, keys and tokens are named, and binary data is bytes", (t) => {
  t.throws(() => volumeFiles({ name: "v", configMap: { name: "absent" } }, sources), { message: 'configmap "absent" not found' });
  t.throws(() => volumeFiles({ name: "v", secret: { secretName: "keys", items: [{ key: "x", path: "x" }] } }, sources), {
    message: 'secret "keys" has no key "x"',
  });
  t.throws(() => volumeFiles({ name: "v", projected: { sources: [{ serviceAccountToken: { path: "t" } }] } }, sources), {
    code: "LOCAL_CLUSTER_VOLUME_FAILED",
  });
  t.deepEqual(texts(volumeFiles({ name: "v", configMap: { name: "roots" } }, sources)), { "ca.crt": "CA", bin: "\u0000\u0001" });
  t.is(volumeFiles({ name: "v", emptyDir: {} }, sources), undefined);
});

test("a node's paths are below its own root, but the kernel's views and the namespace handles are the machine's", (t) => {
  t.is(machinePath("/state/root", "/var/run/ztunnel/"), "/state/root/run/ztunnel");
  t.is(machinePath("/state/root", "/opt/../etc/cni/net.d"), "/state/root/etc/cni/net.d");
  t.is(machinePath("/state/root", "/../../etc"), "/state/root/etc");
  for (const path of ["/proc", "/sys/fs/cgroup", "/dev", "/run/netns"]) t.is(machinePath("/state/root", path), path);
  t.is(machinePath("/state/root", "/var/run/netns"), "/run/netns");
});

test("mounts of a node's /run and /proc carry the handles and the node's first process with them", (t) => {
  const node = { root: "/r", initPid: 42 };
  const at = (path: string): [string, string][] =>
    hostPathMounts(node, path, { target: "/h", readOnly: true, kind: "directory" }).map(({ source, target }) => [source, target]);
  t.deepEqual(at("/var/run"), [
    ["/r/run", "/h"],
    ["/run/netns", "/h/netns"],
  ]);
  t.deepEqual(at("/proc"), [
    ["/proc", "/h"],
    ["/proc/42", "/h/1"],
  ]);
  t.deepEqual(at("/"), [
    ["/r", "/h"],
    ["/run/netns", "/h/run/netns"],
    ["/proc", "/h/proc"],
    ["/proc/42", "/h/proc/1"],
  ]);
  t.deepEqual(at("/run/netns"), [["/run/netns", "/h"]]);
  t.deepEqual(at("/etc"), [["/r/etc", "/h"]]);
});
