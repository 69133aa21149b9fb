import { connectKube, resources } from "@fairway/kube";
import test from "ava";
import { TestBench } from "./test-bench.ts";

test("a supervised collection stays right through resets and compaction", async (t) => {
  await using bench = await TestBench.start();
  const kube = connectKube({ kubeconfig: bench.kubeconfig, random: () => 0 });
  await using configMaps = kube.collection(resources.configMaps, { namespace: "default" });
  await configMaps.synced;
  const until = async (check: () => boolean): Promise<void> => {
    if (check()) return;
    await new Promise<void>((resolve) => {
      const subscription = configMaps.subscribe(() => {
        if (!check()) return;
        subscription[Symbol.dispose]();
        resolve();
      });
    });
  };
  const create = (name: string) => kube.create(resources.configMaps, { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace: "default" } });
  for (const round of ["a", "b", "c"]) {
    await create(round);
    await until(() => configMaps.get(`default/${round}`) !== undefined);
    bench.server.resetConnections();
    await create(`${round}-while-away`);
    if (round === "b") bench.server.compact();
    await until(() => configMaps.get(`default/${round}-while-away`) !== undefined);
  }
  await kube.delete(resources.configMaps, "a", "default");
  await until(() => configMaps.get("default/a") === undefined);
  t.is([...configMaps.list()].length, 6, "five of ours and the root certificate");
});

test("applies and status patches of the typed client arrive", async (t) => {
  await using bench = await TestBench.start();
  const kube = connectKube({ kubeconfig: bench.kubeconfig });
  const gateway = {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "Gateway",
    metadata: { name: "g", namespace: "default" },
    spec: { gatewayClassName: "x", listeners: [{ name: "mesh", port: 15_008, protocol: "HBONE" }] },
  };
  await kube.apply(resources.gateways, gateway, { fieldManager: "test" });
  const condition = { type: "Programmed", status: "True", reason: "Programmed", message: "done", lastTransitionTime: "2026-01-01T00:00:00Z" };
  await kube.mergePatch(resources.gateways, "g", "default", { status: { conditions: [condition] } }, { subresource: "status" });
  const stored = await kube.get(resources.gateways, "g", "default");
  t.is(stored.metadata.generation, 1);
  t.deepEqual(JSON.parse(JSON.stringify(stored)).status, { conditions: [condition] });
});
