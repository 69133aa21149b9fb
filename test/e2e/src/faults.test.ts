/** What keeps working, and what stays closed, while parts of the mesh are away. */

import type { KubeObject, ResourceType } from "@fairway/kube";
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, isReady, Mesh, meshNamespace, type Pod, pause, pods } from "./mesh.ts";

interface Attempt {
  readonly at: number;
  readonly ok: boolean;
  readonly error?: string;
}
interface Deployment extends KubeObject {
  spec: { replicas?: number };
}
const deployments: ResourceType<Deployment> = { group: "apps", version: "v1", plural: "deployments", kind: "Deployment", namespaced: true };

const client = { namespace: "shop", name: "client" };
const loadEveryMs = 50;
const outageMs = 60_000;
let mesh: Mesh;

test.before(async () => {
  mesh = await Mesh.raise("fa");
  await mesh.namespace("shop", { enrolled: true });
  await Promise.all([mesh.app({ namespace: "shop", name: "client", node: 1 }), mesh.app({ namespace: "shop", name: "server", node: 2 })]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

function failures(attempts: readonly Attempt[]): string[] {
  return attempts.filter(({ ok }) => !ok).map(({ error }) => error ?? "");
}

/** Runs load from the client while `during` happens; returns every attempt. */
async function underLoad(during: (attempts: readonly Attempt[]) => Promise<void>): Promise<readonly Attempt[]> {
  // By address: a lookup waits through an outage, and would hide it.
  const { v4 } = await mesh.serviceAddresses("shop", "server");
  const load = await mesh.start<Attempt>(client, "load", v4, 7000, loadEveryMs);
  try {
    await eventually("the load", async () => (load.lines.length >= 10 ? true : undefined));
    await during(load.lines);
  } finally {
    await load.stop();
  }
  return load.lines;
}

/** Counts application bytes that cross between the nodes in the clear. */
async function clearBytes(during: () => Promise<void>): Promise<number> {
  const addresses = new Set([...Object.values(await mesh.addresses("shop", "client")), ...Object.values(await mesh.addresses("shop", "server"))]);
  let bytes = 0;
  await using capture = mesh.cluster.capture("underlay", ({ protocol, source, destination, payload }) => {
    const tunnel = source.port === 15_008 || destination.port === 15_008;
    if (protocol === "tcp" && !tunnel && addresses.has(source.ip) && addresses.has(destination.ip)) bytes += payload.byteLength;
  });
  await during();
  if (capture.counts.dropped > 0) throw new Error("the capture lost packets: it proves nothing");
  return bytes;
}

test.serial("a ztunnel that is killed lets nothing through in the clear, and recovers by itself", async (t) => {
  const ztunnel = await mesh.ztunnelOf("shop", "client");
  const restarts = ztunnel.status?.containerStatuses?.[0]?.restartCount ?? 0;
  let killedAt = 0;
  let attempts: readonly Attempt[] = [];
  const clear = await clearBytes(async () => {
    attempts = await underLoad(async (seen) => {
      killedAt = Date.now();
      mesh.cluster.signal({ namespace: meshNamespace, name: ztunnel.metadata.name }, "SIGKILL");
      await eventually("a failure", async () => seen.find(({ at, ok }) => at >= killedAt && !ok));
      await eventually("recovery", async () => {
        const lastFailure = seen.findLast(({ ok }) => !ok)?.at ?? 0;
        return seen.filter(({ at, ok }) => ok && at > lastFailure).length >= 20 ? true : undefined;
      });
    });
  });
  t.is(clear, 0);
  t.true(failures(attempts).length > 0);
  const now = await mesh.cluster.client.get(pods, ztunnel.metadata.name, meshNamespace);
  t.true((now.status?.containerStatuses?.[0]?.restartCount ?? 0) > restarts);
});

test.serial("a node agent that restarts disturbs no connection and keeps its pods enrolled", async (t) => {
  const { spec } = await mesh.pod("shop", "client");
  const agentOf = async (): Promise<Pod | undefined> =>
    (await mesh.cluster.client.list(pods, { namespace: meshNamespace })).find(
      (pod) => pod.metadata.name.includes("node-agent") && pod.spec.nodeName === spec.nodeName,
    );
  const agent = await agentOf();
  if (agent === undefined) throw new Error("no node agent on the client's node");
  const stays = await mesh.start<{ event: string }>(client, "stay", "server", 7000, 50);
  const attempts = await underLoad(async () => {
    mesh.cluster.signal({ namespace: meshNamespace, name: agent.metadata.name }, "SIGKILL");
    await eventually("the agent's return", async () => {
      const now = await agentOf();
      return now !== undefined &&
        isReady(now) &&
        (now.status?.containerStatuses?.[0]?.restartCount ?? 0) > (agent.status?.containerStatuses?.[0]?.restartCount ?? 0)
        ? true
        : undefined;
    });
    await pause(2_000);
  });
  t.deepEqual(failures(attempts), []);
  t.false(stays.lines.some(({ event }) => event === "closed" || event === "error"));
  await stays.stop();
  t.is((await mesh.pod("shop", "client")).metadata.annotations?.["ambient.istio.io/redirection"], "enabled");
});

test.serial("a pod that leaves the mesh and comes back hangs nobody: what is open is served on or ends, and what is new works", async (t) => {
  await mesh.app({ namespace: "shop", name: "leaver", node: 2 });
  const { metadata } = await mesh.pod("shop", "leaver");
  const mode = (value: string | null): Promise<Pod> =>
    mesh.cluster.client.mergePatch(pods, metadata.name, "shop", { metadata: { labels: { "istio.io/dataplane-mode": value } } });
  const redirection = async (): Promise<string | undefined> =>
    (await mesh.cluster.client.get(pods, metadata.name, "shop")).metadata.annotations?.["ambient.istio.io/redirection"];
  const stays = await mesh.start<{ event: string; at: number }>(client, "stay", "leaver", 7000, 50);
  await eventually("an echo", async () => stays.lines.find(({ event }) => event === "echo"));
  await mode("none");
  await eventually("its leaving", async () => ((await redirection()) === undefined ? true : undefined));
  const leftAt = Date.now();
  await eventually("an echo after it left, or the end of the connection", async () =>
    stays.lines.find(({ event, at }) => event === "closed" || (event === "echo" && at > leftAt)),
  );
  await stays.stop();
  // The client's ztunnel hears of it a moment later than this test does.
  await eventually("an echo in the clear", async () => {
    const { reply } = await mesh.act(client, "echo", "leaver", 7000, "in the clear");
    return reply === "in the clear" ? true : undefined;
  });
  await mode(null);
  await eventually("its return", async () => ((await redirection()) === "enabled" ? true : undefined));
  t.like(await mesh.act(client, "echo", "leaver", 7000, "in the mesh again"), { reply: "in the mesh again" });
});

test.serial("the data plane does not notice that the controller is away for a minute", async (t) => {
  const stays = await mesh.start<{ event: string }>(client, "stay", "server", 7000, 100);
  const scale = (replicas: number): Promise<unknown> =>
    mesh.cluster.client.mergePatch(deployments, "fairway-controller", meshNamespace, { spec: { replicas } });
  const attempts = await underLoad(async () => {
    await scale(0);
    await eventually(
      "the controller's end",
      async () =>
        (await mesh.cluster.client.list(pods, { namespace: meshNamespace })).some(({ metadata }) => metadata.name.includes("controller")) ? undefined : true,
      outageMs,
    );
    await pause(outageMs);
    await scale(1);
    await eventually(
      "the controller's return",
      async () => (await mesh.cluster.client.list(pods, { namespace: meshNamespace })).find((pod) => pod.metadata.name.includes("controller") && isReady(pod)),
      outageMs,
    );
    await pause(2_000);
  });
  t.deepEqual(failures(attempts), []);
  // Half of what an idle machine sends in that time.
  t.true(attempts.length >= outageMs / loadEveryMs / 2, `${attempts.length} connections`);
  t.false(stays.lines.some(({ event }) => event === "closed" || event === "error"));
  await stays.stop();
});

test.serial("after the controller's return the mesh follows changes again", async (t) => {
  await mesh.apply([
    {
      apiVersion: "security.istio.io/v1",
      kind: "AuthorizationPolicy",
      metadata: { name: "nobody", namespace: "shop" },
      spec: { selector: { matchLabels: { app: "server" } }, action: "ALLOW" },
    },
  ]);
  const refused = await eventually("the refusal", async () => {
    const answer = await mesh.act<{ error?: string }>(client, "echo", "server", 7000, "x");
    return answer.error;
  });
  t.truthy(refused);
});
