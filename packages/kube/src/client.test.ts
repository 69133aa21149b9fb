import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { connectKube, createKubeClient } from "./client.ts";
import { inClusterCredentials } from "./credentials.ts";
import { FakeApiServer, reply } from "./fake-api-server.ts";
import { resources } from "./resources/resources.ts";

for (const [status, code] of [
  [400, "KUBE_INVALID"],
  [403, "KUBE_FORBIDDEN"],
  [404, "KUBE_NOT_FOUND"],
  [409, "KUBE_CONFLICT"],
  [422, "KUBE_INVALID"],
  [503, "KUBE_UNAVAILABLE"],
] as const) {
  test(`status ${status} is the error ${code}, with the server's own words`, async (t) => {
    await using server = await FakeApiServer.listen();
    server.answer = (_request, response) => {
      reply(response, status, { message: "said the server" });
      return true;
    };
    const error = await t.throwsAsync(createKubeClient(server.credentials).get(resources.pods, "a", "shop"), { code });
    t.regex(error?.message ?? "", /GET \/api\/v1\/namespaces\/shop\/pods\/a: said the server/);
  });
}

test("no answer is KUBE_UNAVAILABLE and names the server", async (t) => {
  const server = await FakeApiServer.listen();
  const client = createKubeClient(server.credentials);
  await server[Symbol.asyncDispose]();
  const error = await t.throwsAsync(client.get(resources.nodes, "n"), { code: "KUBE_UNAVAILABLE" });
  t.true(error?.message.includes(client.server));
});

test("each verb is the request that the API documents", async (t) => {
  await using server = await FakeApiServer.listen();
  server.answer = (request, response) => {
    reply(response, 200, request.body ?? { items: [{ metadata: { name: "a" } }] });
    return true;
  };
  const client = createKubeClient(server.credentials);
  const pod = { metadata: { name: "a b", namespace: "shop" } };
  await client.create(resources.pods, pod);
  await client.replace(resources.pods, pod, { subresource: "status" });
  await client.mergePatch(resources.pods, "a", "shop", { metadata: { annotations: { x: "y" } } }, { subresource: "status" });
  await client.apply(resources.authorizationPolicies, pod, { fieldManager: "me", subresource: "status" });
  await client.delete(resources.nodes, "n", undefined, { gracePeriodSeconds: 0 });
  const [listed] = await client.list(resources.pods, { labelSelector: "app=a" });
  t.is(listed?.kind, "Pod");
  t.deepEqual(
    server.requests.map(({ method, path, query, contentType }) => `${method} ${path}?${query} ${contentType}`.replace(/\?(?= )/, "").trim()),
    [
      "POST /api/v1/namespaces/shop/pods application/json",
      "PUT /api/v1/namespaces/shop/pods/a%20b/status application/json",
      "PATCH /api/v1/namespaces/shop/pods/a/status application/merge-patch+json",
      "PATCH /apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/a%20b/status?fieldManager=me&force=true application/apply-patch+yaml",
      "DELETE /api/v1/nodes/n?gracePeriodSeconds=0",
      "GET /api/v1/pods?labelSelector=app%3Da&limit=500",
    ],
  );
  t.like(server.requests[3]?.body, { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy" });
});

test("a kubeconfig's token is sent, and a server in clear text is refused unless it is this machine", async (t) => {
  await using server = await FakeApiServer.listen();
  const folder = await mkdtemp(join(tmpdir(), "fairway-kube-"));
  t.teardown(() => rm(folder, { recursive: true }));
  const write = async (name: string, url: string, extra: object = {}): Promise<string> => {
    const path = join(folder, name);
    const config = {
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
      clusters: [{ name: "k", cluster: { server: url, ...extra } }],
      users: [{ name: "u", user: { token: "secret-token" } }],
    };
    await writeFile(path, JSON.stringify(config));
    return path;
  };
  const client = connectKube({ kubeconfig: await write("local", server.url, { "insecure-skip-tls-verify": true }) });
  await client.list(resources.pods);
  t.is(server.requests[0]?.authorization, "Bearer secret-token");
  t.is(client.server, server.url);
  const far = await write("far", "http://10.0.0.1:8080");
  t.throws(() => connectKube({ kubeconfig: far }), { code: "KUBE_BAD_CONFIG" });
  t.throws(() => connectKube({ kubeconfig: join(folder, "missing") }), { code: "KUBE_BAD_CONFIG" });
});

test("in a cluster the token file is read again for each request", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fairway-kube-"));
  t.teardown(() => rm(folder, { recursive: true }));
  const credentials = inClusterCredentials({ KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "6443" }, folder);
  t.is(credentials.server.href, "https://[fd00::1]:6443/");
  await t.throwsAsync(credentials.authorize(), { code: "KUBE_BAD_CONFIG" });
  await writeFile(join(folder, "ca.crt"), "");
  await writeFile(join(folder, "token"), "one\n");
  const first = await credentials.authorize();
  await writeFile(join(folder, "token"), "two\n");
  const second = await credentials.authorize();
  t.is(first.headers["authorization"], "Bearer one");
  t.is(second.headers["authorization"], "Bearer two");
  t.is(first.agent, second.agent);
  t.throws(() => inClusterCredentials({}), { code: "KUBE_BAD_CONFIG" });
});
