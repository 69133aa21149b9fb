/** Certificates that live one minute, under load: rotation is not something an application notices. */
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh, pause } from "./mesh.ts";

const client = { namespace: "shop", name: "client" };
const lifetime = "60s";
/** Long enough for every certificate to be replaced at least twice: renewal begins at half the lifetime. */
const watchMs = 75_000;
let mesh: Mesh;

interface Container {
  name: string;
  env?: { name: string; value?: string }[];
}

test.before(async () => {
  mesh = await Mesh.raise("ro", (object) => {
    if (object.kind !== "DaemonSet" || object.metadata.name !== "ztunnel") return object;
    const daemonSet = structuredClone(object) as typeof object & { spec: { template: { spec: { containers: Container[] } } } };
    for (const container of daemonSet.spec.template.spec.containers)
      container.env = [...(container.env ?? []).filter(({ name }) => name !== "SECRET_TTL"), { name: "SECRET_TTL", value: lifetime }];
    return daemonSet;
  });
  await mesh.namespace("shop", { enrolled: true });
  await Promise.all([mesh.app({ namespace: "shop", name: "client", node: 1 }), mesh.app({ namespace: "shop", name: "server", node: 2 })]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));

/** Serial numbers of the leaf certificates that a ztunnel holds, by identity. */
async function serials(name: string): Promise<Map<string, { serial: string; notAfter: number }>> {
  const { body } = await mesh.admin(await mesh.ztunnelOf("shop", name), 15_000, "/config_dump");
  const { certificates } = JSON.parse(body) as { certificates: { identity: string; certChain: { serialNumber: string; expirationTime: string }[] }[] };
  return new Map(
    certificates.flatMap(({ identity, certChain: [leaf] }) =>
      leaf === undefined ? [] : [[identity, { serial: leaf.serialNumber, notAfter: Date.parse(leaf.expirationTime) }]],
    ),
  );
}

test.serial("one-minute certificates rotate under load without one failed request", async (t) => {
  const identity = "spiffe://cluster.local/ns/shop/sa/client";
  const first = await eventually("the client's certificate", async () => (await serials("client")).get(identity));
  t.true(first.notAfter - Date.now() <= 60_000);
  const seen = new Set([first.serial]);
  const load = await mesh.start<{ ok: boolean; error?: string }>(client, "load", "server", 7000, 50);
  const stays = await mesh.start<{ event: string }>(client, "stay", "server", 7000, 100);
  for (const end = Date.now() + watchMs; Date.now() < end; ) {
    const now = (await serials("client")).get(identity);
    t.truthy(now);
    if (now !== undefined) {
      seen.add(now.serial);
      t.true(now.notAfter > Date.now(), "an expired certificate is in use");
    }
    await pause(2_000);
  }
  await load.stop();
  t.deepEqual(
    load.lines.filter(({ ok }) => !ok).map(({ error }) => error),
    [],
  );
  t.true(load.lines.length > watchMs / 100);
  t.false(stays.lines.some(({ event }) => event === "closed" || event === "error"));
  await stays.stop();
  t.true(seen.size >= 3, `${seen.size} certificates in ${watchMs / 1000} s`);
});
