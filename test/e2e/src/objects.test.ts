/** Objects that are wrong: each gets a clear answer where its author looks, and nothing else is lost. */
import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { installed } from "@fairway/local-cluster";
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh, meshNamespace, pods } from "./mesh.ts";

const client = { namespace: "shop", name: "client" };
let mesh: Mesh;

test.before(async () => {
  mesh = await Mesh.raise("ob");
  await mesh.namespace("shop", { enrolled: true });
  await Promise.all([mesh.app({ namespace: "shop", name: "client", node: 1 }), mesh.app({ namespace: "shop", name: "server", node: 2 })]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));
test.afterEach(async (t) => {
  t.like(await mesh.act(client, "echo", "server", 7000, "still here"), { reply: "still here" });
  const restarts = (await mesh.cluster.client.list(pods, { namespace: meshNamespace })).map((pod) => pod.status?.containerStatuses?.[0]?.restartCount);
  t.true(restarts.every((count) => count === 0));
});

async function kubectl(...args: string[]): Promise<{ code: number; output: string }> {
  try {
    const { stdout, stderr } = await promisify(execFile)("kubectl", ["--kubeconfig", mesh.cluster.kubeconfigPath, ...args]);
    return { code: 0, output: stdout + stderr };
  } catch (thrown) {
    const { code, stdout, stderr } = thrown as { code: number; stdout: string; stderr: string };
    return { code, output: stdout + stderr };
  }
}

if (installed("kubectl")) {
  const policyText = (spec: string): string =>
    `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: wrong, namespace: shop }\nspec: ${spec}\n`;
  for (const [what, text, complaint] of [
    ["malformed YAML", "apiVersion: v1\nkind: [\n", /yaml|converting/i],
    ["an unknown field", "apiVersion: v1\nkind: Service\nmetadata: { name: wrong, namespace: shop }\nspec: { portz: [] }\n", /unknown field.*portz/],
    ["an action that does not exist", policyText("{ action: PERHAPS }"), /action/],
    ["a port that cannot be", policyText('{ action: DENY, rules: [{ to: [{ operation: { ports: ["70000"] } }] }] }'), /ports|70000/],
  ] as const) {
    test.serial(`kubectl apply of ${what} is refused with a reason`, async (t) => {
      const file = join(tmpdir(), `fairway-objects-${process.pid}.yaml`);
      await writeFile(file, text);
      t.teardown(() => rm(file));
      const { code, output } = await kubectl("apply", "-f", file);
      t.not(code, 0);
      t.regex(output, complaint);
    });
  }
} else {
  test("the refusals that kubectl shows (skipped: kubectl is not installed)", (t) => {
    t.log("skipped: kubectl is not installed");
    t.pass();
  });
}

test.serial("an object over the size limit is refused by name of the limit", async (t) => {
  const error = await t.throwsAsync(
    mesh.apply([{ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "huge", namespace: "shop" }, data: { blob: "x".repeat(4 * 1024 * 1024) } }]),
  );
  t.regex(error?.message ?? "", /large|limit|size/i);
});

test.serial("a pod without an address does not keep the others from the mesh", async (t) => {
  await mesh.apply([
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "nowhere", namespace: "shop" },
      spec: { nodeName: "no-such-node", containers: [{ name: "app", image: "fairway/e2e-app:0.1.0" }] },
    },
  ]);
  await mesh.app({ namespace: "shop", name: "late", node: 1 });
  t.like(await mesh.act({ namespace: "shop", name: "late" }, "echo", "server", 7000, "x"), { reply: "x" });
  await mesh.cluster.client.delete(pods, "nowhere", "shop", { gracePeriodSeconds: 0 });
});

test.serial("two pods that claim one address harm nobody else", async (t) => {
  const { v4 } = await mesh.addresses("shop", "client");
  await mesh.apply([
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "twin", namespace: "shop" },
      spec: { nodeName: "no-such-node", containers: [{ name: "app", image: "fairway/e2e-app:0.1.0" }] },
    },
  ]);
  await mesh.cluster.client.mergePatch(pods, "twin", "shop", { status: { phase: "Running", podIP: v4, podIPs: [{ ip: v4 }] } }, { subresource: "status" });
  t.like(await mesh.act(client, "echo", "server", 7000, "x"), { reply: "x" });
  await mesh.cluster.client.delete(pods, "twin", "shop", { gracePeriodSeconds: 0 });
  await eventually("the twin's end", async () =>
    (await mesh.cluster.client.list(pods, { namespace: "shop" })).some(({ metadata }) => metadata.name === "twin") ? undefined : true,
  );
});
