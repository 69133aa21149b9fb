import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { findProgram, TestBench } from "./test-bench.ts";

const helm = await findProgram(process.env["FAIRWAY_HELM"] ?? "helm");
const withHelm = helm === undefined ? test.skip : test;
if (helm === undefined)
  console.warn("skipped: the test that installs a chart with the real helm, because there is no helm on the path and FAIRWAY_HELM names none");

const files: Readonly<Record<string, string>> = {
  "Chart.yaml": "apiVersion: v2\nname: tiny\nversion: 0.1.0\n",
  "values.yaml": "image: a:1\n",
  "crds/widgets.yaml": `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`,
  "templates/all.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  selector: {matchLabels: {app: tiny}}
  template:
    metadata: {labels: {app: tiny}}
    spec: {containers: [{name: c, image: "{{ .Values.image }}"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: facts}
data: {gateways: "{{ .Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/Gateway" }}", image: "{{ .Values.image }}"}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 3}
`,
};

withHelm("helm installs, upgrades, rolls back and uninstalls a chart with a definition of its own", async (t) => {
  await using bench = await TestBench.start();
  const folder = await mkdtemp(join(tmpdir(), "fairway-chart-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(folder, name, ".."), { recursive: true });
      await writeFile(join(folder, name), text);
    }
    const run = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await bench.run(helm ?? "", [...args, "--namespace", "mesh"]);
      t.is(code, 0, `helm ${args.join(" ")}: ${stderr}`);
      t.notRegex(stderr, /unknown field/);
      return stdout;
    };
    const image = async () => (await bench.send("GET", "/api/v1/namespaces/mesh/configmaps/facts")).body["data"];
    await run("install", "rel", folder, "--create-namespace");
    t.deepEqual(await image(), { gateways: "true", image: "a:1" });
    await run("upgrade", "rel", folder, "--set", "image=a:2");
    t.deepEqual(await image(), { gateways: "true", image: "a:2" });
    await run("rollback", "rel", "1");
    t.deepEqual(await image(), { gateways: "true", image: "a:1" });
    t.regex(await run("list"), /rel\s+mesh\s+3/);
    await run("uninstall", "rel", "--wait", "--timeout", "60s");
    t.is((await bench.send("GET", "/apis/apps/v1/namespaces/mesh/deployments/rel")).code, 404);
    t.is((await bench.send("GET", "/apis/example.com/v1/namespaces/mesh/widgets/w")).code, 404);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
