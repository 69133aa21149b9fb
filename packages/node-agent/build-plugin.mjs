/** Bundles the CNI plugin into one file without dependencies: the container runtime starts it for every pod. */
import { build } from "esbuild";

await build({
  entryPoints: ["dist/plugin/main.js"],
  outfile: "dist/fairway-cni.cjs",
  bundle: true,
  platform: "node",
  target: "node24",
  format: "cjs",
  minify: true,
  legalComments: "none",
});
