// The boundaries of the house, as docs/overview.md draws them. A package may import only what its row allows.
const engines = ["kube", "xds", "pki", "hbone", "linux"];
const programs = ["cli", "local-cluster", "node-agent", "controller", "ztunnel", "waypoint"];
const allowed = {
  model: [],
  runtime: [],
  protocol: ["model"],
  hbone: ["model", "runtime"],
  pki: ["model", "protocol", "runtime"],
  xds: ["model", "protocol", "runtime"],
  kube: ["runtime"],
  linux: ["runtime"],
  ztunnel: ["model", "runtime", "protocol", "xds", "pki", "hbone", "linux"],
  waypoint: ["model", "runtime", "protocol", "xds", "pki", "hbone"],
  controller: ["model", "runtime", "protocol", "xds", "pki", "kube"],
  "node-agent": ["model", "runtime", "protocol", "kube", "linux"],
  "local-cluster": ["model", "runtime", "kube", "linux", "pki"],
  // The one program that starts another: `fairway up` and `fairway demo` raise the embedded cluster.
  cli: ["model", "runtime", "protocol", "kube", "linux", "local-cluster"],
};
const everything = ["model", "runtime", "protocol", ...engines, ...programs];

/** @type {import("dependency-cruiser").IConfiguration} */
export default {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    ...Object.entries(allowed).map(([name, imports]) => ({
      name: `${name}-boundary`,
      severity: "error",
      from: { path: `^packages/${name}/src` },
      to: { path: `^packages/(${everything.filter((other) => other !== name && !imports.includes(other)).join("|")})/` },
    })),
    {
      name: "one-kubernetes-client",
      severity: "error",
      from: { path: "^packages/", pathNot: "^packages/kube/src/client\\.ts$" },
      to: { path: "@kubernetes/client-node" },
    },
    {
      name: "one-door",
      severity: "error",
      from: { path: "^packages/([^/]+)/src" },
      to: { path: "^packages/([^/]+)/(src|dist)/(?!index\\.)", pathNot: "^packages/$1/" },
    },
    { name: "model-is-pure", severity: "error", from: { path: "^packages/model/src", pathNot: "\\.test\\.ts$" }, to: { dependencyTypes: ["core"] } },
  ],
  options: {
    doNotFollow: { path: ["node_modules", "dist/"] },
    exclude: { path: ["/dist/.*\\.test\\.", "src/gen/"] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.base.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "default", "types"] },
  },
};
