import test from "ava";
import type { Container, Pod } from "../resources.ts";
import { containerEnvironment, type EnvironmentSources, expandArguments } from "./environment.ts";
import { expandVariables } from "./expansion.ts";
import { parseQuantity } from "./pod-field.ts";

const pod: Pod = {
  metadata: { name: "web-0", namespace: "shop", uid: "u-1", labels: { app: "web" }, annotations: { note: "a\nb" } },
  spec: { nodeName: "node-1", serviceAccountName: "seller", containers: [] },
};

const sources = (extra: Partial<EnvironmentSources> = {}): EnvironmentSources => ({
  pod,
  podIps: ["10.244.1.2", "fd00::2"],
  hostIps: ["172.30.0.11"],
  configMap: (name) => (name === "settings" ? { metadata: { name }, data: { colour: "green", size: "L" } } : undefined),
  secret: (name) => (name === "keys" ? { metadata: { name }, data: { key: Buffer.from("hush").toString("base64") } } : undefined),
  base: { PATH: "/bin" },
  ...extra,
});

const container = (env: NonNullable<Container["env"]>, extra: Partial<Container> = {}): Container => ({ name: "main", env, ...extra });

test("variables see the ones before them, unknown references stay, and a doubled dollar is one", (t) => {
  const env = containerEnvironment(
    container([
      { name: "A", value: "1" },
      { name: "B", value: "$(A)$(LATER)$$(A)$(" },
      { name: "LATER", value: "x" },
    ]),
    sources(),
  );
  t.deepEqual(env, { PATH: "/bin", A: "1", B: "1$(LATER)$(A)$(", LATER: "x" });
  t.deepEqual(expandArguments(["--b=$(B)", "$(NONE)"], env), ["--b=1$(LATER)$(A)$(", "$(NONE)"]);
  t.is(expandVariables("$(constructor)", {}), "$(constructor)");
});

test("fields of the pod are what the kubelet knows, before the API does", (t) => {
  const field = (fieldPath: string): string | undefined =>
    containerEnvironment(container([{ name: "X", valueFrom: { fieldRef: { fieldPath } } }]), sources())["X"];
  t.is(field("metadata.name"), "web-0");
  t.is(field("metadata.labels['app']"), "web");
  t.is(field("metadata.annotations"), 'note="a\\nb"');
  t.is(field("spec.serviceAccountName"), "seller");
  t.is(field("status.podIP"), "10.244.1.2");
  t.is(field("status.podIPs"), "10.244.1.2,fd00::2");
  t.is(field("status.hostIP"), "172.30.0.11");
  t.throws(() => field("spec.secrets"), { code: "LOCAL_CLUSTER_CONTAINER_CONFIG" });
});

test("ConfigMaps and Secrets give single values and whole sets, and what is absent is named", (t) => {
  const env = containerEnvironment(
    container(
      [
        { name: "KEY", valueFrom: { secretKeyRef: { name: "keys", key: "key" } } },
        { name: "MAYBE", valueFrom: { configMapKeyRef: { name: "none", key: "x", optional: true } } },
      ],
      { envFrom: [{ prefix: "S_", configMapRef: { name: "settings" } }, { secretRef: { name: "none", optional: true } }] },
    ),
    sources(),
  );
  t.deepEqual(env, { PATH: "/bin", S_colour: "green", S_size: "L", KEY: "hush" });
  const failing = (valueFrom: NonNullable<NonNullable<Container["env"]>[number]["valueFrom"]>): void =>
    void containerEnvironment(container([{ name: "X", valueFrom }]), sources());
  t.throws(() => failing({ configMapKeyRef: { name: "none", key: "x" } }), { message: 'configmap "none" not found' });
  t.throws(() => failing({ secretKeyRef: { name: "keys", key: "other" } }), { message: "couldn't find key other in secret keys" });
});

test("resources are divided and rounded up, and without a limit are the machine's", (t) => {
  const resource = (ref: { resource: string; divisor?: string }, limits?: Record<string, string>): string | undefined =>
    containerEnvironment(container([{ name: "X", valueFrom: { resourceFieldRef: ref } }], limits === undefined ? {} : { resources: { limits } }), sources())[
      "X"
    ];
  t.is(resource({ resource: "limits.cpu" }, { cpu: "1500m" }), "2");
  t.is(resource({ resource: "limits.cpu", divisor: "1m" }, { cpu: "1500m" }), "1500");
  t.is(resource({ resource: "limits.memory", divisor: "1Mi" }, { memory: "1Gi" }), "1024");
  t.is(resource({ resource: "requests.cpu" }), "0");
  t.true(Number(resource({ resource: "limits.cpu" })) >= 1);
});

test("quantities of every notation are understood and others are nothing", (t) => {
  for (const [text, value] of [
    ["1", 1],
    ["0.5", 0.5],
    ["100m", 0.1],
    ["2Ki", 2048],
    ["1e3", 1000],
    ["3M", 3e6],
    ["", 0],
    ["ten", 0],
    ["1Q", 0],
  ] as const)
    t.is(parseQuantity(text), value);
});
