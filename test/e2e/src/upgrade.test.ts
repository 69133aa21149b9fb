/** A new ztunnel takes over from an old one under load: no new connection fails, and open ones live until the drain deadline. */
import type { KubeObject, ResourceType } from "@fairway/kube";
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, isReady, Mesh, meshNamespace, type Pod, pods } from "./mesh.ts";

interface Attempt {
  readonly at: number;
  readonly ok: boolean;
  readonly error?: string;
}
interface Container {
  name: string;
  env?: { name: string; value?: string }[];
}
interface DaemonSet extends KubeObject {
  spec: { template: { metadata?: { annotations?: Record<string, string> }; spec: { terminationGracePeriodSeconds?: number; containers: Container[] } } };
}
const daemonSets: ResourceType<DaemonSet> = { group: "apps", version: "v1", plural: "daemonsets", kind: "DaemonSet", namespaced: true };

const client = { namespace: "shop", name: "client" };
const everyMs = 5;
const graceSeconds = 20;
/** 5 s of the grace period are for the rest of the shutdown. */
const drainMs = 15_000;
const rolloutTimeoutMs = 120_000;
let mesh: Mesh;

test.before(async () => {
  mesh = await Mesh.raise("up", (object) => {
    if (object.kind !== "DaemonSet" || object.metadata.name !== "ztunnel") return object;
    const daemonSet = structuredClone(object) as DaemonSet;
    const { spec } = daemonSet.spec.template;
    spec.terminationGracePeriodSeconds = graceSeconds;
    for (const { env = [] } of spec.containers)
      for (const variable of env) if (variable.name === "TERMINATION_GRACE_PERIOD_SECONDS") variable.value = String(graceSeconds);
    return daemonSet;
  });
  await mesh.namespace("shop", { enrolled: true });
  await Promise.all([mesh.app({ namespace: "shop", name: "client", node: 1 }), mesh.app({ namespace: "shop", name: "server", node: 2 })]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

async function ztunnels(): Promise<readonly Pod[]> {
  return mesh.cluster.client.list(pods, { namespace: meshNamespace, labelSelector: "app=ztunnel" });
}

interface Dump {
  readonly drain?: { readonly startedAt: string; readonly deadline: string; readonly connections: number };
}

test.serial("every ztunnel is replaced while 200 connections a second arrive, and none of them fails", async (t) => {
  const before = new Map((await ztunnels()).map((pod) => [pod.metadata.name, pod]));
  t.is(before.size, 2);
  // By address: 200 questions a second to DNS are another test.
  const { v4: server } = await mesh.serviceAddresses("shop", "server");
  const stay = await mesh.start<{ event: string; at: number; error?: string }>(client, "stay", server, 7000, 100);
  await eventually("the open connection", async () => (stay.lines.length >= 5 ? true : undefined));
  const load = await mesh.start<Attempt>(client, "load", server, 7000, everyMs);
  await eventually("the load", async () => (load.lines.length >= 400 ? true : undefined));
  t.deepEqual(
    load.lines.filter(({ ok }) => !ok),
    [],
    "this machine carries the load before anything is replaced",
  );

  const draining: Dump[] = [];
  const lines: string[] = [];
  const seenLeaving = new Set<string>();
  let firstLeft = 0;
  const restarted = { spec: { template: { metadata: { annotations: { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() } } } } };
  await mesh.cluster.client.mergePatch(daemonSets, "ztunnel", meshNamespace, restarted);
  await eventually(
    "the rollout",
    async () => {
      const now = await ztunnels();
      for (const pod of now) {
        const { name, deletionTimestamp } = pod.metadata;
        if (!before.has(name) || deletionTimestamp === undefined) continue;
        firstLeft ||= Date.now();
        if (seenLeaving.has(name)) continue;
        const dump = await mesh.admin(pod, 15_000, "/config_dump").catch(() => undefined);
        if (dump === undefined) continue;
        const parsed = JSON.parse(dump.body) as Dump;
        if (parsed.drain === undefined) continue;
        seenLeaving.add(name);
        draining.push(parsed);
        lines.push(
          ...(await eventually("its word of it", async () => {
            const said = await mesh.logLines(pod, "draining");
            return said.length > 0 ? said : undefined;
          })),
        );
      }
      return now.length === 2 && now.every((pod) => !before.has(pod.metadata.name) && isReady(pod)) ? true : undefined;
    },
    rolloutTimeoutMs,
  );
  await load.stop();
  await stay.stop();

  const failed = load.lines.filter(({ ok }) => !ok);
  t.log(`${load.lines.length} connections, ${failed.length} failed`);
  t.deepEqual(
    failed.map(({ at, error }) => `${at - firstLeft} ms after the first SIGTERM: ${error}`),
    [],
  );
  t.true(load.lines.length > (drainMs / everyMs) * 2 * 0.5, `only ${load.lines.length} connections arrived`);

  // What was open lived on with the old process, which said so, until its deadline.
  const ended = stay.lines.find(({ event }) => event === "closed" || event === "error");
  if (ended === undefined) return t.fail("the open connection outlived the process that carried it");
  const livedMs = ended.at - firstLeft;
  t.true(livedMs >= drainMs - 2_000 && livedMs <= drainMs + 10_000, `the open connection lived ${livedMs} ms after the first SIGTERM`);
  t.true(
    draining.some(({ drain }) => (drain?.connections ?? 0) >= 1),
    "no process that drained told of the open connection",
  );
  t.true(lines.some((line) => /connections[=:]/.test(line)));
});
