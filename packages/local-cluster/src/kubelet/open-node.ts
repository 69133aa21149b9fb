/** Puts a node together: its directories, its CNI configuration, the process that stands for its pid 1, its sockets. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KubeClient } from "@fairway/kube";
import { linuxPodNetwork, openNamespace } from "@fairway/linux";
import { type Clock, type Logger, MeshError } from "@fairway/runtime";
import { maxCommandOutputBytes } from "../command.ts";
import type { PodCgroups } from "../container/cgroups.ts";
import type { Machine } from "../container/machine.ts";
import { launchContainer, startProcess } from "../container/process.ts";
import type { Mount } from "../container/root-script.ts";
import type { ClusterCollections } from "../controllers/context.ts";
import type { ImageCatalog } from "../images.ts";
import type { Ledger } from "../ledger.ts";
import type { NodeAddresses } from "../network/address-plan.ts";
import { BridgePlugin, bridgePluginType } from "../network/bridge-plugin.ts";
import { Cni, configurationDirectory, type RunPlugin } from "../network/cni.ts";
import type { NodeContext } from "./node.ts";

export interface OpenNodeOptions {
  readonly cluster: string;
  readonly stateDir: string;
  readonly plan: NodeAddresses;
  readonly network: { readonly name: string; readonly namespacePath: string };
  readonly machine: Machine;
  readonly cgroups: PodCgroups;
  readonly ledger: Ledger;
  readonly images: ImageCatalog;
  readonly client: KubeClient;
  readonly collections: ClusterCollections;
  readonly clock: Clock;
  readonly log: Logger;
}

const cniVersion = "1.0.0";

/** What it opens goes onto the stack. */
export function openNode(options: OpenNodeOptions, stack: AsyncDisposableStack): NodeContext {
  const { cluster, stateDir, plan, network, machine, ledger, clock, collections } = options;
  const log = options.log.scope(plan.name);
  const directory = join(stateDir, "nodes", plan.name);
  const root = join(directory, "root");
  for (const path of ["etc/cni/net.d", "opt/cni/bin", "run", "var/lib/kubelet", "var/log/pods"]) mkdirSync(join(root, path), { recursive: true });
  const configuration = { cniVersion, name: "fairway-local", plugins: [{ type: bridgePluginType }] };
  writeFileSync(join(root, configurationDirectory, "10-fairway-local.conflist"), `${JSON.stringify(configuration, undefined, 2)}\n`);
  const namespace = stack.use(openNamespace(network.namespacePath));
  const init = startProcess(["setpriv", "--pdeathsig=KILL", "nsenter", `--net=${network.namespacePath}`, "sleep", "infinity"]);
  stack.defer(async () => {
    init.kill();
    await init.exit.catch(() => undefined);
  });
  if (init.pid !== undefined) ledger.recordProcess(init.pid);
  const cni = new Cni({
    configurationDir: join(root, configurationDirectory),
    bridge: new BridgePlugin(plan, network.name),
    run: pluginRunner({ root, directory, machine, ledger, namespacePath: network.namespacePath }),
  });
  return {
    cluster,
    addresses: plan,
    paths: { root, initPid: init.pid },
    directory,
    namespacePath: network.namespacePath,
    network: stack.use(linuxPodNetwork(namespace, { clock })),
    cni,
    machine,
    cgroups: options.cgroups,
    ledger,
    images: options.images,
    client: options.client,
    configMaps: collections.configMaps,
    secrets: collections.secrets,
    pods: collections.pods,
    clock,
    log,
    randomId: () => randomBytes(32).toString("hex"),
  };
}

/** CNI plugins run in the node's network and see the node's /opt/cni, /etc/cni and /run. */
function pluginRunner({
  root,
  directory,
  machine,
  ledger,
  namespacePath,
}: {
  readonly root: string;
  readonly directory: string;
  readonly machine: Machine;
  readonly ledger: Ledger;
  readonly namespacePath: string;
}): RunPlugin {
  return async ({ type, env, stdin, signal }) => {
    if (!existsSync(join(root, "opt/cni/bin", type))) {
      throw new MeshError("LOCAL_CLUSTER_CNI_FAILED", `failed to find plugin "${type}" in path [/opt/cni/bin]`);
    }
    const own = join(directory, "plugins", randomBytes(8).toString("hex"));
    mkdirSync(own, { recursive: true });
    const input = join(own, "stdin");
    writeFileSync(input, stdin, { mode: 0o600 });
    try {
      const child = await launchContainer({
        ledger,
        netNamespacePath: namespacePath,
        directory: own,
        hostPid: true,
        root: {
          strategy: machine.rootStrategy,
          hostname: "node",
          mounts: nodeMounts(root),
          copies: [{ source: input, target: "/.stdin" }],
          readOnlyRoot: false,
          keep: machine.keep,
          cgroupFile: undefined,
          program: {
            argv: ["sh", "-c", 'exec "$0" < /.stdin', `/opt/cni/bin/${type}`],
            env: { ...env, PATH: machine.path },
            workingDir: "/",
            privileges: [],
          },
        },
      });
      const kill = (): void => void child.signal("SIGKILL");
      signal.addEventListener("abort", kill, { once: true });
      if (signal.aborted) kill();
      const [stdout, stderr, exit] = await Promise.all([textOf(child.stdout), textOf(child.stderr), child.exit]);
      signal.removeEventListener("abort", kill);
      signal.throwIfAborted();
      return { code: exit.code, stdout, stderr };
    } finally {
      rmSync(own, { recursive: true, force: true });
    }
  };
}

/** The node's directories over the machine's: /run as a whole, elsewhere what the node has of its own. */
function nodeMounts(root: string): Mount[] {
  const mounts: Mount[] = [
    { source: join(root, "run"), target: "/run", kind: "directory", readOnly: false },
    { source: "/run/netns", target: "/run/netns", kind: "directory", readOnly: false },
  ];
  for (const parent of ["etc", "opt", "var/lib", "var/log"]) {
    const directory = join(root, parent);
    if (!existsSync(directory)) continue;
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) mounts.push({ source: join(directory, entry.name), target: `/${parent}/${entry.name}`, kind: "directory", readOnly: false });
    }
  }
  return mounts;
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length <= maxCommandOutputBytes) chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}
