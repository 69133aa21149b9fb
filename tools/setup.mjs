// Makes a clean clone runnable: dependencies with the pinned Node, system tools, build. Runs on any Node from 18 on,
// before anything is installed, and so is plain JavaScript without dependencies. Does only what is missing.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const binaries = join(root, "node_modules", ".bin");
const env = { ...process.env, PATH: `${binaries}${delimiter}${process.env.PATH}`, TURBO_TELEMETRY_DISABLED: "1", DO_NOT_TRACK: "1" };

/** Command, Debian package and what the mesh needs it for. */
const systemTools = [
  ["nft", "nftables", "redirection rules"],
  ["ip", "iproute2", "network namespaces"],
  ["nsenter", "util-linux", "processes in network namespaces"],
];

function run(what, command, args, options = {}) {
  process.stderr.write(`• ${what}\n`);
  const result = spawnSync(command, args, { cwd: root, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 28, ...options });
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}\n`);
  fail(`${what} failed (${command} ${args.join(" ")}: ${result.error?.message ?? `exit ${result.status}`})`);
}

function fail(message) {
  process.stderr.write(`fairway setup: ${message}\n`);
  process.exit(1);
}

function installDependencies() {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const stamp = join(root, "node_modules", ".fairway-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  run("installing dependencies (once)", "npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
  writeFileSync(stamp, lock);
}

function checkNode() {
  const version = spawnSync("node", ["--version"], { env, encoding: "utf8" }).stdout.trim();
  if (Number(version.slice(1).split(".")[0]) < 24) {
    fail(`the pinned Node 24 did not arrive with the install (found ${version}); it exists for Linux on x64 and arm64`);
  }
}

function installSystemTools() {
  if (process.platform !== "linux") fail("the mesh needs Linux: network namespaces and nftables");
  const present = (command) =>
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", ...(env.PATH ?? "").split(delimiter)].some((folder) => existsSync(join(folder, command)));
  const missing = systemTools.filter(([command]) => !present(command));
  if (missing.length === 0) return;
  const named = missing.map(([command, , use]) => `${command} (${use})`).join(", ");
  const packages = missing.map(([, name]) => name);
  if (process.getuid?.() !== 0 || !present("apt-get")) fail(`missing system tools: ${named}. Install ${packages.join(" ")} and run this again.`);
  const quiet = { env: { ...env, DEBIAN_FRONTEND: "noninteractive" } };
  run(`missing system tools: ${named}; updating the package lists`, "apt-get", ["update", "-qq"], quiet);
  run(`installing ${packages.join(" ")}`, "apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], quiet);
}

installDependencies();
checkNode();
installSystemTools();
run("building", "turbo", ["run", "build", "--output-logs=errors-only", "--ui=stream"]);
