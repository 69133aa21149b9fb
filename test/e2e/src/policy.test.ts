/** Policies from the user's objects to the connection that is refused, and what the user is told. */

import type { KubeObject, ResourceType } from "@fairway/kube";
import test from "ava";
import { explainFailure } from "./explain.ts";
import { eventually, Mesh } from "./mesh.ts";

interface Policy extends KubeObject {
  spec: unknown;
  status?: { conditions?: { type: string; status: string; reason: string; message: string; observedGeneration?: number }[] };
}
const authorizationPolicies: ResourceType<Policy> = {
  group: "security.istio.io",
  version: "v1",
  plural: "authorizationpolicies",
  kind: "AuthorizationPolicy",
  namespaced: true,
};
const peerAuthentications: ResourceType<Policy> = { ...authorizationPolicies, plural: "peerauthentications", kind: "PeerAuthentication" };

const good = { namespace: "shop", name: "good" };
const bad = { namespace: "shop", name: "bad" };
let mesh: Mesh;

function policy(name: string, spec: object): object {
  return { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: "shop" }, spec };
}
const callers = (...serviceAccounts: string[]): object =>
  policy("callers", { selector: { matchLabels: { app: "server" } }, action: "ALLOW", rules: [{ from: [{ source: { serviceAccounts } }] }] });

/** Repeats an echo until it succeeds or fails as wanted. */
async function untilEcho(from: { namespace: string; name: string }, works: boolean): Promise<{ reply?: string; error?: string }> {
  return eventually(`an echo from ${from.name} that ${works ? "works" : "fails"}`, async () => {
    const answer = await mesh.act<{ reply?: string; error?: string }>(from, "echo", "server", 7000, "x");
    return (answer.reply === "x") === works ? answer : undefined;
  });
}

test.before(async () => {
  mesh = await Mesh.raise("po");
  await mesh.namespace("shop", { enrolled: true });
  await Promise.all([
    mesh.app({ namespace: "shop", name: "good", node: 1 }),
    mesh.app({ namespace: "shop", name: "bad", node: 1 }),
    mesh.app({ namespace: "shop", name: "server", node: 2 }),
  ]);
});
test.after.always(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
test.afterEach.always((t) => explainFailure(t, mesh));
test.afterEach.always(async () => {
  for (const type of [authorizationPolicies, peerAuthentications])
    for (const { metadata } of await mesh.cluster.client.list(type, { namespace: "shop" })) await mesh.cluster.client.delete(type, metadata.name, "shop");
  await untilEcho(good, true);
  await untilEcho(bad, true);
});

test.serial("ALLOW by service account lets the right caller in, and refuses the other with 401 and a line that names the policy and both", async (t) => {
  await mesh.apply([callers("good")]);
  await untilEcho(bad, false);
  t.like(await mesh.act(good, "echo", "server", 7000, "x"), { reply: "x" });
  const inbound = await eventually("the denial in the server's log", async () =>
    (await mesh.logLines(await mesh.ztunnelOf("shop", "server"), "sa/bad", "direction=", "shop/callers")).find((line) => line.includes("inbound")),
  );
  t.regex(
    inbound,
    /\terror\taccess.*connection complete.*src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/bad".*dst\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/server"/,
  );
  const outbound = await eventually("the refusal in the client's log", async () =>
    (await mesh.logLines(await mesh.ztunnelOf("shop", "bad"), "sa/bad", "401")).at(0),
  );
  t.regex(outbound, /direction="?outbound/);
  const { body } = await mesh.admin(await mesh.ztunnelOf("shop", "server"), 15_020, "/metrics");
  t.regex(body, /istio_tcp_connections_failed_total\{[^}]*reporter="destination"[^}]*source_workload="bad"[^}]*response_flags="DENY"[^}]*\} [1-9]/);
});

test.serial("a policy applied while a connection is open closes that connection and no other", async (t) => {
  const stays = await mesh.start<{ event: string }>(good, "stay", "server", 7000, 50);
  const goes = await mesh.start<{ event: string }>(bad, "stay", "server", 7000, 50);
  await eventually("echoes on both", async () => ([stays, goes].every(({ lines }) => lines.some(({ event }) => event === "echo")) ? true : undefined));
  await mesh.apply([callers("good")]);
  await eventually("the close of the forbidden one", async () => (goes.lines.some(({ event }) => event === "closed") ? true : undefined));
  const echoes = stays.lines.length;
  await eventually("more echoes on the allowed one", async () => (stays.lines.length > echoes + 5 ? true : undefined));
  t.false(stays.lines.some(({ event }) => event === "closed"));
  const line = await eventually("the reason in the log", async () =>
    (await mesh.logLines(await mesh.ztunnelOf("shop", "server"), "sa/bad", "closed due to policy change")).at(0),
  );
  t.truthy(line);
  await Promise.all([stays.stop(), goes.stop()]);
});

test.serial("DENY beats ALLOW, and an empty ALLOW denies everybody", async (t) => {
  await mesh.apply([
    callers("good", "bad"),
    policy("no-bad", { action: "DENY", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/bad"] } }] }] }),
  ]);
  await untilEcho(bad, false);
  t.like(await mesh.act(good, "echo", "server", 7000, "x"), { reply: "x" });
  await mesh.apply([policy("nobody", { selector: { matchLabels: { app: "server" } }, action: "ALLOW" })]);
  await mesh.cluster.client.delete(authorizationPolicies, "callers", "shop");
  await untilEcho(good, false);
  t.pass();
});

test.serial("an accepted policy says so in its status", async (t) => {
  await mesh.apply([callers("good", "bad")]);
  const condition = await eventually("the condition", async () =>
    (await mesh.cluster.client.get(authorizationPolicies, "callers", "shop")).status?.conditions?.find(({ type }) => type === "ZtunnelAccepted"),
  );
  t.like(condition, { status: "True", reason: "Accepted", observedGeneration: 1 });
});

for (const [what, rules] of [
  ["an impossible CIDR", [{ from: [{ source: { ipBlocks: ["10.0.0.0/99"] } }] }]],
  ["an impossible port", [{ to: [{ operation: { ports: ["123456"] } }] }]],
] as const) {
  test.serial(`a policy with ${what} is refused by the API, and nothing changes`, async (t) => {
    const error = await t.throwsAsync(mesh.apply([policy("broken", { selector: { matchLabels: { app: "server" } }, action: "DENY", rules })]));
    t.regex(error?.message ?? "", /ipBlocks|ports/);
    t.like(await mesh.act(good, "echo", "server", 7000, "x"), { reply: "x" });
  });
}

for (const [what, spec, complaint] of [
  ["an address that no schema can refuse", { action: "DENY", rules: [{ from: [{ source: { ipBlocks: ["1:2:3"] } }] }] }, /1:2:3/],
  ["an unknown field in a rule", { action: "ALLOW", rules: [{ form: [{ source: { namespaces: ["shop"] } }] }] }, /form/],
  ["an unknown field beside its rules", { action: "ALLOW", rules: [{}], selektor: {} }, /selektor/],
] as const) {
  test.serial(`a policy with ${what} says so in its status, lets nobody in by mistake, and disturbs no other`, async (t) => {
    await mesh.apply([policy("broken", { selector: { matchLabels: { app: "bad" } }, ...spec })]);
    const condition = await eventually("the condition", async () =>
      (await mesh.cluster.client.get(authorizationPolicies, "broken", "shop")).status?.conditions?.find(
        ({ type, status }) => type === "ZtunnelAccepted" && status === "False",
      ),
    );
    t.is(condition.reason, "Invalid");
    t.regex(condition.message, complaint);
    t.like(await mesh.act(good, "echo", "server", 7000, "x"), { reply: "x" });
  });
}

test.serial("a PeerAuthentication with an unknown field says so in its status, and disturbs no one with an identity", async (t) => {
  const spec = { selector: { matchLabels: { app: "server" } }, mlts: { mode: "STRICT" } };
  await mesh.apply([{ apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "broken", namespace: "shop" }, spec }]);
  const condition = await eventually("the condition", async () =>
    (await mesh.cluster.client.get(peerAuthentications, "broken", "shop")).status?.conditions?.find(({ type }) => type === "ZtunnelAccepted"),
  );
  t.like(condition, { status: "False", reason: "Invalid", observedGeneration: 1 });
  t.regex(condition.message, /spec\.mlts: no such field.*STRICT/);
  t.like(await mesh.act(good, "echo", "server", 7000, "x"), { reply: "x" });
});
