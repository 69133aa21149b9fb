/** A mesh whose ztunnels are told nothing that they did not ask for (XDS_ON_DEMAND), and applications that must not notice. */
import type { KubeObject, ResourceType } from "@fairway/kube";
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh, pods } from "./mesh.ts";

interface Container {
  env?: { name: string; value?: string }[];
}
interface Workloads extends KubeObject {
  spec: { template: { spec: { containers: Container[] } } };
}
interface Dump {
  readonly workloads: readonly { readonly name: string }[];
  readonly services: readonly { readonly name: string }[];
}
const authorizationPolicies: ResourceType = {
  group: "security.istio.io",
  version: "v1",
  plural: "authorizationpolicies",
  kind: "AuthorizationPolicy",
  namespaced: true,
};

const client = { namespace: "shop", name: "client" };
let mesh: Mesh;

/** Names are looked up by the cluster's own DNS: a DNS proxy needs the whole mesh. */
const variables: Readonly<Record<string, readonly { name: string; value: string }[]>> = {
  ztunnel: [
    { name: "XDS_ON_DEMAND", value: "true" },
    { name: "ISTIO_META_DNS_CAPTURE", value: "false" },
  ],
  "fairway-node-agent": [{ name: "AMBIENT_DNS_CAPTURE", value: "false" }],
};

test.before(async () => {
  mesh = await Mesh.raise("od", (object) => {
    const wanted = object.kind === "DaemonSet" ? Object.entries(variables).find(([name]) => object.metadata.name.endsWith(name)) : undefined;
    if (wanted === undefined) return object;
    const changed = structuredClone(object) as Workloads;
    for (const container of changed.spec.template.spec.containers) {
      const others = (container.env ?? []).filter(({ name }) => !wanted[1].some((variable) => variable.name === name));
      container.env = [...others, ...wanted[1]];
    }
    return changed;
  });
  await mesh.namespace("shop", { enrolled: true });
  await mesh.namespace("plain", { enrolled: false });
  await Promise.all([
    mesh.app({ ...client, node: 1 }),
    mesh.app({ namespace: "shop", name: "server", node: 2, headless: true }),
    mesh.app({ namespace: "shop", name: "bystander", node: 2 }),
    mesh.app({ namespace: "plain", name: "plain", node: 2 }),
  ]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

async function known(): Promise<{ workloads: readonly string[]; services: readonly string[] }> {
  const { body } = await mesh.admin(await mesh.ztunnelOf("shop", "client"), 15_000, "/config_dump");
  const { workloads, services } = JSON.parse(body) as Dump;
  return { workloads: workloads.map(({ name }) => name), services: services.map(({ name }) => name) };
}

async function echoes(to: string): Promise<boolean> {
  const { reply } = await mesh.act<{ reply?: string }>(client, "echo", to, 7000, "x");
  return reply === "x";
}

test.serial("a service, a pod and a headless service are reached in the tunnel, and nothing else is known", async (t) => {
  t.false((await known()).workloads.some((name) => name.startsWith("server")));
  t.true(await echoes("server"));
  t.true(await echoes((await mesh.addresses("shop", "server")).v4));
  t.true(await echoes((await mesh.addresses("shop", "server")).v6));
  t.true(await echoes("server-headless"));
  const lines = await eventually("four tunnelled connections", async () => {
    const found = await mesh.logLines(await mesh.ztunnelOf("shop", "client"), "connection complete", "sa/client", "sa/server", 'direction="outbound"');
    return found.length >= 4 ? found : undefined;
  });
  t.true(lines.every((line) => line.includes("dst.hbone_addr=")));
  const { workloads, services } = await known();
  t.true(workloads.some((name) => name.startsWith("server")));
  t.true(services.includes("server"));
  t.false(workloads.some((name) => name.startsWith("bystander")));
  t.false(services.includes("bystander"));
});

test.serial("who is outside the mesh is reached as if there were none", async (t) => {
  t.true(await echoes((await mesh.addresses("plain", "plain")).v4));
});

test.serial("a policy reaches those that it is for, and is lifted again", async (t) => {
  await mesh.apply([
    {
      apiVersion: "security.istio.io/v1",
      kind: "AuthorizationPolicy",
      metadata: { name: "no-client", namespace: "shop" },
      spec: { selector: { matchLabels: { app: "server" } }, action: "DENY", rules: [{ from: [{ source: { serviceAccounts: ["client"] } }] }] },
    },
  ]);
  await eventually("the refusal", async () => ((await echoes("server")) ? undefined : true));
  await mesh.cluster.client.delete(authorizationPolicies, "no-client", "shop");
  await eventually("the answer", async () => ((await echoes("server")) ? true : undefined));
  t.pass();
});

test.serial("an endpoint that is replaced is followed without being asked for", async (t) => {
  const before = await mesh.pod("shop", "server");
  await mesh.cluster.client.delete(pods, before.metadata.name, "shop");
  await eventually("another pod", async () => ((await mesh.pod("shop", "server")).metadata.name === before.metadata.name ? undefined : true));
  await eventually("the answer of the new one", async () => ((await echoes("server")) ? true : undefined));
  t.true(
    await eventually("the end of what was known of the old one", async () => ((await known()).workloads.includes(before.metadata.name) ? undefined : true)),
  );
});
