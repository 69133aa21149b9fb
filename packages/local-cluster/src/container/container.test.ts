/** Scripts, images, privileges, logs and the ledger: the parts of running a container that need no privileges. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import test from "ava";
import { containerCommand, findImage, imageName } from "../images.ts";
import { parseLedger } from "../ledger.ts";
import { parseConfiguration } from "../network/cni.ts";
import { ContainerLog, type ReadLogOptions, readLog } from "./log-file.ts";
import { privilegeArguments } from "./privileges.ts";
import { quote, type RootOptions, rootScript } from "./root-script.ts";

test("image references find their entry without registry, tag and digest", (t) => {
  for (const [reference, name] of [
    ["redis", "redis"],
    ["docker.io/library/redis:7.2@sha256:00", "redis"],
    ["localhost:5000/acme/app:1", "localhost:5000/acme/app"],
    ["node:24-alpine", "node"],
  ] as const) {
    t.is(imageName(reference), name);
  }
  const catalog = { "fairway/ztunnel": { command: ["zt"] } };
  t.deepEqual(findImage(catalog, "ghcr.io/acme/fairway/ztunnel:1")?.command, ["zt"]);
  t.is(findImage(catalog, "ghcr.io/acme/other"), undefined);
  t.is(findImage({}, "acme/redis"), undefined, "only the well-known image itself is the machine's program");
  t.deepEqual(findImage({ redis: { command: ["mine"] } }, "redis")?.command, ["mine"]);
});

test("command and arguments combine as Kubernetes combines image and container", (t) => {
  const image = { command: ["entry", "--on"], args: ["default"] };
  t.deepEqual(containerCommand(image, undefined, undefined), ["entry", "--on", "default"]);
  t.deepEqual(containerCommand(image, undefined, ["a"]), ["entry", "--on", "a"]);
  t.deepEqual(containerCommand(image, ["c"], undefined), ["c"]);
  t.deepEqual(containerCommand(image, ["c"], ["a"]), ["c", "a"]);
  t.deepEqual(containerCommand(undefined, ["c"], ["a"]), ["c", "a"]);
  t.is(containerCommand(undefined, undefined, ["a"]), undefined);
  t.deepEqual(containerCommand({ command: ["stand-in"], ignoreContainerCommand: true }, ["c"], ["a"]), ["stand-in"]);
});

test("users and capabilities become setpriv arguments, and privileged containers keep everything", (t) => {
  t.deepEqual(privilegeArguments({ privileged: true }, undefined), []);
  const words = privilegeArguments(
    { capabilities: { drop: ["ALL"], add: ["NET_ADMIN", "CAP_SYS_ADMIN"] }, allowPrivilegeEscalation: false },
    { runAsUser: 5, runAsGroup: 6, fsGroup: 7 },
  );
  t.deepEqual(words.slice(0, 5), ["setpriv", "--reuid=5", "--regid=6", "--groups=7", "--bounding-set=-all,+net_admin,+sys_admin"]);
  t.true(words.includes("--no-new-privs"));
  t.regex(privilegeArguments(undefined, undefined).join(" "), /\+dac_override.*\+net_bind_service/);
  t.notRegex(privilegeArguments({ capabilities: { drop: ["NET_RAW"], add: ["bad;name"] } }, undefined).join(" "), /net_raw|;/);
});

const options: RootOptions = {
  strategy: "overlay",
  workDir: "/state/work",
  hostname: "pod",
  mounts: [
    { source: "/state/b", target: "/a/b", kind: "directory", readOnly: true },
    { source: "/state/a", target: "/a", kind: "directory", readOnly: false },
    { source: "/state/f", target: "/etc/it's", kind: "file", readOnly: false },
  ],
  copies: [{ source: "/state/hosts", target: "/etc/hosts" }],
  readOnlyRoot: true,
  keep: ["/tmp/checkout", "/usr/lib/node"],
  hostPid: false,
  cgroupFile: "/sys/fs/cgroup/x/cgroup.procs",
  program: { argv: ["prog", "a b", "$(x)"], env: { A: "it's", B: "" }, workingDir: "/w", privileges: ["setpriv", "--"] },
  list: () => [],
};

test("a volume does not hide the program that runs", (t) => {
  const covering = { source: "/state/empty", target: "/tmp", kind: "directory", readOnly: false } as const;
  const script = rootScript({ ...options, mounts: [covering] });
  t.true(script.indexOf("mount --rbind /.host/state/empty /tmp\n") < script.indexOf("mount --rbind /.host/tmp/checkout /tmp/checkout\n"));
  const srv = rootScript({ ...options, keep: ["/srv/checkout"], mounts: [{ ...covering, target: "/srv" }] });
  t.true(srv.includes("mount --rbind /.host/srv/checkout /srv/checkout\n"));
});

test("the script mounts parents before children, pivots before it mounts, and quotes what people wrote", (t) => {
  const script = rootScript(options);
  const at = (text: string): number => {
    t.true(script.includes(text), `${text} is missing from\n${script}`);
    return script.indexOf(text);
  };
  t.true(at("pivot_root") < at("/.host/state/a "));
  t.true(at("/.host/state/a ") < at("/.host/state/b "));
  t.true(at("mount -o remount,bind,ro /a/b") < at("umount -l /.host"));
  t.true(at("umount -l /.host") < at("mount -o remount,bind,ro /\n"));
  at("mount --rbind /.host/tmp/checkout /tmp/checkout");
  t.false(script.includes("/.host/usr/lib/node"), "the root shows it already");
  t.true(script.endsWith(`exec env -i 'A=it'\\''s' B= setpriv -- prog 'a b' '$(x)'\n`), script);
  execFileSync("sh", ["-n"], { input: script });
});

test("without overlay every directory of the machine is bound read-only, and those on the way to a mount are made anew", (t) => {
  const tree: Record<string, { name: string; kind: "directory" | "file" | "symlink" }[]> = {
    "/": [
      { name: "usr", kind: "directory" },
      { name: "etc", kind: "directory" },
      { name: "bin", kind: "symlink" },
      { name: "proc", kind: "directory" },
    ],
    "/etc": [
      { name: "hosts", kind: "file" },
      { name: "passwd", kind: "file" },
    ],
  };
  const script = rootScript({ ...options, strategy: "bind", list: (directory) => tree[directory] ?? [] });
  t.true(script.includes("mount --rbind /usr /state/work/root/usr"));
  t.true(script.includes("cp -PR /bin /state/work/root/bin"));
  t.true(script.includes("mount --rbind /etc/passwd /state/work/root/etc/passwd"));
  t.false(script.includes("mount --rbind /etc /"));
  t.false(script.includes("mount --rbind /etc/hosts"));
  t.false(script.includes("mount --rbind /proc "));
  execFileSync("sh", ["-n"], { input: script });
});

test("in a user namespace a directory on the way to a mount is an overlay whose way the container owns, and links are not followed", (t) => {
  const tree: Record<string, { name: string; kind: "directory" | "file" | "symlink" }[]> = {
    "/": [
      { name: "usr", kind: "directory" },
      { name: "var", kind: "directory" },
    ],
    "/var": [
      { name: "lib", kind: "directory" },
      { name: "run", kind: "symlink" },
    ],
  };
  const mounts = ["/var/lib/data", "/var/run/secrets"].map((target) => ({ source: "/state/a", target, kind: "directory" as const, readOnly: false }));
  const script = rootScript({ ...options, mounts, copies: [], strategy: "layers", hostPid: true, list: (directory) => tree[directory] ?? [] });
  t.true(script.includes("mount --rbind /usr /state/work/root/usr"));
  t.true(script.includes("mkdir -p /state/work/upper/var /state/work/upper/var/lib /state/work/work/var\n"), script);
  t.regex(script, /if ! mount -t overlay overlay -o userxattr,lowerdir=\/var,.* \/state\/work\/root\/var /);
  t.true(script.includes("|| mount --rbind /.host/proc /proc"), "the machine's own /proc where another cannot be made");
  execFileSync("sh", ["-n"], { input: script });
});

test("a quoted word reaches the program as it was", (t) => {
  for (const word of ["", "a", "it's", '"$x"`y`\\', "a\nb", "-n", "~", "*"])
    t.is(execFileSync("sh", ["-c", `printf %s ${quote(word)}`], { encoding: "utf8" }), word);
});

test("a log keeps lines with time and stream, gives back the last ones, and follows to the end", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "fairway-log-"));
  try {
    const now = (): number => Date.UTC(2026, 0, 2, 3, 4, 5);
    const log = new ContainerLog(join(directory, "0.log"), now);
    const out = new PassThrough();
    const error = new PassThrough();
    log.attach(out, "stdout");
    log.attach(error, "stderr");
    const read = async (wanted: Partial<ReadLogOptions>): Promise<string> => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of readLog(log.path, log, { follow: false, timestamps: false, ...wanted }, now, AbortSignal.timeout(5_000))) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    };
    out.write("one\ntw");
    const followed = read({ follow: true });
    out.write("o\n");
    error.end("bad");
    out.end("three");
    t.is(await followed, "one\ntwo\nbad\nthree\n");
    t.is(await read({ tailLines: 2 }), "bad\nthree\n");
    t.is(await read({ tailLines: 0 }), "");
    t.is(await read({ limitBytes: 5 }), "one\nt");
    t.is(await read({ timestamps: true, tailLines: 1 }), "2026-01-02T03:04:05.000000000Z three\n");
    t.is(readFileSync(log.path, "utf8").split("\n")[0], "2026-01-02T03:04:05.000000000Z stdout F one");
    t.false(log.live);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("a ledger gives back what it says and skips what it cannot mean", (t) => {
  const lines = [
    '{"kind":"owner","pid":10,"startTime":"5"}',
    '{"kind":"process","pid":11,"startTime":"6"}',
    '{"kind":"process","pid":1,"startTime":"6"}',
    '{"kind":"process","pid":"12","startTime":"6"}',
    '{"kind":"namespace","name":"fw-node-1"}',
    '{"kind":"namespace","name":"fw-node-1"}',
    '{"kind":"namespace","name":"../../etc"}',
    '{"kind":"cgroup","path":"/sys/fs/cgroup/fairway-x"}',
    '{"kind":"cgroup","path":"/sys/fs/cgroup/../../etc"}',
    '{"kind":"cgroup","path":"/home"}',
    "null",
    '{"kind":"namespace","na',
  ];
  t.deepEqual(parseLedger(lines.join("\n")), {
    owner: { kind: "owner", pid: 10, startTime: "5" },
    processes: [{ kind: "process", pid: 11, startTime: "6" }],
    namespaces: ["fw-node-1"],
    cgroups: ["/sys/fs/cgroup/fairway-x"],
  } as unknown as ReturnType<typeof parseLedger>);
});

test("a network configuration is a list of plugins or one plugin, and nothing else", (t) => {
  t.deepEqual(parseConfiguration('{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"b","x":1}]}'), {
    name: "n",
    cniVersion: "1.0.0",
    plugins: [{ type: "a" }, { type: "b", x: 1 }],
  });
  t.is(parseConfiguration('{"name":"n","type":"a"}')?.plugins.length, 1);
  for (const text of [
    "",
    "null",
    "[]",
    "{",
    '{"name":"n"}',
    '{"name":"n","plugins":[]}',
    '{"name":"n","plugins":[{"type":"a"},{}]}',
    '{"name":"n","plugins":[{"type":"../x"}]}',
    '{"plugins":[{"type":"a"}]}',
  ]) {
    t.is(parseConfiguration(text), undefined, text);
  }
});
