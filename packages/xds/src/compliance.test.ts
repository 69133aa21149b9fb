/** Client and server against each other over TLS on loopback. */
import { authorize, type ConnectionFacts, emptyMatch, parseIp } from "@fairway/model";
import { addressTypeUrl } from "@fairway/protocol";
import { errorCode, MeshError, messageOf, Watched } from "@fairway/runtime";
import test from "ava";
import type { XdsNode } from "./server.ts";
import { node, peer, soon, start, until } from "./test-discovery.ts";
import { policy, policyNamed, policyResource, service, serviceResource, workload, workloadResource } from "./test-mesh.ts";

test("a client receives the mesh, and its changes", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: [workloadResource(workload("a", { addresses: [parseIp("10.1.0.1")] })), serviceResource(service("s", "10.96.0.1"))] });
  mesh.policies.update({ set: [policyResource(policy("p"))] });
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  t.deepEqual(view.snapshot.workload(workload("a").uid), workload("a", { addresses: [parseIp("10.1.0.1")] }));
  t.is([...view.snapshot.services()].length, 1);
  t.deepEqual(view.snapshot.policy(policyNamed("p")), policy("p"));
  t.is(view.connection.current.kind, "connected");

  mesh.addresses.update({ set: [workloadResource(workload("b"))], delete: [workload("a").uid] });
  await until(view, (snapshot) => snapshot.workload(workload("b").uid) !== undefined && snapshot.workload(workload("a").uid) === undefined);
  mesh.addresses.update({ delete: [serviceResource(service("s", "10.96.0.1")).name] });
  await until(view, (snapshot) => [...snapshot.services()].length === 0);
  mesh.policies.update({ delete: ["default/p"] });
  await until(view, (snapshot) => snapshot.policy(policyNamed("p")) === undefined);
});

test("at no moment does a client hold a workload whose policy it does not know", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  const missing: string[] = [];
  view.changes.subscribe(({ snapshot }) => {
    for (const known of snapshot.workloads()) missing.push(...snapshot.policiesFor(known).missing);
  });
  for (let index = 0; index < 30; index++) {
    const name = policyNamed(`p${index}`);
    mesh.addresses.update({
      set: [workloadResource(workload("a", { authorizationPolicies: [name] })), workloadResource(workload(`w${index}`, { authorizationPolicies: [name] }))],
    });
    mesh.policies.update({ set: [policyResource(policy(`p${index}`))] });
    if (index % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await until(view, (snapshot) => snapshot.workload(workload("w29").uid) !== undefined);
  for (let index = 0; index < 30; index++) mesh.addresses.update({ delete: [workload(`w${index}`).uid] });
  mesh.addresses.update({ set: [workloadResource(workload("a"))] });
  mesh.policies.update({ delete: Array.from({ length: 30 }, (_, index) => `default/p${index}`) });
  await until(view, (snapshot) => [...snapshot.policies()].length === 0);
  t.deepEqual(missing, []);
});

test("a bad resource is refused by name, the good ones beside it apply, and the server knows who refused what", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  mesh.addresses.update({
    set: [{ name: "broken", body: Buffer.from("not a message") }, { ...workloadResource(workload("x")), name: "misnamed" }, workloadResource(workload("good"))],
  });
  await until(view, (snapshot) => snapshot.workload(workload("good").uid) !== undefined);
  t.is([...view.snapshot.workloads()].length, 1);
  const clients = await mesh.server.clients.until((all) => [...all.values()].some(({ types }) => types.get(addressTypeUrl)?.lastError !== undefined), soon());
  const [client] = clients.values();
  const status = client?.types.get(addressTypeUrl);
  t.deepEqual([...(status?.rejected.keys() ?? [])].toSorted(), ["broken", "misnamed"]);
  t.regex(status?.rejected.get("misnamed") ?? "", /calls itself/);
  t.not(status?.sentNonce, status?.ackedNonce);
  t.is(client?.nodeId, node.id);
  t.deepEqual(client?.peer, { identity: { namespace: "istio-system", serviceAccount: "ztunnel" }, node: "node-1", scope: { kind: "node" } } as const);

  mesh.addresses.update({ delete: ["misnamed"], set: [{ name: "broken", body: Buffer.alloc(0) }] });
  mesh.addresses.update({ delete: ["broken"], set: [workloadResource(workload("better"))] });
  await until(view, (snapshot) => snapshot.workload(workload("better").uid) !== undefined);
});

test("a refused first answer does not count as synchronised", async (t) => {
  const mesh = await start(t);
  mesh.policies.update({ set: [{ name: "default/broken", body: Buffer.from("nonsense") }] });
  mesh.addresses.update({ set: [workloadResource(workload("a"))] });
  const view = mesh.connect();
  await until(view, (snapshot) => snapshot.workload(workload("a").uid) !== undefined);
  t.false(view.synced.current);
  mesh.policies.update({ set: [policyResource(policy("p"))] });
  await view.synced.until(Boolean, soon());
  t.pass();
});

test("a server restart resumes by version: nothing is sent again, what vanished meanwhile is removed", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: [workloadResource(workload("stays")), workloadResource(workload("leaves"))] });
  mesh.policies.update({ set: [policyResource(policy("stays")), policyResource(policy("leaves"))] });
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  const kept = view.snapshot.workload(workload("stays").uid);
  await mesh.stop();
  await view.connection.until(({ kind }) => kind === "waiting", soon());
  t.is([...view.snapshot.workloads()].length, 2, "what is known stays in force");
  mesh.addresses.update({ delete: [workload("leaves").uid], set: [workloadResource(workload("new"))] });
  mesh.policies.update({ delete: ["default/leaves"] });
  await mesh.restart();
  await until(view, (snapshot) => snapshot.workload(workload("new").uid) !== undefined && snapshot.policy(policyNamed("leaves")) === undefined);
  t.is(view.snapshot.workload(workload("leaves").uid), undefined);
  t.is(view.snapshot.workload(workload("stays").uid), kept, "the same object: it was not sent again");
});

test("ten thousand resources arrive in one answer, and again as nothing", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({
    set: Array.from({ length: 10_000 }, (_, index) =>
      workloadResource(workload(`w${index}`, { addresses: [parseIp(`10.${(index >> 8) & 255}.${index & 255}.1`)] })),
    ),
  });
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  t.is([...view.snapshot.workloads()].length, 10_000);
  const before = view.snapshot;
  await mesh.stop();
  await mesh.restart();
  mesh.addresses.update({ set: [workloadResource(workload("last"))] });
  await until(view, (snapshot) => snapshot.workload(workload("last").uid) !== undefined);
  t.is(view.snapshot.workload(workload("w77").uid), before.workload(workload("w77").uid));
});

test("a client that was refused learns which step failed and tries again", async (t) => {
  let allowed = false;
  const mesh = await start(t, {
    authorize: async () => {
      if (allowed) return peer;
      throw new MeshError("XDS_PERMISSION_DENIED", "the reason that only the log may know");
    },
  });
  const view = mesh.connect();
  const state = await view.connection.until(({ kind }) => kind === "waiting", soon());
  const error = state.kind === "waiting" ? state.error : undefined;
  t.is(errorCode(error), "XDS_AUTHORIZATION_FAILED");
  t.false(messageOf(error).includes("only the log"));
  allowed = true;
  await view.synced.until(Boolean, soon());
});

test("who may connect is decided by the headers and the node of the first request", async (t) => {
  const asked: { token: unknown; node: XdsNode }[] = [];
  const mesh = await start(t, {
    authorize: async ({ metadata, node: claimed }) => {
      asked.push({ token: metadata.get("authorization")[0], node: claimed });
      return peer;
    },
  });
  await mesh.connect().synced.until(Boolean, soon());
  t.deepEqual(asked, [{ token: "Bearer token", node }]);
});

test("streams are refused until the server is ready, and after too many", async (t) => {
  const ready = new Watched(false);
  const mesh = await start(t, { ready, limits: { maxClients: 1 } });
  const first = mesh.connect();
  const state = await first.connection.until(({ kind }) => kind === "waiting", soon());
  t.is(errorCode(state.kind === "waiting" ? state.error : undefined), "XDS_STREAM_FAILED");
  ready.set(true);
  await first.synced.until(Boolean, soon());
  const second = mesh.connect();
  const refused = await second.connection.until(({ kind }) => kind === "waiting", soon());
  t.regex(messageOf(refused.kind === "waiting" ? refused.error : undefined), /overloaded/);
});

test("a message larger than the client accepts is an error with a name, not a crash", async (t) => {
  const mesh = await start(t);
  mesh.addresses.update({ set: Array.from({ length: 200 }, (_, index) => workloadResource(workload(`w${index}`))) });
  const view = mesh.connect({ maxMessageBytes: 4_096 });
  const state = await view.connection.until((now) => now.kind === "waiting" && now.error !== undefined, soon());
  t.regex(messageOf(state.kind === "waiting" ? state.error : undefined), /larger than we accept/);
  t.false(view.synced.current);
});

test("waiting for a pod ends when discovery sends it, or at the deadline naming it", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect();
  const pod = { namespace: "default", name: "a", serviceAccount: "default" };
  const waiting = view.waitForWorkload(pod, { ...soon(), timeoutMs: 5_000 });
  mesh.addresses.update({ set: [workloadResource(workload("a"))] });
  t.is((await waiting).uid, workload("a").uid);
  const error = await t.throwsAsync(view.waitForWorkload({ ...pod, name: "nobody" }, { ...soon(), timeoutMs: 10 }));
  t.is(errorCode(error), "XDS_WORKLOAD_UNKNOWN");
  t.regex(messageOf(error), /default\/nobody/);
});

test("a policy that cannot be read and was never held denies in its scope, until it can be read or is gone", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  const verdict = (namespace: string) => authorize(view.snapshot, { ...workload("a"), namespace }, anyConnection).allowed;
  const broken = (name: string) => ({ name, body: Buffer.from("nonsense") });
  const settled = (accept: () => boolean) => view.changes.until(accept, soon());

  mesh.policies.update({ set: [broken("default/p")] });
  await settled(() => !verdict("default"));
  t.true(verdict("other"));
  mesh.policies.update({ set: [policyResource(policy("p"))] });
  await settled(() => verdict("default"));
  mesh.policies.update({ set: [broken("default/p"), broken("istio-system/q")] });
  await settled(() => !verdict("other"));
  t.deepEqual(view.snapshot.policy(policyNamed("p")), policy("p"), "what was understood before stays as it was");
  mesh.policies.update({ delete: ["istio-system/q"] });
  await settled(() => verdict("other"));
});

test("of a policy with one unreadable matcher the scope still counts", async (t) => {
  const mesh = await start(t);
  const view = mesh.connect();
  await view.synced.until(Boolean, soon());
  const unreadable = { ...emptyMatch, destinationPorts: [70_000] };
  const one = (name: string, scope: "global" | "workload-selector") =>
    policyResource(policy(name, { scope, rules: [{ clauses: [{ matches: [unreadable] }] }] }));
  mesh.policies.update({ set: [one("selected", "workload-selector"), one("global", "global"), policyResource(policy("fine"))] });
  await view.changes.until(({ snapshot }) => snapshot.policy(policyNamed("fine")) !== undefined, soon());
  t.is(view.snapshot.policy(policyNamed("selected")), undefined, "those who name it are denied because it is not known");
  t.false(authorize(view.snapshot, { ...workload("a"), namespace: "other" }, anyConnection).allowed);
});

const anyConnection: ConnectionFacts = {
  source: { ip: parseIp("10.0.0.1"), port: 1 },
  destination: { ip: parseIp("10.0.0.2"), port: 2 },
  identity: undefined,
};
