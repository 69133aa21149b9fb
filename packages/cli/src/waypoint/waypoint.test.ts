import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connectKube, type KubeClient, resources } from "@fairway/kube";
import { startApiServer } from "@fairway/local-cluster";
import { MeshError } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";

interface Bench extends AsyncDisposable {
  readonly client: KubeClient;
  readonly fairway: (...args: readonly string[]) => Promise<{ code: number; out: string; err: string }>;
}

async function startBench(gatewayApi = true): Promise<Bench> {
  const unused = (): never => {
    throw new MeshError("CLI_TEST", "no pods here");
  };
  const server = await startApiServer({ kubelet: { logs: unused, exec: unused, dial: unused }, gatewayApi });
  const folder = await mkdtemp(join(tmpdir(), "fairway-cli-"));
  const kubeconfig = join(folder, "kubeconfig");
  await writeFile(kubeconfig, server.kubeconfig(), { mode: 0o600 });
  const main = fileURLToPath(new URL("../main.js", import.meta.url));
  return {
    client: connectKube({ kubeconfig }),
    fairway: (...args) =>
      new Promise((resolve) => {
        execFile(process.execPath, [main, "waypoint", ...args], { env: { ...process.env, KUBECONFIG: kubeconfig, NO_COLOR: "1" } }, (error, out, err) => {
          resolve({ code: typeof error?.code === "number" ? error.code : error === null ? 0 : -1, out, err });
        });
      }),
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function withShop(t: ExecutionContext): Promise<Bench> {
  const bench = await startBench();
  t.teardown(() => bench[Symbol.asyncDispose]());
  await bench.client.create(resources.namespaces, { metadata: { name: "shop" } });
  return bench;
}

test("apply creates the Gateway and labels the namespace, and doing it again changes nothing", async (t) => {
  const { client, fairway } = await withShop(t);
  for (let time = 0; time < 2; time++) t.like(await fairway("apply", "-n", "shop", "--enroll-namespace"), { code: 0 });
  const gateway = await client.get(resources.gateways, "waypoint", "shop");
  t.deepEqual(gateway.spec, { gatewayClassName: "fairway-waypoint", listeners: gateway.spec?.listeners ?? [] });
  t.like(gateway.spec?.listeners?.[0], { name: "mesh", port: 15_008, protocol: "HBONE" });
  t.is((await client.get(resources.namespaces, "shop")).metadata.labels?.["istio.io/use-waypoint"], "waypoint");
});

test("apply for a service account names the waypoint after it and leaves the namespace alone", async (t) => {
  const { client, fairway } = await withShop(t);
  t.like(await fairway("apply", "-n", "shop", "--service-account", "api"), { code: 0 });
  t.is((await client.get(resources.gateways, "api-waypoint", "shop")).metadata.annotations?.["istio.io/for-service-account"], "api");
  t.is((await client.get(resources.namespaces, "shop")).metadata.labels?.["istio.io/use-waypoint"], undefined);
});

test("a namespace that uses another waypoint is not taken over by accident", async (t) => {
  const { fairway } = await withShop(t);
  await fairway("apply", "-n", "shop", "--enroll-namespace");
  const second = await fairway("apply", "-n", "shop", "--name", "other", "--enroll-namespace");
  t.is(second.code, 1);
  t.regex(second.err, /uses the waypoint waypoint; repeat with --overwrite .*CLI_LABEL_TAKEN/);
  t.like(await fairway("apply", "-n", "shop", "--name", "other", "--enroll-namespace", "--overwrite"), { code: 0 });
});

test("list and status say what each waypoint is for and what keeps it from working", async (t) => {
  const { client, fairway } = await withShop(t);
  t.regex((await fairway("list", "-n", "shop")).out, /No waypoints in namespace shop/);
  await fairway("apply", "-n", "shop");
  await fairway("apply", "-n", "shop", "--service-account", "api");
  t.regex(
    (await fairway("list", "-A")).out,
    /shop +api-waypoint +service account api +default +(Unknown|False)\nshop +waypoint +service +default +(Unknown|False)/,
  );
  const waiting = await fairway("status", "-n", "shop");
  t.is(waiting.code, 1);
  t.regex(waiting.out, /! waypoint: /);
  const now = "2026-01-01T00:00:00Z";
  await client.mergePatch(
    resources.gateways,
    "waypoint",
    "shop",
    {
      status: {
        addresses: [{ type: "IPAddress", value: "10.96.0.9" }],
        conditions: [{ type: "Programmed", status: "True", reason: "Programmed", message: "", lastTransitionTime: now }],
      },
    },
    { subresource: "status" },
  );
  const ready = await fairway("status", "-n", "shop", "waypoint", "--json");
  t.is(ready.code, 0);
  t.like((JSON.parse(ready.out) as object[])[0], { name: "waypoint", programmed: "True", addresses: ["10.96.0.9"], complaints: [] });
});

test("delete says that a namespace still asks for what is gone", async (t) => {
  const { client, fairway } = await withShop(t);
  await fairway("apply", "-n", "shop", "--enroll-namespace");
  const deleted = await fairway("delete", "-n", "shop", "--all");
  t.like(deleted, { code: 0 });
  t.regex(deleted.out, /its traffic is refused; to go without: kubectl label namespace shop istio\.io\/use-waypoint-/);
  t.deepEqual(await client.list(resources.gateways, { namespace: "shop" }), []);
  t.is((await fairway("delete", "-n", "shop", "waypoint")).code, 1);
});

test("what generate prints is what apply creates, and the name that means none is refused", async (t) => {
  const { client, fairway } = await withShop(t);
  const printed = JSON.parse((await fairway("generate", "-n", "shop", "--for", "all", "--json")).out) as { metadata: object; spec: object };
  await fairway("apply", "-n", "shop", "--for", "all");
  const applied = await client.get(resources.gateways, "waypoint", "shop");
  t.like(applied.metadata, printed.metadata);
  t.like(applied.spec, printed.spec);
  t.regex((await fairway("generate", "--name", "none")).err, /CLI_BAD_NAME/);
});

test("a cluster without the Gateway API, and no cluster at all, are named as such", async (t) => {
  const bench = await startBench(false);
  t.teardown(() => bench[Symbol.asyncDispose]());
  t.regex((await bench.fairway("apply")).err, /install the Gateway API's definitions first.*\(CLI_NO_GATEWAY_API\)/);
  t.regex((await bench.fairway("list", "--kubeconfig", "/nowhere/at/all")).err, /CLI_NO_KUBECONFIG/);
});
