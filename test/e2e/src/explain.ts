/** What a test that failed says besides: the proxies' lines about connections and requests that did not succeed. */
import type { ExecutionContext } from "ava";
import { type Mesh, meshNamespace, type Pod, pods } from "./mesh.ts";

/** Of each proxy, the last ones. */
const mostLines = 25;
/** Answers that need no explanation, in the waypoint's access log: `"GET / HTTP/1.1" 200 …`. */
const success = /" (?:2|3)\d\d /;

/** Of a test that failed, logs what each ztunnel and each waypoint said of what was refused or broke. Never throws. */
export async function explainFailure(t: ExecutionContext, mesh: Mesh | undefined): Promise<void> {
  if (t.passed || mesh === undefined) return;
  try {
    for (const pod of await proxies(mesh)) {
      const { namespace = "", name } = pod.metadata;
      const text = await mesh.cluster.logs({ namespace, name }).catch((error: unknown) => `no log: ${String(error)}`);
      const lines = text.split("\n").filter(isTrouble);
      const restarts = pod.status?.containerStatuses?.[0]?.restartCount ?? 0;
      const head = `${namespace}/${name} on ${pod.spec.nodeName}, ${restarts} restarts, ${lines.length} lines of trouble`;
      t.log([head, ...lines.slice(-mostLines)].join("\n"));
    }
  } catch (error) {
    t.log(`the proxies cannot be asked: ${String(error)}`);
  }
}

async function proxies({ cluster: { client } }: Mesh): Promise<readonly Pod[]> {
  const [ztunnels, waypoints] = await Promise.all([
    client.list(pods, { namespace: meshNamespace, labelSelector: "app=ztunnel" }),
    client.list(pods, { labelSelector: "gateway.networking.k8s.io/gateway-name" }),
  ]);
  return [...ztunnels, ...waypoints];
}

/** Of ztunnel every line above info; of a waypoint that too, and every request that was not answered well. */
function isTrouble(line: string): boolean {
  if (/\t(?:warn|error)\t/.test(line)) return true;
  return /^\[\d{4}-/.test(line) && !success.test(line);
}
