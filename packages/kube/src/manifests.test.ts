import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { createKubeClient } from "./client.ts";
import { FakeApiServer, reply } from "./fake-api-server.ts";
import { applyManifests, parseManifests } from "./manifests.ts";
import { waitForRollout } from "./rollout.ts";

test("manifests are taken apart: several documents, empty ones, and Lists", (t) => {
  const objects = parseManifests(`---
# only a comment
---
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret, metadata: {name: b}}, {apiVersion: v1, kind: Secret, metadata: {name: c}}]}
`);
  t.deepEqual(
    objects.map(({ metadata }) => metadata.name),
    ["a", "b", "c"],
  );
  t.throws(() => parseManifests("a: [b"), { code: "KUBE_INVALID" });
  t.throws(() => parseManifests("just: text"), { code: "KUBE_INVALID" });
});

test("each object is applied to the resource that discovery names, and a kind that is served later is waited for", async (t) => {
  await using server = await FakeApiServer.listen();
  let refusals = 1;
  server.answer = (request, response) => {
    if (request.path === "/api/v1") {
      reply(response, 200, {
        resources: [
          { name: "namespaces", kind: "Namespace", namespaced: false },
          { name: "namespaces/status", kind: "Namespace", namespaced: false },
        ],
      });
    } else if (request.path === "/apis/security.istio.io/v1") {
      if (refusals-- > 0) reply(response, 404, {});
      else reply(response, 200, { resources: [{ name: "authorizationpolicies", kind: "AuthorizationPolicy", namespaced: true }] });
    } else reply(response, 200, request.body);
    return true;
  };
  const clock = new ManualClock();
  const applying = applyManifests(
    createKubeClient(server.credentials),
    "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p}}",
    { fieldManager: "me", clock },
  );
  const ticking = setInterval(() => void clock.advance(200), 5);
  t.teardown(() => clearInterval(ticking));
  await applying;
  t.deepEqual(
    server.requests.filter(({ method }) => method === "PATCH").map(({ path }) => path),
    ["/api/v1/namespaces/a", "/apis/security.istio.io/v1/namespaces/default/authorizationpolicies/p"],
  );
});

test("a rollout is awaited, and what did not roll out in time is named", async (t) => {
  await using server = await FakeApiServer.listen();
  let available = 0;
  server.answer = (request, response) => {
    const deployment = {
      metadata: { name: "web", generation: 2 },
      spec: { replicas: 1 },
      status: { observedGeneration: 2, replicas: 1, updatedReplicas: 1, availableReplicas: available },
    };
    reply(response, 200, { items: request.path.endsWith("deployments") ? [deployment] : [] });
    return true;
  };
  const client = createKubeClient(server.credentials);
  const error = await t.throwsAsync(waitForRollout(client, "shop", { timeoutMs: 0, clock: new ManualClock() }), { code: "KUBE_ROLLOUT_TIMEOUT" });
  t.regex(error?.message ?? "", /deployment\/web \(0 of 1\)/);
  available = 1;
  await waitForRollout(client, "shop", { timeoutMs: 0, clock: new ManualClock() });
});
