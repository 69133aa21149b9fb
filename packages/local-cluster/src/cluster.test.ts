/** The cluster as its users see it: workloads, services, names, probes, logs, and that nothing remains. Needs root. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { missingPrivilege } from "./container/machine.ts";
import { processStartTime, readLedger } from "./ledger.ts";
import {
  configMaps,
  type Deployment,
  deployments,
  endpointSlices,
  jobs,
  type Pod,
  pods,
  type Service,
  type StatefulSet,
  services,
  statefulSets,
} from "./resources.ts";
import {
  eventMessages,
  eventually,
  idlePod,
  isReadyPod,
  nodeContainer,
  output,
  readyPods,
  startTestCluster,
  type TestCluster,
  urlOf,
  webServer,
} from "./test-cluster.ts";

const missing = missingPrivilege();
let running: TestCluster | undefined;

if (missing === undefined) {
  test.before(async () => {
    running = await startTestCluster("fwlc");
    await running.cluster.client.create(pods, idlePod("client"));
    await running.cluster.client.create(deployments, web("web", 2));
    await running.cluster.client.create(services, service("web"));
    await Promise.all([readyPods(running.cluster, "app=web", 2), readyPods(running.cluster, "app=client", 1)]);
  });
  test.after.always(async () => await running?.[Symbol.asyncDispose]());
}

function given(t: ExecutionContext): TestCluster | undefined {
  if (missing !== undefined) t.log(`SKIPPED: ${missing}`);
  if (running === undefined) t.pass();
  return running;
}

function web(name: string, replicas: number): Deployment {
  const readinessProbe = { httpGet: { path: "/healthz", port: "http" }, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1 };
  const env = [
    { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    { name: "VERSION", value: "1" },
  ];
  // As everywhere: a program that ends at once needs a moment for its endpoint to leave first.
  const lifecycle = { preStop: { sleep: { seconds: 3 } } };
  const container = nodeContainer(webServer, { ports: [{ name: "http", containerPort: 8080 }], env, readinessProbe, lifecycle });
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name, namespace: "default" },
    spec: { replicas, selector: { matchLabels: { app: name } }, template: { metadata: { labels: { app: name } }, spec: { containers: [container] } } },
  };
}

function service(name: string, spec: Partial<NonNullable<Service["spec"]>> = {}): Service {
  const dual = { ipFamilyPolicy: "RequireDualStack", selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: "http" }] };
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "default" }, spec: { ...dual, ...spec } };
}

test.serial("replicas are spread over the nodes and reach each other over both families with their own addresses", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const found = await readyPods(cluster, "app=web", 2);
  t.deepEqual(found.map(({ spec }) => spec.nodeName).sort(), ["node-1", "node-2"]);
  const client = await cluster.client.get(pods, "client", "default");
  for (const pod of found) {
    for (const [index, { ip }] of (pod.status?.podIPs ?? []).entries()) {
      t.is(await output(cluster, "client", "curl", "-sS", "-m", "20", urlOf(ip, 8080)), `${pod.metadata.name} ${client.status?.podIPs?.[index]?.ip} 1`);
    }
  }
});

test.serial("a service's addresses of both families reach all its pods, also from nodes; unknown ports are refused", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const { spec } = await cluster.client.get(services, "web", "default");
  t.is(spec?.clusterIPs?.length, 2);
  const names = (await readyPods(cluster, "app=web", 2)).map(({ metadata }) => metadata.name).sort();
  for (const ip of spec?.clusterIPs ?? []) {
    const answers = new Set<string>();
    for (let tries = 0; tries < 30 && answers.size < 2; tries += 1) {
      answers.add((await output(cluster, "client", "curl", "-sS", "-m", "20", urlOf(ip, 80))).split(" ")[0] ?? "");
    }
    t.deepEqual([...answers].sort(), names);
    t.regex(await output(cluster, "client", "curl", "-sS", "-m", "2", urlOf(ip, 81)), /Failed to connect|refused/i);
    const node = cluster.nodes[0]?.namespacePath ?? "";
    t.regex(execFileSync("nsenter", [`--net=${node}`, "curl", "-sS", "-m", "20", urlOf(ip, 80)], { encoding: "utf8" }), /^web-/);
  }
});

test.serial("a pod reaches itself through its own service", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  await cluster.client.create(deployments, web("alone", 1));
  const { spec } = await cluster.client.create(services, service("alone"));
  const [pod] = await readyPods(cluster, "app=alone", 1);
  for (const ip of spec?.clusterIPs ?? []) {
    const reached = await eventually(
      "itself",
      () => output(cluster, pod?.metadata.name ?? "", "curl", "-sS", "-m", "2", urlOf(ip, 80)),
      (text) => !text.startsWith("exit"),
    );
    t.is(reached.split(" ")[0], pod?.metadata.name);
  }
});

test.serial("names of services resolve to both families, headless ones to their pods, absent ones to nothing", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const { spec } = await cluster.client.get(services, "web", "default");
  const lookUp = (...argv: string[]): Promise<string> => output(cluster, "client", "getent", ...argv);
  for (const name of ["web", "web.default", "web.default.svc.cluster.local"]) t.regex(await lookUp("ahostsv4", name), new RegExp(`^${spec?.clusterIPs?.[0]} `));
  t.regex(await lookUp("ahostsv6", "web"), new RegExp(`^${spec?.clusterIPs?.[1]} `));
  t.regex(await lookUp("hosts", "absent.default.svc.cluster.local"), /^exit 2/);
  t.regex(await lookUp("hosts", "example.com"), /^exit 2/);
  await cluster.client.create(services, service("web-pods", { clusterIP: "None", selector: { app: "web" } }));
  const ips = (await readyPods(cluster, "app=web", 2)).map(({ status }) => status?.podIP ?? "").sort();
  const resolved = await eventually(
    "the pods' addresses",
    async () => [...new Set((await lookUp("ahostsv4", "web-pods")).split("\n").map((line) => line.split(" ")[0] ?? ""))].sort(),
    (found) => found.length === 2,
  );
  t.deepEqual(resolved, ips);
});

test.serial("a pod that says it is not ready leaves the service and comes back", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  await cluster.client.create(deployments, web("moody", 1));
  await cluster.client.create(services, service("moody"));
  const [pod] = await readyPods(cluster, "app=moody", 1);
  const ready = async (): Promise<boolean | undefined> =>
    (await cluster.client.list(endpointSlices, { namespace: "default", labelSelector: "kubernetes.io/service-name=moody" })).find(
      ({ addressType }) => addressType === "IPv4",
    )?.endpoints?.[0]?.conditions?.ready;
  t.true(await eventually("a ready endpoint", ready, (value) => value === true));
  await output(cluster, "client", "curl", "-sS", urlOf(pod?.status?.podIP ?? "", 8080, "/sick"));
  t.false(await eventually("an endpoint that is not ready", ready, (value) => value === false));
  const refused = await eventually(
    "a refusal",
    () => output(cluster, "client", "curl", "-sS", "-m", "2", "http://moody/"),
    (text) => text.startsWith("exit"),
  );
  t.regex(refused, /exit 7/);
});

test.serial("a container that fails its liveness probe is restarted, and its earlier log stays readable", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster, stateDir } = here;
  const probe = { httpGet: { path: "/healthz", port: 8080 }, periodSeconds: 1, timeoutSeconds: 10 };
  // A program that takes long to start is not sick.
  const probes = { startupProbe: { ...probe, failureThreshold: 60 }, livenessProbe: { ...probe, failureThreshold: 1 } };
  const pod = idlePod("frail", { containers: [nodeContainer(webServer, { ...probes, env: [{ name: "VERSION", value: "1" }] })] });
  const stored = await cluster.client.create(pods, pod);
  const [up] = await readyPods(cluster, "app=frail", 1);
  const reached = await eventually(
    "an answer",
    () => output(cluster, "client", "curl", "-sS", urlOf(up?.status?.podIP ?? "", 8080, "/sick")),
    (text) => !text.startsWith("exit"),
  );
  t.truthy(reached);
  const restarted = await eventually(
    "a restart",
    () => cluster.client.get(pods, "frail", "default"),
    (seen) => (seen.status?.containerStatuses?.[0]?.restartCount ?? 0) >= 1 && isReadyPod(seen),
  );
  t.is(restarted.status?.containerStatuses?.[0]?.lastState.terminated?.exitCode, 0);
  t.true((await eventMessages(cluster, "frail")).some((message) => message.startsWith("Killing: Container main failed liveness probe")));
  const logs = join(stateDir, "nodes", restarted.spec.nodeName ?? "", "root/var/log/pods", `default_frail_${stored.metadata.uid}`, "main");
  t.deepEqual(readdirSync(logs).sort(), ["0.log", "1.log"]);
  t.regex(readFileSync(join(logs, "0.log"), "utf8"), /^\S+Z stdout F version 1\n$/);
});

test.serial("a rollout replaces the pods without the service ever being without one", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  const before = (await readyPods(cluster, "app=web", 2)).map(({ metadata }) => metadata.name);
  const failures: string[] = [];
  const over = new AbortController();
  const asking = (async () => {
    while (!over.signal.aborted) {
      const answer = await output(cluster, "client", "curl", "-sS", "-m", "20", "http://web/");
      if (answer.startsWith("exit")) failures.push(answer);
    }
  })();
  const { spec } = await cluster.client.get(deployments, "web", "default");
  const [container] = spec.template.spec.containers;
  const env = (container?.env ?? []).map((variable) => (variable.name === "VERSION" ? { name: "VERSION", value: "2" } : variable));
  await cluster.client.mergePatch(deployments, "web", "default", { spec: { template: { spec: { containers: [{ ...container, env }] } } } });
  const rolled = await eventually(
    "the end of the rollout",
    () => cluster.client.get(deployments, "web", "default"),
    ({ status = {}, metadata }) =>
      status["observedGeneration"] === metadata.generation && status["updatedReplicas"] === 2 && status["replicas"] === 2 && status["availableReplicas"] === 2,
  );
  const after = await eventually(
    "only new pods",
    () => readyPods(cluster, "app=web", 2),
    (found) => found.every(({ metadata }) => !before.includes(metadata.name)),
  );
  over.abort();
  await asking;
  t.is(after.length, 2);
  t.is(rolled.metadata.annotations?.["deployment.kubernetes.io/revision"], "2");
  t.regex(await output(cluster, "client", "curl", "-sS", "http://web/"), / 2$/);
  t.deepEqual(failures, []);
});

test.serial("an image that stands for nothing is explained, and init containers run in order before the others", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  await cluster.client.create(pods, idlePod("unknown", { containers: [{ name: "main", image: "example.com/acme/thing:1" }] }));
  const waiting = await eventually(
    "the reason",
    async () => (await cluster.client.get(pods, "unknown", "default")).status?.containerStatuses?.[0]?.state.waiting,
    (state) => state?.reason === "ImagePullBackOff",
  );
  t.regex(waiting?.message ?? "", /image "example.com\/acme\/thing:1" stands for no command/);
  const step = (name: string, word: string): Pod["spec"]["containers"][number] => ({
    name,
    image: "busybox",
    command: ["sh", "-c", `echo ${word} >> /shared/steps; cat /shared/steps`],
    volumeMounts: [{ name: "shared", mountPath: "/shared" }],
  });
  const job: Pod = {
    ...idlePod("steps"),
    spec: {
      restartPolicy: "Never",
      initContainers: [step("first", "one"), step("second", "two")],
      containers: [step("main", "three")],
      volumes: [{ name: "shared", emptyDir: {} }],
    },
  };
  await cluster.client.create(pods, job);
  const done = await eventually(
    "its end",
    () => cluster.client.get(pods, "steps", "default"),
    ({ status }) => status?.phase === "Succeeded",
  );
  t.is(done.status?.containerStatuses?.[0]?.state.terminated?.reason, "Completed");
  const kubelet = join(here.stateDir, "nodes", done.spec.nodeName ?? "", "root/var/log/pods", `default_steps_${done.metadata.uid}`, "main/0.log");
  t.deepEqual(
    readFileSync(kubelet, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" ").at(-1)),
    ["one", "two", "three"],
  );
});

test.serial("configuration reaches a container as files and variables, and files follow their ConfigMap", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  await cluster.client.create(configMaps, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "settings", namespace: "default" },
    data: { colour: "green", "nested.txt": "deep" },
  });
  const base = idlePod("configured").spec.containers[0] ?? { name: "main" };
  await cluster.client.create(
    pods,
    idlePod("configured", {
      containers: [
        {
          ...base,
          env: [
            { name: "COLOUR", valueFrom: { configMapKeyRef: { name: "settings", key: "colour" } } },
            { name: "SENTENCE", value: "$(COLOUR) on $(NODE) costs $$(COLOUR)" },
            { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
            { name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
          ],
          volumeMounts: [
            { name: "settings", mountPath: "/etc/settings" },
            { name: "token", mountPath: "/var/run/secrets/tokens" },
          ],
          securityContext: { runAsUser: 1337, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        },
      ],
      volumes: [
        {
          name: "settings",
          configMap: {
            name: "settings",
            items: [
              { key: "colour", path: "colour" },
              { key: "nested.txt", path: "a/b.txt" },
            ],
          },
        },
        { name: "token", projected: { sources: [{ serviceAccountToken: { audience: "istio-ca", expirationSeconds: 3600, path: "istio-token" } }] } },
      ],
    }),
  );
  const [pod] = await readyPods(cluster, "app=configured", 1);
  // NODE is defined after SENTENCE: Kubernetes leaves a reference to a later variable as it is written.
  t.is(await output(cluster, "configured", "sh", "-c", 'echo "$SENTENCE"'), "green on $(NODE) costs $(COLOUR)");
  t.is(await output(cluster, "configured", "sh", "-c", "echo $NODE $IP $KUBERNETES_SERVICE_HOST"), `${pod?.spec.nodeName} ${pod?.status?.podIP} 10.96.0.1`);
  t.is(await output(cluster, "configured", "cat", "/etc/settings/colour", "/etc/settings/a/b.txt"), "greendeep");
  t.regex(await output(cluster, "configured", "cat", "/var/run/secrets/tokens/istio-token"), /^[\w-]+\.[\w-]+\.[\w-]+$/);
  t.is(await output(cluster, "configured", "id", "-u"), cluster.machine.changesUsers ? "1337" : "0");
  t.regex(await output(cluster, "configured", "sh", "-c", "touch /x"), /Read-only file system/);
  await cluster.client.mergePatch(configMaps, "settings", "default", { data: { colour: "blue" } });
  t.is(
    await eventually(
      "the new content",
      () => output(cluster, "configured", "cat", "/etc/settings/colour"),
      (text) => text === "blue",
    ),
    "blue",
  );
});

test.serial("a stateful set starts its pods in order under fixed names, and a job runs until it has succeeded", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster } = here;
  await cluster.client.create(services, service("store", { clusterIP: "None" }));
  const container = nodeContainer(webServer, {
    ports: [{ name: "http", containerPort: 8080 }],
    readinessProbe: { tcpSocket: { port: "http" }, periodSeconds: 1, timeoutSeconds: 5 },
  });
  const template = { metadata: { labels: { app: "store" } }, spec: { containers: [container] } };
  const set: StatefulSet = {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata: { name: "store", namespace: "default" },
    spec: { replicas: 2, serviceName: "store", selector: { matchLabels: { app: "store" } }, template },
  };
  await cluster.client.create(statefulSets, set);
  const members = await readyPods(cluster, "app=store", 2);
  t.deepEqual(members.map(({ metadata }) => metadata.name).sort(), ["store-0", "store-1"]);
  const began = (name: string): number => Date.parse(members.find(({ metadata }) => metadata.name === name)?.metadata.creationTimestamp ?? "");
  t.true(began("store-0") <= began("store-1"));
  const first = members.find(({ metadata }) => metadata.name === "store-0");
  const address = await eventually(
    "its name",
    () => output(cluster, "client", "getent", "ahostsv4", "store-0.store"),
    (text) => !text.startsWith("exit"),
  );
  t.is(address.split(" ")[0], first?.status?.podIP);
  const work = {
    containers: [{ name: "main", image: "busybox", command: ["sh", "-c", "[ -e /shared/tried ] || { touch /shared/tried; exit 1; }"] }],
    restartPolicy: "Never",
  };
  const spec = {
    ...work,
    containers: work.containers.map((one) => ({ ...one, volumeMounts: [{ name: "shared", mountPath: "/shared" }] })),
    volumes: [{ name: "shared", hostPath: { path: "/var/lib/tried" } }],
    nodeName: "node-1",
  };
  await cluster.client.create(jobs, {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: "work", namespace: "default" },
    spec: { template: { spec }, backoffLimit: 2 },
  });
  const done = await eventually(
    "the job's end",
    () => cluster.client.get(jobs, "work", "default"),
    ({ status }) => status?.conditions !== undefined,
  );
  t.like(done.status, { succeeded: 1, failed: 1 });
  t.is(done.status?.conditions?.[0]?.type, "Complete");
  await cluster.client.delete(statefulSets, "store", "default");
  await cluster.client.delete(jobs, "work", "default");
});

test.serial("what is deleted leaves no network namespace, and pods that were told to stop exit by themselves", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { cluster, stateDir } = here;
  const names = (await cluster.client.list(pods, { namespace: "default" })).map(({ metadata }) => metadata.name);
  for (const { metadata } of await cluster.client.list(deployments, { namespace: "default" }))
    await cluster.client.delete(deployments, metadata.name, "default");
  for (const name of names) await cluster.client.delete(pods, name, "default").catch(() => undefined);
  await eventually(
    "the last pod's end",
    () => cluster.client.list(pods, { namespace: "default" }),
    (left) => left.length === 0,
  );
  const left = (readLedger(stateDir)?.namespaces ?? []).filter((name) => name.includes("-pod-") && existsSync(`/run/netns/${name}`));
  // The cluster's DNS is the only pod left.
  t.is(left.length, 1);
});

test.serial("after the cluster is disposed nothing of it remains on the machine", async (t) => {
  const here = given(t);
  if (here === undefined) return;
  const { stateDir } = here;
  const content = readLedger(stateDir);
  t.true((content?.processes.length ?? 0) > 0);
  await here[Symbol.asyncDispose]();
  running = undefined;
  t.deepEqual(
    content?.namespaces.filter((name) => existsSync(`/run/netns/${name}`)),
    [],
  );
  t.deepEqual(content?.cgroups.filter(existsSync), []);
  t.deepEqual(
    content?.processes.filter(({ pid, startTime }) => processStartTime(pid) === startTime),
    [],
  );
  t.false(existsSync(stateDir));
});
