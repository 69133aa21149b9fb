import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import test from "ava";
import { findProgram, TestBench } from "./test-bench.ts";

const manifest = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:1", env: [{name: A, value: "1"}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: box, namespace: shop, labels: {app: box}}
spec: {containers: [{name: box, image: box}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`;

const kubectl = await findProgram("kubectl");
const withKubectl = kubectl === undefined ? test.skip : test;
if (kubectl === undefined) console.warn("skipped: the tests that drive the API server with the real kubectl, because there is no kubectl on the path");

withKubectl("kubectl applies, gets, describes, labels, annotates, scales, waits and deletes", async (t) => {
  await using bench = await TestBench.start();
  const ok = async (args: string, input?: string): Promise<string> => {
    const { code, stdout, stderr } = await bench.kubectl(args, input);
    t.is(code, 0, `kubectl ${args}: ${stderr}`);
    return stdout;
  };
  t.regex(await ok("apply -f -", manifest), /deployment.apps\/web created/);
  t.regex(await ok("apply -f -", manifest), /deployment.apps\/web unchanged/);
  await ok("apply -f -", manifest.replace("web:1", "web:2").replace("{name: A,", "{name: B,"));
  t.is(await ok("get deployment web -n shop -o jsonpath={.spec.template.spec.containers[0].image}{.spec.template.spec.containers[0].env[*].name}"), "web:2B");
  t.regex(await ok("get deployments -n shop"), /NAME +READY +UP-TO-DATE +AVAILABLE +AGE\nweb +0\/2/);
  t.regex(await ok("get pods -n shop -o wide"), /box +0\/1 +Pending +0 .* IP +NODE|NAME +READY +STATUS/);
  t.regex(await ok("get gateways -n shop"), /NAME +CLASS +ADDRESS +PROGRAMMED +AGE\nwaypoint +istio-waypoint/);
  t.regex(await ok("describe pod box -n shop"), /Service Account: +default/);
  t.regex(await ok("describe namespace shop"), /Status: +Active/);
  await ok("label namespace shop istio.io/dataplane-mode=ambient");
  t.regex(await ok("get ns -l istio.io/dataplane-mode=ambient"), /shop +Active/);
  await ok("annotate pod box -n shop note=hello");
  await ok("scale deployment/web -n shop --replicas=5");
  t.is(await ok("get deployment web -n shop -o jsonpath={.spec.replicas}"), "5");
  await ok("wait --for=condition=Established crd/gateways.gateway.networking.k8s.io --timeout=60s");
  await ok("wait --for=delete pod/none -n shop --timeout=60s");
  t.regex(await ok("get all -n shop"), /pod\/box/);
  t.regex(await ok("api-resources --api-group=gateway.networking.k8s.io"), /httproutes/);
  t.regex(await ok("explain gateway.spec.gatewayClassName"), /FIELD: gatewayClassName <string>/);
  await ok("delete pod box -n shop");
  await ok("delete namespace shop --timeout=60s");
  t.regex((await bench.kubectl("get ns shop")).stderr, /NotFound/);
});

withKubectl("kubectl follows a rollout to its end", async (t) => {
  await using bench = await TestBench.start();
  await bench.kubectl("apply -f -", manifest);
  const waiting = bench.kubectl("rollout status deployment/web -n shop --timeout=60s");
  const replicas = { observedGeneration: 1, replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 2 };
  await bench.send("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/status", { status: replicas }, { type: "application/merge-patch+json" });
  const { code, stdout } = await waiting;
  t.is(code, 0);
  t.regex(stdout, /successfully rolled out/);
  t.is((await bench.kubectl("rollout restart deployment/web -n shop")).code, 0);
});

withKubectl("kubectl apply --server-side keeps owners apart and reports conflicts", async (t) => {
  await using bench = await TestBench.start();
  t.is((await bench.kubectl("apply --server-side -f -", manifest)).code, 0);
  const other = await bench.kubectl("apply --server-side --field-manager=other -f -", manifest.replace("replicas: 2", "replicas: 3"));
  t.not(other.code, 0);
  t.regex(other.stderr, /conflict with "kubectl" using apps\/v1: \.spec\.replicas/);
  t.is((await bench.kubectl("apply --server-side --force-conflicts --field-manager=other -f -", manifest.replace("replicas: 2", "replicas: 3"))).code, 0);
  t.is((await bench.kubectl("get deploy web -n shop -o jsonpath={.spec.replicas}")).stdout, "3");
});

withKubectl("a client-side apply can go on server-side", async (t) => {
  await using bench = await TestBench.start();
  t.is((await bench.kubectl("apply -f -", manifest)).code, 0);
  const { code, stderr } = await bench.kubectl("apply --server-side -f -", manifest.replace("web:1", "web:2"));
  t.is(code, 0, stderr);
  t.notRegex(stderr, /failed to re-apply/);
});

withKubectl("what is wrong with a manifest is said by kubectl in one line", async (t) => {
  await using bench = await TestBench.start();
  const refused = async (input: string): Promise<string> => {
    const { code, stderr } = await bench.kubectl("apply -f -", input);
    t.not(code, 0);
    return stderr;
  };
  t.regex(await refused(manifest.replace("replicas:", "replica:")), /strict decoding error: unknown field "spec.replica"/);
  t.regex(await refused("a: [1\nb: }"), /error/);
  t.regex(await refused(manifest.replace("image: box", "imag: box")), /unknown field "spec.containers\[0\].imag"/);
  t.regex(await refused(manifest.replace("port: 15008", "port: 0")), /spec.listeners\[0\].port/);
  const large = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata: {a: "${"x".repeat(3_500_000)}"}\n`;
  const { code, stderr } = await bench.kubectl("create -f -", large);
  t.not(code, 0);
  t.regex(stderr, /too large/i);
});

withKubectl("kubectl's typed commands, which speak protobuf, are understood", async (t) => {
  await using bench = await TestBench.start();
  const ok = async (args: string): Promise<string> => {
    const { code, stdout, stderr } = await bench.kubectl(args);
    t.is(code, 0, `kubectl ${args}: ${stderr}`);
    return stdout.trim();
  };
  await ok("create namespace demo");
  await ok("create deployment d -n demo --image=nginx --replicas=0");
  t.is(await ok("get deployment d -n demo -o jsonpath={.spec.replicas}"), "0");
  await ok("create configmap c -n demo --from-literal=a=b");
  await ok("create secret generic s -n demo --from-literal=a=b");
  t.is(await ok("get secret s -n demo -o jsonpath={.data.a}"), "Yg==");
  await ok("create serviceaccount bob -n demo");
  await ok("create role r -n demo --verb=get,list --resource=pods");
  await ok("create rolebinding r -n demo --role=r --serviceaccount=demo:bob");
  t.is(await ok("auth can-i list pods -n demo --as=system:serviceaccount:demo:bob"), "yes");
  t.is((await bench.kubectl("auth can-i delete pods -n demo --as=system:serviceaccount:demo:bob")).stdout.trim(), "no");
  const token = await ok("create token bob -n demo");
  t.is((await bench.kubectl(`--token=${token} get pods -n demo`)).code, 0);
  t.regex((await bench.kubectl(`--token=${token} get secrets -n demo`)).stderr, /cannot list resource "secrets"/);
  t.regex(await ok("auth whoami"), /kubernetes-admin/);
});

withKubectl("kubectl reads logs and runs commands with input, output and exit codes", async (t) => {
  await using bench = await TestBench.start();
  await bench.kubectl("apply -f -", manifest);
  t.is((await bench.kubectl("logs box -n shop --tail=2")).stdout, "box two\nbox three\n");
  t.regex((await bench.kubectl("logs box -n shop -c none")).stderr, /container none is not valid for pod box/);
  t.is((await bench.kubectl("exec box -n shop -- echo hello world")).stdout, "hello world\n");
  t.is((await bench.kubectl("exec -i box -n shop -- cat", "through the pipe\n")).stdout, "through the pipe\n");
  const failed = await bench.kubectl("exec box -n shop -- fail 7");
  t.is(failed.code, 7);
  t.regex(failed.stderr, /it failed/);
  t.regex((await bench.kubectl("exec none -n shop -- cat")).stderr, /pods "none" not found/);
});

withKubectl("kubectl forwards a port, connection after connection", async (t) => {
  await using bench = await TestBench.start();
  await bench.kubectl("apply -f -", manifest);
  await bench.send("PATCH", "/api/v1/namespaces/shop/pods/box/status", { status: { phase: "Running" } }, { type: "application/merge-patch+json" });
  const app = createServer((incoming, response) => response.end(`path ${incoming.url}`));
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  const { port } = app.address() as AddressInfo;
  const forward = spawn("kubectl", ["port-forward", "pod/box", "-n", "shop", `:${port}`], { env: { ...process.env, KUBECONFIG: bench.kubeconfig } });
  try {
    const ended = once(forward, "exit").then(() => [Buffer.from("kubectl ended")]);
    const [line] = (await Promise.race([once(forward.stdout, "data"), ended])) as [Buffer];
    const local = /127\.0\.0\.1:(\d+)/.exec(line.toString("utf8"))?.[1];
    for (const path of ["one", "two"])
      t.is(await (await fetch(`http://127.0.0.1:${local}/${path}`, { headers: { connection: "close" } })).text(), `path /${path}`);
  } finally {
    forward.kill();
    app.closeAllConnections();
    app.close();
  }
});
