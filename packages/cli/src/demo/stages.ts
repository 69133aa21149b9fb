/** The story of the demo, one function a stage. Each claim is measured on the running cluster; none is assumed. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { KubeObject, ResourceType } from "@fairway/kube";
import { type Cluster, installed } from "@fairway/local-cluster";
import { eventually } from "../eventually.ts";
import { accessLines, allRolledOut, applyFile, meshNamespace, podsOnceEnrolled } from "./mesh.ts";
import type { Observations } from "./observation.ts";
import { type Answer, isReady, type Pod, pods, readyPod, requestFrom, requestsFrom, tally, visitorLines } from "./shop.ts";
import { type WireReport, watchWire } from "./wire.ts";

/** What every stage works with. */
export interface Stage {
  readonly cluster: Cluster;
  readonly observations: Observations;
  readonly note: (text: string) => void;
}

const namespaces: ResourceType = { group: "", version: "v1", plural: "namespaces", kind: "Namespace", namespaced: false };
const deployments: ResourceType<KubeObject & { spec: unknown }> = { group: "apps", version: "v1", plural: "deployments", kind: "Deployment", namespaced: true };
const modeLabel = "istio.io/dataplane-mode";
const requestCount = 10;
const loadEveryMs = 50;
/** How long traffic runs on after a change before the load is judged. */
const loadTailMs = 1_500;
const marker = "plaintext-marker-7f3a";
const shopUrl = `http://web:8080/${marker}`;

export async function withoutTheMesh({ cluster, observations }: Stage): Promise<void> {
  const stage = "1 without the mesh";
  let wire: WireReport | undefined;
  await observations.observe(stage, "the shop works", async () => {
    let answers: Answer[] = [];
    wire = await watchWire(cluster, await shopAddresses(cluster), marker, async () => {
      answers = await requestsFrom(cluster, "shop", shopUrl, requestCount);
    });
    return { observed: tally(answers, 200), holds: answers.every(({ status }) => status === 200) };
  });
  await observations.observe(stage, "between the nodes its traffic can be read", async () => ({
    observed: wireWords(wire),
    holds: wire !== undefined && wire.readable > 0 && wire.tunnelPackets === 0,
  }));
}

export async function enrolTheNamespace({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "2 enrolled";
  const before = await cluster.client.list(pods, { namespace: "shop" });
  const load = await visitorLines<Answer>(cluster, "shop", ["load", shopUrl, String(loadEveryMs)]);
  note(await label(cluster, "shop", "ambient"));
  const after = await podsOnceEnrolled(cluster, "shop", true);
  await pause(loadTailMs);
  await load.stop();

  await observations.observe(stage, "nothing restarted", async () => {
    const same = after.length === before.length && after.every((pod) => before.some(({ metadata }) => metadata.uid === pod.metadata.uid));
    const restarts = after.reduce((sum, pod) => sum + (pod.status?.containerStatuses?.[0]?.restartCount ?? 0), 0);
    return { observed: `${after.length} pods, ${same ? "the same as before" : "not the same as before"}, ${restarts} restarts`, holds: same && restarts === 0 };
  });
  await observations.observe(stage, "requests worked while the pods joined", async () => ({
    observed: `${tally(load.lines, 200)}${firstFailure(load.lines)}`,
    holds: load.lines.length > 0 && load.lines.every(({ status }) => status === 200),
  }));
  let answers: Answer[] = [];
  const wire = await watchWire(cluster, await shopAddresses(cluster), marker, async () => {
    answers = await requestsFrom(cluster, "shop", shopUrl, requestCount);
  });
  await observations.observe(stage, "the same requests work", async () => ({
    observed: tally(answers, 200),
    holds: answers.every(({ status }) => status === 200),
  }));
  await observations.observe(stage, "between the nodes there is only TLS to port 15008", async () => ({
    observed: wireWords(wire),
    holds: wire.tunnelBytes > 0 && nothingInTheClear(wire),
  }));
  await observations.observe(stage, "the api still sees web's own address", async () => {
    const web = await readyPod(cluster.client, "shop", "web");
    const seen = (JSON.parse(answers.at(-1)?.body ?? "{}") as { client?: string }).client;
    return {
      observed: `client ${seen}, web is ${web?.status?.podIP}`,
      holds: seen !== undefined && web?.status?.podIPs?.some(({ ip }) => ip === seen) === true,
    };
  });
  await observations.observe(stage, "both ztunnels log both identities", async () => {
    const lines = (await accessLines(cluster)).filter(
      ({ line }) => String(line["src.identity"]).endsWith("/sa/web") && String(line["dst.identity"]).endsWith("/sa/api"),
    );
    const nodes = new Set(lines.map(({ node, line }) => `${line.direction} on ${node}`));
    const [sample] = lines;
    return { observed: `${[...nodes].join(", ")}: ${sample?.line["src.identity"]} → ${sample?.line["dst.identity"]}`, holds: nodes.size === 2 };
  });
}

export async function policy({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "3 policy";
  note("apply examples/shop/strict.yaml: PeerAuthentication STRICT");
  await observations.observe(stage, "a caller outside the mesh is let in before STRICT", async () =>
    statusIs(await requestFrom(cluster, "outside", "http://api.shop:8080/"), 200),
  );
  await applyFile(cluster, "examples/shop/strict.yaml");
  await observations.observe(stage, "STRICT refuses the caller outside the mesh", async () => {
    const answer = await eventually("the refusal", async () => {
      const last = await requestFrom(cluster, "outside", "http://api.shop:8080/");
      return last.status === 0 ? last : undefined;
    });
    return { observed: `no answer: ${answer.error}`, holds: answer.status === 0 };
  });
  await observations.observe(stage, "STRICT lets the mesh's own callers in", async () => statusIs(await requestFrom(cluster, "shop", shopUrl), 200));

  const held = await visitorLines<{ event: string; at: number }>(cluster, "shop", ["hold", "api", "8080"]);
  await eventually("the visitor's held connection", async () => held.lines.find(({ event }) => event === "open"));
  await observations.observe(stage, "the visitor may call api before the policy", async () =>
    statusIs(await requestFrom(cluster, "shop", "http://api:8080/"), 200),
  );
  note("apply examples/shop/api-callers.yaml: ALLOW web only");
  const appliedAt = Date.now();
  await applyFile(cluster, "examples/shop/api-callers.yaml");
  await observations.observe(stage, "an open connection that the policy forbids is closed", async () => {
    const closed = await eventually("the close", async () => held.lines.find(({ event }) => event === "closed"));
    return { observed: `closed ${closed.at - appliedAt} ms after the policy was applied`, holds: closed.at >= appliedAt };
  });
  await held.stop();
  await observations.observe(stage, "the right caller passes", async () => statusIs(await requestFrom(cluster, "shop", shopUrl), 200));
  await observations.observe(stage, "the wrong caller is refused", async () => {
    const answer = await requestFrom(cluster, "shop", "http://api:8080/");
    return { observed: answer.status === 0 ? `no answer: ${answer.error}` : `answered ${answer.status}`, holds: answer.status === 0 };
  });
  await observations.observe(stage, "the denial names the policy and the caller", async () => {
    const denial = await eventually("the log line", async () =>
      (await accessLines(cluster)).find(
        ({ line }) => line.direction === "inbound" && String(line.error).includes("shop/api-callers") && String(line["src.identity"]).endsWith("/sa/visitor"),
      ),
    );
    return { observed: `${denial.line["src.identity"]}: ${denial.line.error}`, holds: true };
  });
}

export async function change({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "4 change";
  await rescheduleWeb(stage, { cluster, observations, note });
  await killZtunnel(stage, { cluster, observations, note });

  note(await label(cluster, "shop", undefined));
  await podsOnceEnrolled(cluster, "shop", false);
  await observations.observe(stage, "without the label the pods leave and traffic is plain again", async () => {
    let answers: Answer[] = [];
    const wire = await watchWire(cluster, await shopAddresses(cluster), marker, async () => {
      answers = await requestsFrom(cluster, "shop", shopUrl, requestCount);
    });
    return {
      observed: `${tally(answers, 200)}; ${wireWords(wire)}`,
      holds: answers.every(({ status }) => status === 200) && wire.otherPackets > 0 && wire.tunnelPackets === 0,
    };
  });
}

async function rescheduleWeb(stage: string, { cluster, observations, note }: Stage): Promise<void> {
  const old = await eventually("a ready web", () => readyPod(cluster.client, "shop", "web"));
  const target = cluster.nodes.find(({ name }) => name !== old.spec.nodeName)?.name;
  note(`move web from ${old.spec.nodeName} to ${target}`);
  const load = await visitorLines<Answer>(cluster, "shop", ["load", shopUrl, String(loadEveryMs)]);
  await cluster.client.mergePatch(deployments, "web", "shop", { spec: { template: { spec: { nodeSelector: { "kubernetes.io/hostname": target } } } } });
  const moved = await eventually("web on the other node", async () => {
    const pod = await readyPod(cluster.client, "shop", "web");
    return pod?.spec.nodeName === target ? pod : undefined;
  });
  const readyAt = Date.now();
  await pause(loadTailMs);
  await load.stop();
  await observations.observe(stage, "traffic follows a pod that moves to the other node", async () => {
    const since = load.lines.filter(({ at }) => at >= readyAt);
    return {
      observed: `${moved.metadata.name} on ${moved.spec.nodeName}: ${tally(since, 200)} since it is ready, ${tally(load.lines, 200)} in all${firstFailure(load.lines)}`,
      holds: since.length > 0 && since.every(({ status }) => status === 200),
    };
  });
}

async function killZtunnel(stage: string, { cluster, observations, note }: Stage): Promise<void> {
  const visitor = await eventually("a ready visitor", () => readyPod(cluster.client, "shop", "visitor"));
  const ztunnel = (await cluster.client.list(pods, { namespace: meshNamespace, labelSelector: "app=ztunnel" })).find(
    (pod) => pod.spec.nodeName === visitor.spec.nodeName,
  );
  if (ztunnel === undefined) throw new Error(`no ztunnel on ${visitor.spec.nodeName}`);
  const restarts = restartCount(ztunnel);
  note(`SIGKILL ${ztunnel.metadata.name} on ${visitor.spec.nodeName}`);
  const load = await visitorLines<Answer>(cluster, "shop", ["load", shopUrl, String(loadEveryMs)]);
  let killedAt = 0;
  let recovered: Answer | undefined;
  const wire = await watchWire(cluster, await shopAddresses(cluster), marker, async () => {
    await eventually("answers before the kill", async () => (load.lines.length > requestCount ? true : undefined));
    killedAt = Date.now();
    cluster.signal({ namespace: meshNamespace, name: ztunnel.metadata.name }, "SIGKILL");
    recovered = await eventually("answers after the restart", async () => {
      const lastFailure = load.lines.findLast(({ at, status }) => at >= killedAt && status !== 200);
      return lastFailure === undefined ? undefined : load.lines.find(({ at, status }) => at > lastFailure.at + recoveryQuietMs && status === 200);
    });
  });
  await load.stop();
  await observations.observe(stage, "a killed ztunnel lets nothing through in the clear", async () => {
    const failed = load.lines.filter(({ at, status }) => at >= killedAt && status !== 200).length;
    return { observed: `${failed} requests refused; ${wireWords(wire)}`, holds: failed > 0 && nothingInTheClear(wire) };
  });
  await observations.observe(stage, "it comes back by itself", async () => {
    const now = await cluster.client.get(pods, ztunnel.metadata.name, meshNamespace);
    return {
      observed: `answers again after ${(recovered?.at ?? 0) - killedAt} ms; restarts ${restarts} → ${restartCount(now)}`,
      holds: recovered !== undefined && isReady(now) && restartCount(now) > restarts,
    };
  });
  await allRolledOut(cluster, meshNamespace);
}

/** Failures further apart than this belong to different outages. */
const recoveryQuietMs = 500;

function restartCount(pod: Pod): number {
  return pod.status?.containerStatuses?.[0]?.restartCount ?? 0;
}

/** Labels a namespace as the user would: with kubectl where it is installed. Returns what was done, in words. */
async function label(cluster: Cluster, namespace: string, mode: string | undefined): Promise<string> {
  if (installed("kubectl")) {
    const args = ["--kubeconfig", cluster.kubeconfigPath, "label", "namespace", namespace, mode === undefined ? `${modeLabel}-` : `${modeLabel}=${mode}`];
    await promisify(execFile)("kubectl", args);
    return `kubectl ${args.slice(2).join(" ")}`;
  }
  await cluster.client.mergePatch(namespaces, namespace, undefined, { metadata: { labels: { [modeLabel]: mode ?? null } } });
  return `label ${namespace} ${modeLabel}=${mode ?? ""} (through the API: kubectl is not installed)`;
}

async function shopAddresses(cluster: Cluster): Promise<ReadonlySet<string>> {
  const found = await cluster.client.list(pods, { namespace: "shop" });
  return new Set(found.flatMap((pod) => pod.status?.podIPs?.map(({ ip }) => ip) ?? []));
}

function statusIs(answer: Answer, status: number): { observed: string; holds: boolean } {
  return { observed: answer.status === 0 ? `no answer: ${answer.error}` : `answered ${answer.status}`, holds: answer.status === status };
}

function wireWords(wire: WireReport | undefined): string {
  if (wire === undefined) return "nothing captured";
  return `${wire.readable} readable packets, ${wire.tunnelBytes} bytes on port 15008, ${wire.otherPackets} packets on other ports`;
}

function nothingInTheClear(wire: WireReport): boolean {
  return wire.readable === 0 && wire.otherPackets === 0 && wire.dropped === 0;
}

function firstFailure(answers: readonly Answer[]): string {
  const failure = answers.find(({ status }) => status !== 200);
  return failure === undefined ? "" : ` (first: ${failure.error ?? failure.status})`;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
