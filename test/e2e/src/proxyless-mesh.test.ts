/** A gRPC application without a proxy inside the mesh: it follows a split by itself, and goes through the waypoint where there is one. */
import { readFile } from "node:fs/promises";
import { type KubeObject, type ResourceType, waitForRollout } from "@fairway/kube";
import { checkoutFile, visitorCommand } from "@fairway/local-cluster";
import test from "ava";
import { eventually, Mesh, pods, services } from "./mesh.ts";

interface Gateway extends KubeObject {
  status?: { conditions?: { type: string; status: string }[] };
}
const gateways: ResourceType<Gateway> = { group: "gateway.networking.k8s.io", version: "v1", plural: "gateways", kind: "Gateway", namespaced: true };

interface Calls {
  readonly versions: Readonly<Record<string, number>>;
  /** Addresses that the client's own library connected to. */
  readonly peers: readonly string[];
}

const orders = "xds:///orders.orders.svc.cluster.local:9090";
let mesh: Mesh;

/** So many calls from inside the visitor's pod, by the library's own resolver. */
async function call(target: string, count: number): Promise<Calls> {
  const [visitor] = await mesh.cluster.client.list(pods, { namespace: "orders", labelSelector: "app=visitor" });
  const pod = { namespace: "orders", name: visitor?.metadata.name ?? "" };
  const { stdout, stderr, code } = await mesh.cluster.exec(pod, [...visitorCommand, "grpc", target, String(count)], { timeoutMs: 60_000 });
  if (code !== 0) throw new Error(`the visitor could not call ${target}: ${stderr}`);
  return JSON.parse(stdout) as Calls;
}

const apply = async (file: string): Promise<void> => mesh.apply(await readFile(checkoutFile(`examples/shop/${file}`), "utf8"));

test.before(async () => {
  mesh = await Mesh.raise("px");
  await apply("orders.yaml");
  await waitForRollout(mesh.cluster.client, "orders", { timeoutMs: 90_000 });
});

test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

test.serial("without a waypoint the client takes the pods in turns, and follows a split of 80 to 20 by itself", async (t) => {
  const even = await call("xds:///orders:9090", 100);
  t.is(even.peers.length, 2);
  t.deepEqual(Object.keys(even.versions).toSorted(), ["v1", "v2"]);
  await apply("canary.yaml");
  const { versions, peers } = await eventually("the split", async () => {
    const calls = await call(orders, 400);
    return (calls.versions["v1"] ?? 0) > 270 ? calls : undefined;
  });
  t.true((versions["v2"] ?? 0) > 40, JSON.stringify(versions));
  t.is(peers.length, 2);
});

test.serial("with a waypoint the client is told the virtual address alone, and the waypoint follows the split", async (t) => {
  const listeners = [{ name: "mesh", port: 15_008, protocol: "HBONE" }];
  const gateway = { apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "orders" } };
  const labels = { "istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint" };
  await mesh.apply([
    { ...gateway, spec: { gatewayClassName: "fairway-waypoint", listeners } },
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "orders", labels } },
  ]);
  await eventually("a waypoint that is programmed", async () => {
    const { status } = await mesh.cluster.client.get(gateways, "waypoint", "orders");
    return status?.conditions?.find((condition) => condition.type === "Programmed" && condition.status === "True");
  });
  const { spec } = await mesh.cluster.client.get(services, "orders", "orders");
  const { versions, peers } = await call(orders, 400);
  t.deepEqual(peers, [`${spec.clusterIP}:9090`]);
  t.true((versions["v1"] ?? 0) > 270 && (versions["v2"] ?? 0) > 40, JSON.stringify(versions));
});
