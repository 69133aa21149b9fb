/**
 * Renders charts/fairway with the real helm into charts/fairway/rendered/fairway.yaml; with --check only lints and compares.
 * helm is taken from $FAIRWAY_HELM, or from the PATH. Without it nothing can be said, and that is said.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const rendered = `${root}charts/fairway/rendered/fairway.yaml`;
const helm = process.env["FAIRWAY_HELM"] ?? "helm";
const namespace = "fairway-system";
// Fixed, so that every build of helm renders the same.
const kubeVersion = "1.32.0";
const check = process.argv.includes("--check");

// helm creates the namespace on install but never renders it.
const head = `# What helm makes of charts/fairway with its default values: node tools/render-chart.ts
---
apiVersion: v1
kind: Namespace
metadata:
  name: ${namespace}
`;

function run(...args: readonly string[]): string | undefined {
  const { error, status, stdout, stderr } = spawnSync(helm, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (error !== undefined && "code" in error && error.code === "ENOENT") return undefined;
  if (error !== undefined || status !== 0) {
    console.error(`helm ${args.join(" ")} failed:\n${stderr || error?.message}`);
    process.exit(1);
  }
  return stdout;
}

if (run("version", "--short") === undefined) {
  console.log("skipped: comparing the rendered chart with helm's output (helm is not on the PATH; FAIRWAY_HELM can name it)");
  process.exit(0);
}
run("lint", "--strict", "charts/fairway");
const output = run("template", "fairway", "charts/fairway", "-n", namespace, "--include-crds", "--kube-version", kubeVersion) ?? "";
const text = head + output.replace(/[ \t]+$/gm, "");
if (!check) {
  writeFileSync(rendered, text);
  console.log("wrote charts/fairway/rendered/fairway.yaml");
} else if (readFileSync(rendered, "utf8") !== text) {
  console.error("charts/fairway/rendered/fairway.yaml is not what helm renders now; run node tools/render-chart.ts and commit the result");
  process.exit(1);
} else {
  console.log("charts/fairway/rendered/fairway.yaml is what helm renders");
}
