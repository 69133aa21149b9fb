// Renders charts/fairway with the real helm into charts/fairway/rendered/fairway.yaml; with --check only compares.
// helm is taken from $HELM, or from the PATH. Without it nothing can be said, and that is said.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const rendered = `${root}charts/fairway/rendered/fairway.yaml`;
const helm = process.env.HELM ?? "helm";
const namespace = "fairway-system";
// Fixed, so that every build of helm renders the same.
const kubeVersion = "1.32.0";
const check = process.argv.includes("--check");

// helm creates the namespace on install but never renders it.
const head = `# What helm makes of charts/fairway with its default values: node tools/render-chart.mjs
---
apiVersion: v1
kind: Namespace
metadata:
  name: ${namespace}
`;

function run(...args) {
  const { error, status, stdout, stderr } = spawnSync(helm, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (error?.code === "ENOENT") return undefined;
  if (error !== undefined || status !== 0) {
    console.error(`helm ${args.join(" ")} failed:\n${stderr || error?.message}`);
    process.exit(1);
  }
  return stdout;
}

if (run("version", "--short") === undefined) {
  console.log("SKIPPED render-chart: helm is not on the PATH (set HELM to its path), so the rendered chart was not compared");
  process.exit(0);
}
run("lint", "--strict", "charts/fairway");
const text = head + run("template", "fairway", "charts/fairway", "-n", namespace, "--include-crds", "--kube-version", kubeVersion).replace(/[ \t]+$/gm, "");
if (!check) {
  writeFileSync(rendered, text);
  console.log("wrote charts/fairway/rendered/fairway.yaml");
} else if (readFileSync(rendered, "utf8") !== text) {
  console.error("charts/fairway/rendered/fairway.yaml is not what helm renders now; run node tools/render-chart.mjs and commit the result");
  process.exit(1);
} else {
  console.log("charts/fairway/rendered/fairway.yaml is what helm renders");
}
