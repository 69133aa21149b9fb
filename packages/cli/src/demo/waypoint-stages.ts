/** The second half of the walk: opting into waypoints, and what they govern. The visitor and the orders are in `examples/shop/orders.yaml`. */
import { type KubeObject, type ResourceType, resources } from "@fairway/kube";
import { type Cluster, visitorCommand } from "@fairway/local-cluster";
import { MeshError } from "@fairway/runtime";
import { eventually } from "../eventually.ts";
import { apply, type Output } from "../waypoint/actions.ts";
import { allRolledOut, applyFile, podsOnceEnrolled } from "./mesh.ts";
import { type Answer, type Pod, pods, readyPod } from "./shop.ts";
import type { Stage } from "./stages.ts";

const namespace = "orders";
const orders = "http://orders:8080";
const canaryRequests = 2_000;
/** Five standard deviations of a 90/10 split over that many requests. */
const canaryTolerance = 67;
const retriedRequests = 60;
const streamed = 200;
const proxylessCalls = 300;

export async function waypointByNamespace({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "5 waypoint";
  await applyFile(cluster, "examples/shop/orders.yaml");
  await allRolledOut(cluster, namespace);
  await podsOnceEnrolled(cluster, namespace, true);
  await observations.observe(stage, "without a waypoint requests reach the pods directly", async () =>
    throughWaypoint(await get(cluster, `${orders}/`), false),
  );
  note(`fairway waypoint apply -n ${namespace} --enroll-namespace --wait`);
  await applyWaypoint(cluster, undefined);
  await observations.observe(stage, "a waypoint for the namespace: its Gateway is programmed and requests go through it", async () => {
    const answer = await eventually("a request through the waypoint", async () => {
      const last = await get(cluster, `${orders}/`);
      return last.status === 200 && seenBy(last).id !== undefined ? last : undefined;
    });
    const programmed = await condition(cluster, "waypoint", "Programmed");
    const { observed, holds } = throughWaypoint(answer, true);
    return { observed: `Programmed=${programmed}; ${observed}`, holds: holds && programmed === "True" };
  });
}

export async function routing({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "6 routing";
  note("apply examples/shop/canary.yaml: 90 to v1, 10 to v2");
  await applyFile(cluster, "examples/shop/canary.yaml");
  await eventually("the split", async () => ((await many(cluster, `${orders}/`, 100)).versions["v1"] ?? 0) > 75 || undefined);
  await observations.observe(stage, `a canary of 90/10 over ${canaryRequests} requests`, async () => {
    const { statuses, versions } = await many(cluster, `${orders}/`, canaryRequests);
    const canary = versions["v2"] ?? 0;
    const expected = canaryRequests / 10;
    return {
      observed: `v1 ${versions["v1"]}, v2 ${canary}; ${statuses["200"]} answered 200`,
      holds: statuses["200"] === canaryRequests && Math.abs(canary - expected) < canaryTolerance,
    };
  });
  await observations.observe(stage, "an upstream that fails each request once is seen to fail", async () => {
    const { statuses } = await many(cluster, `${orders}/flaky`, retriedRequests);
    return { observed: inWords(statuses), holds: statuses["503"] === retriedRequests };
  });
  note("apply examples/shop/retry.yaml");
  await applyFile(cluster, "examples/shop/retry.yaml");
  await observations.observe(stage, "with retries its failures are hidden", async () => {
    await eventually("a retry", async () => (seenBy(await get(cluster, `${orders}/flaky`)).attempt ?? 0) > 1 || undefined);
    const { statuses } = await many(cluster, `${orders}/flaky`, retriedRequests);
    return { observed: inWords(statuses), holds: statuses["200"] === retriedRequests };
  });
  await observations.observe(stage, "WebSocket passes", async () => {
    const { returned, error } = await ask<{ returned: number; error?: string }>(cluster, "chat", "ws://orders:8080/live", String(streamed));
    return { observed: `${returned} of ${streamed} messages came back${error === undefined ? "" : `: ${error}`}`, holds: returned === streamed };
  });
  await observations.observe(stage, "gRPC streams pass, with their trailers", async () => {
    const seen = await ask<{ watched: number; talked: number; trailers: string[]; error?: string }>(cluster, "stream", "orders:9090", String(streamed));
    return {
      observed: `server stream ${seen.watched}, both ways ${seen.talked}, trailers ${seen.trailers.join(" ")}${seen.error === undefined ? "" : `: ${seen.error}`}`,
      holds: seen.watched === streamed && seen.talked === streamed && seen.trailers.every((version) => /^v[12]$/.test(version)),
    };
  });
}

export async function requestPolicy({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "7 request policy";
  await observations.observe(stage, "a pod can be addressed directly before the policy", async () =>
    statusIs(await get(cluster, await podUrl(cluster, "v1", "/admin")), 200),
  );
  note("apply examples/shop/admin.yaml: DENY /admin");
  await applyFile(cluster, "examples/shop/admin.yaml");
  await observations.observe(stage, "a forbidden path is denied, and the waypoint's log names the policy", async () => {
    const denied = await untilStatus(cluster, `${orders}/admin`, 403);
    const line = await eventually("the log line", async () =>
      (await waypointLog(cluster, "waypoint")).find((one) => one.includes("403") && one.includes("policy[no-admin]")),
    );
    return {
      observed: `403 ${denied.body}; ${/rbac_access_denied_matched_policy\[[^ "]*\]/.exec(line)?.[0] ?? line}`,
      holds: denied.body === "RBAC: access denied",
    };
  });
  await observations.observe(stage, "there is no way around the waypoint to the pod", async () => {
    const answer = await untilStatus(cluster, await podUrl(cluster, "v1", "/admin"), 0);
    return { observed: `no answer: ${answer.error}`, holds: (await get(cluster, `${orders}/`)).status === 200 };
  });
  note("apply examples/shop/members.yaml: /members needs a token of issuer.example");
  await applyFile(cluster, "examples/shop/members.yaml");
  await observations.observe(stage, "a path for members: without a token, with a wrong one, with a right one", async () => {
    const without = await untilStatus(cluster, `${orders}/members`, 403);
    const issued = await get(cluster, "http://issuer:8080/token?sub=alice");
    const { token } = JSON.parse(issued.body ?? "{}") as { token: string };
    const forged = `${token.slice(0, -6)}AAAAAA`;
    const wrong = await get(cluster, `${orders}/members`, `authorization: Bearer ${forged}`);
    const right = await get(cluster, `${orders}/members`, `authorization: Bearer ${token}`);
    return {
      observed: `${without.status}, ${wrong.status}, ${right.status} as ${seenBy(right).member}`,
      holds: without.status === 403 && wrong.status === 401 && right.status === 200 && seenBy(right).member === "alice",
    };
  });
}

export async function waypointByServiceAccount({ cluster, observations, note }: Stage): Promise<void> {
  const stage = "8 one account, no proxy";
  note(`fairway waypoint apply -n ${namespace} --service-account stock --wait, and examples/shop/stock-counting.yaml`);
  await applyWaypoint(cluster, "stock");
  await applyFile(cluster, "examples/shop/stock-counting.yaml");
  await observations.observe(stage, "a waypoint for one service account governs its pods, by service and by address", async () => {
    const byService = await untilStatus(cluster, "http://stock:8080/change", 403);
    const byAddress = await untilStatus(cluster, await podUrl(cluster, undefined, "/change", "stock"), 403);
    const others = await get(cluster, `${orders}/change`);
    const lines = await eventually("both denials in its log", async () => {
      const found = (await waypointLog(cluster, "stock-waypoint")).filter((line) => line.includes("policy[stock-read-only]"));
      return found.length >= 2 ? found : undefined;
    });
    return {
      observed: `service ${byService.status}, pod ${byAddress.status}, other accounts ${others.status}; ${lines.length} denials in its log`,
      holds: others.status === 200,
    };
  });
  await cluster.client.mergePatch(resources.services, "orders", namespace, { metadata: { labels: { "istio.io/use-waypoint": "none" } } });
  await observations.observe(stage, "gRPC without a proxy (xds:///) follows the split of 80/20 by itself", async () => {
    const seen = await eventually("calls to both versions", async () => {
      const last = await ask<{ versions: Record<string, number>; error?: string }>(
        cluster,
        "grpc",
        "xds:///orders.orders.svc.cluster.local:9090",
        String(proxylessCalls),
      );
      return last.error === undefined && Object.keys(last.versions).length === 2 ? last : undefined;
    });
    const second = seen.versions["v2"] ?? 0;
    return { observed: `v1 ${seen.versions["v1"]}, v2 ${second}`, holds: Math.abs(second - proxylessCalls / 5) < 35 };
  });
}

/** What the application says of the request that reached it. */
function seenBy({ body }: Answer): { id: string | undefined; attempt: number | undefined; member: string | undefined } {
  const seen = JSON.parse(body ?? "{}") as { id?: string; attempt?: string; member?: string };
  return { id: seen.id, attempt: seen.attempt === undefined ? undefined : Number(seen.attempt), member: seen.member };
}

function throughWaypoint(answer: Answer, wanted: boolean): { observed: string; holds: boolean } {
  const { id } = seenBy(answer);
  return { observed: `answered ${answer.status}, request id ${id ?? "none"}`, holds: answer.status === 200 && (id !== undefined) === wanted };
}

function statusIs(answer: Answer, status: number): { observed: string; holds: boolean } {
  return { observed: answer.status === 0 ? `no answer: ${answer.error}` : `answered ${answer.status}`, holds: answer.status === status };
}

function inWords(statuses: Readonly<Record<string, number>>): string {
  return Object.entries(statuses)
    .map(([status, count]) => `${count} answered ${status}`)
    .join(", ");
}

async function applyWaypoint(cluster: Cluster, serviceAccount: string | undefined): Promise<void> {
  const quiet: Output = { print: () => undefined, progress: { step: (_, work) => work(), note: () => undefined }, json: false };
  const wish = { namespace, name: undefined, serviceAccount, trafficType: undefined, revision: undefined };
  await apply(cluster.client, wish, { enrollNamespace: serviceAccount === undefined, overwrite: false, wait: true }, quiet);
}

interface Gateway extends KubeObject {
  status?: { conditions?: { type: string; status: string }[] };
}

async function condition(cluster: Cluster, name: string, type: string): Promise<string | undefined> {
  const gateway = await cluster.client.get(resources.gateways as ResourceType<Gateway>, name, namespace);
  return gateway.status?.conditions?.find((found) => found.type === type)?.status;
}

/** One action of the visitor that prints one line. */
async function ask<T>(cluster: Cluster, ...args: readonly string[]): Promise<T> {
  const visitor = await eventually(`a ready visitor in ${namespace}`, () => readyPod(cluster.client, namespace, "visitor"));
  const { stdout, stderr, code } = await cluster.exec({ namespace, name: visitor.metadata.name }, [...visitorCommand, ...args], { timeoutMs: 60_000 });
  if (code !== 0) throw new MeshError("CLI_EXEC_FAILED", `the visitor in ${namespace} could not ${args.join(" ")}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

function get(cluster: Cluster, url: string, ...headers: readonly string[]): Promise<Answer> {
  return ask<Answer>(cluster, "get", url, ...headers);
}

function many(cluster: Cluster, url: string, count: number): Promise<{ statuses: Record<string, number>; versions: Record<string, number> }> {
  return ask(cluster, "many", url, String(count));
}

function untilStatus(cluster: Cluster, url: string, status: number): Promise<Answer> {
  return eventually(`${status} from ${url}`, async () => {
    const answer = await get(cluster, url);
    return answer.status === status ? answer : undefined;
  });
}

async function podUrl(cluster: Cluster, version: string | undefined, path: string, app = "orders"): Promise<string> {
  const labelSelector = version === undefined ? `app=${app}` : `app=${app},version=${version}`;
  const [pod] = await cluster.client.list<Pod>(pods, { namespace, labelSelector });
  return `http://${pod?.status?.podIP}:8080${path}`;
}

async function waypointLog(cluster: Cluster, name: string): Promise<string[]> {
  const found = await cluster.client.list<Pod>(pods, { namespace, labelSelector: `gateway.networking.k8s.io/gateway-name=${name}` });
  const logs = await Promise.all(found.map(({ metadata }) => cluster.logs({ namespace, name: metadata.name })));
  return logs.flatMap((log) => log.split("\n"));
}
