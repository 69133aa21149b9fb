import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { connect } from "node:tls";
import test from "ava";
import { parse } from "yaml";
import { arrayAt, atPath, type Json, type JsonObject, stringAt } from "./json.ts";
import { TestBench } from "./test-bench.ts";

const configMap = (name: string, data: JsonObject = {}): JsonObject => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data });
const pod = (name: string, spec: JsonObject = {}, metadata: JsonObject = {}): JsonObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, ...metadata },
  spec: { containers: [{ name: "c", image: "i" }], ...spec },
});
const inDefault = "/api/v1/namespaces/default";

test("an object is created, read, replaced, patched and deleted", async (t) => {
  await using bench = await TestBench.start();
  const created = await bench.send("POST", `${inDefault}/configmaps`, configMap("a", { x: "1" }));
  t.is(created.code, 201);
  const version = atPath(created.body, "metadata", "resourceVersion");
  t.deepEqual((await bench.send("GET", `${inDefault}/configmaps/a`)).body, created.body);
  t.is((await bench.send("POST", `${inDefault}/configmaps`, configMap("a"))).body["reason"], "AlreadyExists");
  const same = await bench.send("PUT", `${inDefault}/configmaps/a`, created.body);
  t.is(atPath(same.body, "metadata", "resourceVersion"), version, "writing what is there is no change");
  const patched = await bench.send("PATCH", `${inDefault}/configmaps/a`, { data: { y: "2" } }, { type: "application/merge-patch+json" });
  t.deepEqual(patched.body["data"], { x: "1", y: "2" });
  const stale = await bench.send("PUT", `${inDefault}/configmaps/a`, created.body);
  t.is(stale.code, 409);
  t.is(stale.body["reason"], "Conflict");
  t.is((await bench.send("DELETE", `${inDefault}/configmaps/a`)).body["status"], "Success");
  const gone = await bench.send("GET", `${inDefault}/configmaps/a`);
  t.is(gone.code, 404);
  t.is(gone.body["message"], 'configmaps "a" not found');
});

test("failures are Status objects with the code and reason clients switch on", async (t) => {
  await using bench = await TestBench.start({ limits: { maxBodyBytes: 50_000 } });
  const post = (body: Json | Buffer, path = `${inDefault}/configmaps`, type = "application/json") => bench.send("POST", path, body, { type });
  const deployment: JsonObject = {
    metadata: { name: "d" },
    spec: { selector: { matchLabels: { a: "b" } }, template: { metadata: { labels: { a: "c" } }, spec: { containers: [] } } },
  };
  const cases: [string, { code: number; body: JsonObject }, number, string, RegExp][] = [
    ["malformed JSON", await post(Buffer.from('{"a":')), 400, "BadRequest", /unrecognized/],
    ["malformed YAML", await post(Buffer.from("a: [1\nb: }"), undefined, "application/yaml"), 400, "BadRequest", /YAML/],
    ["not UTF-8", await post(Buffer.from([0x22, 0xff, 0x22])), 400, "BadRequest", /UTF-8/],
    ["a list for an object", await post([1, 2]), 400, "BadRequest", /must be an object/],
    ["a wrong type", await post({ ...configMap("x"), data: { a: 1 } }), 400, "BadRequest", /cannot unmarshal/],
    ["a wrong kind", await post({ ...configMap("x"), kind: "Secret" }), 400, "BadRequest", /does not match the expected kind/],
    ["labels that are none", await post({ ...configMap("x"), metadata: { name: "x", labels: { "a b": "c" } } }), 422, "Invalid", /metadata.labels/],
    ["a bad name", await post(configMap("Not_A_Name")), 422, "Invalid", /RFC 1123/],
    ["no name", await post(configMap("")), 422, "Invalid", /name or generateName is required/],
    ["a prototype key", await post(Buffer.from('{"metadata":{"name":"x"},"data":{"__proto__":{"a":"b"}}}')), 400, "BadRequest", /__proto__/],
    ["a deep document", await post(Buffer.from(`${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`)), 400, "BadRequest", /nested deeper/],
    ["a large document", await post({ ...configMap("x"), data: { a: "x".repeat(60_000) } }), 413, "RequestEntityTooLarge", /too large/],
    ["an unknown format", await post(Buffer.from("x"), undefined, "text/csv"), 415, "UnsupportedMediaType", /unknown format/],
    ["an unknown type", await bench.send("GET", "/apis/nobody.io/v1/things"), 404, "NotFound", /could not find the requested resource/],
    ["a missing namespace", await post(configMap("x"), "/api/v1/namespaces/none/configmaps"), 404, "NotFound", /namespaces "none" not found/],
    ["another namespace", await post({ ...configMap("x"), metadata: { name: "x", namespace: "other" } }), 400, "BadRequest", /namespace/],
    ["an invalid deployment", await post(deployment, "/apis/apps/v1/namespaces/default/deployments"), 422, "Invalid", /selector.*does not match template/],
    ["a bad selector", await bench.send("GET", "/api/v1/pods?labelSelector=a%20b"), 400, "BadRequest", /parse requirement/],
    ["a bad encoding", await bench.send("GET", "/api/v1/namespaces/%ff/pods"), 400, "BadRequest", /encoded/],
    ["a bad method", await bench.send("PUT", `${inDefault}/configmaps`, configMap("x")), 405, "MethodNotAllowed", /not allow/],
    [
      "an unknown patch",
      await bench.send("PATCH", `${inDefault}/configmaps/kube-root-ca.crt`, {}, { type: "application/json" }),
      415,
      "UnsupportedMediaType",
      /unknown format/,
    ],
  ];
  for (const [what, { code, body }, expected, reason, message] of cases) {
    t.is(code, expected, what);
    t.is(body["kind"], "Status", what);
    t.is(body["reason"], reason, what);
    t.regex(stringAt(body["message"]) ?? "", message, what);
  }
  t.is((await bench.send("GET", "/readyz")).text, "ok", "and the server goes on");
});

test("bytes that are no request do not stop the server", async (t) => {
  await using bench = await TestBench.start();
  const { port, caPem } = bench.server;
  for (const bytes of [
    "\r\n\r\n",
    "GET / HTTP/9.9\r\n\r\n",
    `GET /${"a".repeat(100_000)} HTTP/1.1\r\n\r\n`,
    `GET / HTTP/1.1\r\nx: ${"y".repeat(70_000)}\r\n\r\n`,
    randomBytes(2000),
  ]) {
    const socket = connect({ port, host: "127.0.0.1", ca: caPem });
    const closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => undefined);
    socket.resume();
    socket.end(bytes);
    await closed;
  }
  for (const head of ["Upgrade: SPDY/3.1", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x"]) {
    const socket = connect({ port, host: "127.0.0.1", ca: caPem });
    const chunks: Buffer[] = [];
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.write(
      `GET ${inDefault}/pods/none/exec HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${bench.server.adminToken}\r\nConnection: Upgrade\r\n${head}\r\n\r\n`,
    );
    await new Promise((resolve) => socket.on("close", resolve));
    t.regex(Buffer.concat(chunks).toString("utf8"), /^HTTP\/1\.1 404 /);
  }
  t.is((await bench.send("GET", "/readyz")).code, 200);
});

test("unknown fields are refused, told or ignored, as the client asks", async (t) => {
  await using bench = await TestBench.start();
  const body = pod("p", { containres: [] });
  const strict = await bench.send("POST", `${inDefault}/pods?fieldValidation=Strict`, body);
  t.is(strict.code, 400);
  t.regex(stringAt(strict.body["message"]) ?? "", /strict decoding error: unknown field "spec.containres"/);
  const warned = await bench.send("POST", `${inDefault}/pods?dryRun=All`, body);
  t.is(warned.code, 201);
  t.regex(String(warned.headers["warning"]), /unknown field/);
  const ignored = await bench.send("POST", `${inDefault}/pods?dryRun=All&fieldValidation=Ignore`, body);
  t.is(ignored.headers["warning"], undefined);
  t.is((await bench.send("GET", `${inDefault}/pods/p`)).code, 404, "a dry run stores nothing");
});

test("generation counts changes of the spec, and status is only changed through its subresource", async (t) => {
  await using bench = await TestBench.start();
  const path = "/apis/apps/v1/namespaces/default/deployments";
  const spec = { selector: { matchLabels: { a: "b" } }, template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "i" }] } } };
  const created = await bench.send("POST", path, { metadata: { name: "d" }, spec, status: { replicas: 9 } });
  t.is(created.body["status"], undefined);
  t.is(atPath(created.body, "metadata", "generation"), 1);
  const merge = { type: "application/merge-patch+json" };
  const status = await bench.send("PATCH", `${path}/d/status`, { status: { replicas: 1 }, spec: { replicas: 7 } }, merge);
  t.is(atPath(status.body, "metadata", "generation"), 1);
  t.is(atPath(status.body, "spec", "replicas"), 1);
  t.is(atPath(status.body, "status", "replicas"), 1);
  const scaled = await bench.send("PATCH", `${path}/d/scale`, { spec: { replicas: 3 } }, merge);
  t.is(scaled.body["kind"], "Scale");
  const after = await bench.send("PATCH", `${path}/d`, { status: { replicas: 8 } }, merge);
  t.is(atPath(after.body, "metadata", "generation"), 2);
  t.is(atPath(after.body, "spec", "replicas"), 3);
  t.is(atPath(after.body, "status", "replicas"), 1);
});

test("a pod gets its grace period, its finalizers hold it, and the kubelet removes it", async (t) => {
  await using bench = await TestBench.start();
  await bench.send("POST", `${inDefault}/pods`, pod("p", { nodeName: "n1", terminationGracePeriodSeconds: 5 }));
  const deleting = await bench.send("DELETE", `${inDefault}/pods/p`);
  t.is(atPath(deleting.body, "metadata", "deletionGracePeriodSeconds"), 5);
  t.truthy(atPath(deleting.body, "metadata", "deletionTimestamp"));
  t.is((await bench.send("GET", `${inDefault}/pods/p`)).code, 200);
  await bench.send("DELETE", `${inDefault}/pods/p`, { kind: "DeleteOptions", apiVersion: "v1", gracePeriodSeconds: 0 });
  t.is((await bench.send("GET", `${inDefault}/pods/p`)).code, 404);
  await bench.send("POST", `${inDefault}/configmaps`, { ...configMap("f"), metadata: { name: "f", finalizers: ["x.io/hold"] } });
  await bench.send("DELETE", `${inDefault}/configmaps/f`);
  t.truthy(atPath((await bench.send("GET", `${inDefault}/configmaps/f`)).body, "metadata", "deletionTimestamp"));
  await bench.send("PATCH", `${inDefault}/configmaps/f`, { metadata: { finalizers: null } }, { type: "application/merge-patch+json" });
  t.is((await bench.send("GET", `${inDefault}/configmaps/f`)).code, 404);
});

async function eventually(check: () => Promise<boolean>): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if (await check()) return true;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return false;
}

test("dependents follow their owner, in the background and in the foreground", async (t) => {
  await using bench = await TestBench.start();
  const owned = async (policy: string, owner: string): Promise<boolean> => {
    const { body } = await bench.send("POST", `${inDefault}/configmaps`, configMap(owner));
    const reference = { apiVersion: "v1", kind: "ConfigMap", name: owner, uid: atPath(body, "metadata", "uid") ?? "" };
    await bench.send("POST", `${inDefault}/secrets`, { metadata: { name: `${owner}-child`, ownerReferences: [reference] } });
    await bench.send("DELETE", `${inDefault}/configmaps/${owner}?propagationPolicy=${policy}`);
    return eventually(async () => (await bench.send("GET", `${inDefault}/configmaps/${owner}`)).code === 404);
  };
  t.true(await owned("Background", "one"));
  t.true(await eventually(async () => (await bench.send("GET", `${inDefault}/secrets/one-child`)).code === 404));
  t.true(await owned("Foreground", "two"));
  t.is((await bench.send("GET", `${inDefault}/secrets/two-child`)).code, 404, "in the foreground the owner goes last");
  t.true(await owned("Orphan", "three"));
  const orphan = await bench.send("GET", `${inDefault}/secrets/three-child`);
  t.is(atPath(orphan.body, "metadata", "ownerReferences"), undefined);
});

test("a namespace is made with its account and its root certificate, and takes everything along when it goes", async (t) => {
  await using bench = await TestBench.start();
  await bench.send("POST", "/api/v1/namespaces", { metadata: { name: "shop" } });
  const account = "/api/v1/namespaces/shop/serviceaccounts/default";
  t.true(await eventually(async () => (await bench.send("GET", account)).code === 200));
  const published = await bench.send("GET", "/api/v1/namespaces/shop/configmaps/kube-root-ca.crt");
  t.is(atPath(published.body, "data", "ca.crt"), bench.server.caPem);
  await bench.send("POST", "/api/v1/namespaces/shop/pods", pod("p", { nodeName: "n" }));
  await bench.send("DELETE", "/api/v1/namespaces/shop");
  const refused = await bench.send("POST", "/api/v1/namespaces/shop/configmaps", configMap("late"));
  t.is(refused.code, 403);
  t.is(atPath((await bench.send("GET", "/api/v1/namespaces/shop")).body, "status", "phase"), "Terminating");
  await bench.send("DELETE", "/api/v1/namespaces/shop/pods/p?gracePeriodSeconds=0");
  t.true(await eventually(async () => (await bench.send("GET", "/api/v1/namespaces/shop")).code === 404));
  t.is((await bench.send("GET", account)).code, 404);
});

test("tokens prove their account and pod while both exist, for their audience", async (t) => {
  await using bench = await TestBench.start();
  const created = await bench.send("POST", `${inDefault}/pods`, pod("p"));
  const uid = atPath(created.body, "metadata", "uid") ?? "";
  const ask = (spec: JsonObject) => bench.send("POST", `${inDefault}/serviceaccounts/default/token`, { spec });
  const bound = await ask({ audiences: ["istio-ca"], expirationSeconds: 600, boundObjectRef: { kind: "Pod", apiVersion: "v1", name: "p", uid } });
  const token = stringAt(atPath(bound.body, "status", "token")) ?? "";
  const review = async (text: string, audiences: string[]) =>
    (
      await bench.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token: text, audiences },
      })
    ).body["status"] ?? null;
  const proven = await review(token, ["istio-ca"]);
  t.is(atPath(proven, "authenticated"), true);
  t.is(atPath(proven, "user", "username"), "system:serviceaccount:default:default");
  t.deepEqual(atPath(proven, "user", "extra", "authentication.kubernetes.io/pod-name"), ["p"]);
  t.is(atPath(await review(token, ["other"]), "authenticated"), undefined);
  t.is(atPath(await review(`${token.slice(0, -4)}AAAA`, ["istio-ca"]), "authenticated"), undefined);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8")) as JsonObject;
  t.is(atPath(claims, "kubernetes.io", "pod", "uid"), uid);
  t.is((await bench.send("GET", "/api/v1/pods", undefined, { token })).code, 401, "a token for another audience is none here");
  await bench.send("DELETE", `${inDefault}/pods/p?gracePeriodSeconds=0`);
  t.is(atPath(await review(token, ["istio-ca"]), "authenticated"), undefined);
  t.is((await ask({ boundObjectRef: { kind: "Pod", name: "p", uid } })).code, 404);
});

test("roles decide for service accounts, subresources apart, and refusals say who may not do what", async (t) => {
  await using bench = await TestBench.start();
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const { body } = await bench.send("POST", `${inDefault}/serviceaccounts/default/token`, { spec: {} });
  const token = stringAt(atPath(body, "status", "token"));
  const code = async (method: string, path: string, sent?: Json) =>
    (await bench.send(method, path, sent, { token, type: "application/merge-patch+json" })).code;
  const refused = await bench.send("GET", `${inDefault}/pods`, undefined, { token });
  t.is(
    refused.body["message"],
    'pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" in the namespace "default"',
  );
  await bench.send("POST", `${rbac}/namespaces/default/roles`, {
    metadata: { name: "r" },
    rules: [
      { apiGroups: [""], resources: ["pods"], verbs: ["list"] },
      { apiGroups: [""], resources: ["configmaps"], resourceNames: ["kube-root-ca.crt"], verbs: ["get"] },
      { apiGroups: [""], resources: ["services/status"], verbs: ["patch"] },
    ],
  });
  await bench.send("POST", `${rbac}/namespaces/default/rolebindings`, {
    metadata: { name: "r" },
    roleRef: { kind: "Role", name: "r" },
    subjects: [{ kind: "ServiceAccount", name: "default" }],
  });
  t.is(await code("GET", `${inDefault}/pods`), 200);
  t.is(await code("GET", "/api/v1/pods"), 403, "a role does not reach beyond its namespace");
  t.is(await code("GET", "/api/v1/namespaces/kube-system/pods"), 403);
  t.is(await code("GET", `${inDefault}/configmaps/kube-root-ca.crt`), 200);
  t.is(await code("GET", `${inDefault}/configmaps`), 403);
  t.is(await code("PATCH", `${inDefault}/services/kubernetes/status`, { status: { loadBalancer: {} } }), 200);
  t.is(await code("PATCH", `${inDefault}/services/kubernetes`, { metadata: { labels: { x: "y" } } }), 403);
  t.is((await bench.send("GET", "/api/v1/pods", undefined, { token: undefined })).code, 403);
  t.is((await bench.send("GET", "/api/v1/pods", undefined, { token: "wrong" })).code, 401);
  t.is((await bench.send("GET", "/readyz", undefined, { token: undefined })).code, 200);
  const impersonating = await bench.send("GET", `${inDefault}/pods`, undefined, {
    token,
    headers: { "impersonate-user": "admin", "impersonate-group": "system:masters" },
  });
  t.is(impersonating.code, 403, "nobody acts as somebody else unless a role says so");
});

test("services get addresses of their families, keep them, and never share them", async (t) => {
  await using bench = await TestBench.start();
  const service = (name: string, spec: JsonObject): JsonObject => ({ metadata: { name }, spec: { ports: [{ port: 80 }], ...spec } });
  const create = async (name: string, spec: JsonObject) => (await bench.send("POST", `${inDefault}/services`, service(name, spec))).body;
  const single = await create("a", {});
  t.regex(stringAt(atPath(single, "spec", "clusterIP")) ?? "", /^10\.96\.\d+\.\d+$/);
  const dual = await create("b", { ipFamilyPolicy: "PreferDualStack" });
  t.is(arrayAt(atPath(dual, "spec", "clusterIPs")).length, 2);
  t.regex(String(arrayAt(atPath(dual, "spec", "clusterIPs"))[1]), /^fd00:10:96::/);
  t.is(atPath(await create("c", { clusterIP: "None" }), "spec", "clusterIP"), "None");
  t.is(atPath(await create("d", { clusterIP: "10.96.0.10" }), "spec", "clusterIP"), "10.96.0.10");
  t.is((await create("e", { clusterIP: "10.96.0.10" }))["reason"], "Invalid");
  t.is((await create("f", { clusterIP: "192.168.0.1" }))["reason"], "Invalid");
  t.is(atPath(await create("g", { ipFamilies: ["IPv6"] }), "spec", "ipFamilies", 0), "IPv6");
  const replaced = await bench.send("PUT", `${inDefault}/services/a`, service("a", { ports: [{ port: 81 }] }));
  t.is(atPath(replaced.body, "spec", "clusterIP"), atPath(single, "spec", "clusterIP"));
});

test("a definition serves its versions, validates, defaults, prints columns, and takes its objects along", async (t) => {
  await using bench = await TestBench.start();
  const version = (name: string, storage: boolean): JsonObject => ({
    name,
    storage,
    served: true,
    subresources: { status: {} },
    additionalPrinterColumns: [{ name: "Size", type: "integer", jsonPath: ".spec.size" }],
    schema: {
      openAPIV3Schema: {
        type: "object",
        properties: {
          spec: { type: "object", properties: { size: { type: "integer", minimum: 1 }, color: { type: "string", default: "red" } } },
          status: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        },
      },
    },
  });
  const spec = { group: "x.io", scope: "Namespaced", names: { kind: "Widget", plural: "widgets" }, versions: [version("v1", true), version("v1beta1", false)] };
  const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  const defined = await bench.send("POST", definitions, { metadata: { name: "widgets.x.io" }, spec });
  t.is(defined.code, 201, defined.text);
  const widgets = "/apis/x.io/v1/namespaces/default/widgets";
  const created = await bench.send("POST", widgets, { apiVersion: "x.io/v1", kind: "Widget", metadata: { name: "w" }, spec: { size: 2, typo: 1 } });
  t.deepEqual(created.body["spec"], { size: 2, color: "red" });
  t.is((await bench.send("GET", "/apis/x.io/v1beta1/namespaces/default/widgets/w")).body["apiVersion"], "x.io/v1beta1");
  t.is((await bench.send("POST", widgets, { metadata: { name: "z" }, spec: { size: 0 } })).code, 422);
  t.is((await bench.send("PATCH", `${widgets}/w`, {}, { type: "application/strategic-merge-patch+json" })).code, 415);
  const table = await bench.send("GET", widgets, undefined, { accept: "application/json;as=Table;v=v1;g=meta.k8s.io" });
  t.deepEqual(atPath(table.body, "rows", 0, "cells"), ["w", 2]);
  t.is((await bench.send("POST", definitions, { metadata: { name: "wrong.x.io" }, spec })).code, 422);
  await bench.send("DELETE", `${definitions}/widgets.x.io`);
  t.true(await eventually(async () => (await bench.send("GET", widgets)).code === 404));
});

test("aggregated discovery and OpenAPI name the same types as the old documents", async (t) => {
  await using bench = await TestBench.start();
  const accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
  const aggregated = await bench.send("GET", "/apis", undefined, { accept });
  t.is(aggregated.headers["content-type"], accept);
  const groups = arrayAt(aggregated.body["items"]).map((item) => stringAt(atPath(item, "metadata", "name")));
  const legacy = arrayAt((await bench.send("GET", "/apis")).body["groups"]).map((group) => stringAt(atPath(group, "name")));
  t.deepEqual(groups, legacy);
  const index = await bench.send("GET", "/openapi/v3");
  for (const entry of Object.values(atPath(index.body, "paths") ?? {}))
    t.is((await bench.send("GET", stringAt(atPath(entry as Json, "serverRelativeURL")) ?? "")).code, 200);
});

test("a body without an announced length is refused when it grows too large", async (t) => {
  await using bench = await TestBench.start({ limits: { maxBodyBytes: 10_000 } });
  const body = Buffer.from(JSON.stringify(configMap("x", { a: "x".repeat(200_000) })));
  const chunked = await bench.send("POST", `${inDefault}/configmaps`, body, { headers: { "transfer-encoding": "chunked" } });
  t.is(chunked.code, 413);
  t.is(chunked.body["reason"], "RequestEntityTooLarge");
});

test("a connection accepted elsewhere is served like any other", async (t) => {
  await using bench = await TestBench.start();
  const elsewhere = createServer((socket) => bench.server.accept(socket));
  elsewhere.listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  try {
    const { port } = elsewhere.address() as AddressInfo;
    const socket = connect({ port, host: "127.0.0.1", ca: bench.server.caPem, servername: "kubernetes.default.svc" });
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.write("GET /readyz HTTP/1.1\r\nHost: kubernetes.default.svc\r\nConnection: close\r\n\r\n");
    await once(socket, "close");
    t.regex(Buffer.concat(chunks).toString("utf8"), /^HTTP\/1\.1 200 OK[\s\S]*ok$/);
  } finally {
    elsewhere.close();
  }
});

test("the kubeconfig holds all a client needs", async (t) => {
  await using bench = await TestBench.start();
  const text = bench.server.kubeconfig({ server: "https://kubernetes.default.svc", user: "someone", token: "secret" });
  const config: unknown = parse(text);
  t.is(atPath(config as Json, "clusters", 0, "cluster", "server"), "https://kubernetes.default.svc");
  t.is(atPath(config as Json, "users", 0, "user", "token"), "secret");
  t.is(
    Buffer.from(stringAt(atPath(config as Json, "clusters", 0, "cluster", "certificate-authority-data")) ?? "", "base64").toString("utf8"),
    bench.server.caPem,
  );
});

test("random documents and patches never make an internal error", async (t) => {
  await using bench = await TestBench.start();
  await bench.send("POST", `${inDefault}/pods`, pod("p"));
  let seed = 42;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
    return seed % below;
  };
  const words = [
    "metadata",
    "spec",
    "name",
    "labels",
    "containers",
    "finalizers",
    "ownerReferences",
    "$patch",
    "$setElementOrder/containers",
    "status",
    "managedFields",
    "constructor",
    "ports",
    "env",
  ];
  const value = (depth: number): Json => {
    switch (random(depth > 3 ? 5 : 8)) {
      case 0:
        return null;
      case 1:
        return random(1000) - 500;
      case 2:
        return words[random(words.length)] ?? "";
      case 3:
        return random(2) === 0;
      case 4:
        return "x";
      case 5:
        return Array.from({ length: random(4) }, () => value(depth + 1));
      default:
        return Object.fromEntries(Array.from({ length: random(5) }, () => [words[random(words.length)] ?? "", value(depth + 1)]));
    }
  };
  const types = ["application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"];
  for (let round = 0; round < 400; round += 1) {
    const type = types[round % types.length] ?? "";
    const { code, text } = await bench.send("PATCH", `${inDefault}/pods/p?fieldManager=fuzz&force=true`, value(0), { type });
    t.true(code < 500, `${type}: ${text}`);
    const created = await bench.send("POST", `${inDefault}/${["pods", "services", "configmaps"][round % 3]}`, value(0));
    t.true(created.code < 500, created.text);
  }
});

test("a job without a selector selects its own pods and no others, also after it is replaced without one", async (t) => {
  await using bench = await TestBench.start();
  const path = "/apis/batch/v1/namespaces/default/jobs";
  const job = { metadata: { name: "once" }, spec: { template: { spec: { restartPolicy: "Never", containers: [{ name: "c", image: "i" }] } } } };
  const { body } = await bench.send("POST", path, job);
  const uid = stringAt(atPath(body, "metadata", "uid")) ?? "";
  const own = { "batch.kubernetes.io/controller-uid": uid };
  t.deepEqual(atPath(body, "spec", "selector"), { matchLabels: own });
  t.like(atPath(body, "spec", "template", "metadata", "labels"), { ...own, "job-name": "once" });
  t.deepEqual(atPath((await bench.send("PUT", `${path}/once`, job)).body, "spec", "selector"), { matchLabels: own });
  const manual = await bench.send("POST", path, {
    metadata: { name: "own" },
    spec: { ...job.spec, manualSelector: true, selector: { matchLabels: { a: "b" } } },
  });
  t.deepEqual(atPath(manual.body, "spec", "selector"), { matchLabels: { a: "b" } });
});
