import { basename } from "node:path";

/** Two files run at a time: the longest begin first, so that no long one is left over when all others are done. */
const longestFirst = ["waypoint", "gateway-api", "faults", "rotation", "requests", "dns", "data-plane", "upgrade"];

function rank(file) {
  const index = longestFirst.indexOf(basename(file, ".test.js"));
  return index === -1 ? longestFirst.length : index;
}

// biome-ignore lint/style/noDefaultExport: what ava reads.
export default {
  files: ["dist/**/*.test.js"],
  timeout: "10m",
  workerThreads: false,
  concurrency: 2,
  sortTestFiles: (one, other) => rank(one) - rank(other),
};
