/** From a container's spec to a running process: image, environment, mounts, privileges, log. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "@fairway/runtime";
import { showCgroup } from "../container/cgroups.ts";
import { ContainerLog } from "../container/log-file.ts";
import { privilegeArguments, requestedUser } from "../container/privileges.ts";
import { launchContainer } from "../container/process.ts";
import { containerCommand, findImage } from "../images.ts";
import type { Container, Pod } from "../resources.ts";
import { hostname, hostsFile, resolvConf } from "./container-files.ts";
import type { ContainerRun } from "./container-runner.ts";
import { containerEnvironment, expandArguments } from "./environment.ts";
import { hostIps, type NodeContext } from "./node.ts";
import type { Sandbox } from "./sandbox.ts";
import type { PodVolumes } from "./volumes.ts";

export interface StartRequest {
  readonly pod: Pod;
  readonly container: Container;
  readonly restart: number;
  readonly sandbox: Sandbox;
  readonly volumes: PodVolumes;
}

/** Throws LOCAL_CLUSTER_IMAGE_NOT_FOUND, LOCAL_CLUSTER_CONTAINER_CONFIG, LOCAL_CLUSTER_LAUNCH_FAILED. */
export async function startContainer(node: NodeContext, { pod, container, restart, sandbox, volumes }: StartRequest): Promise<ContainerRun> {
  const image = findImage(node.images, container.image ?? "");
  const env = environmentOf(node, pod, container, sandbox, image?.env ?? {});
  const argv = containerCommand(image, expandArguments(container.command, env), expandArguments(container.args, env));
  if (argv === undefined) {
    throw new MeshError(
      "LOCAL_CLUSTER_IMAGE_NOT_FOUND",
      `image "${container.image ?? ""}" stands for no command on this cluster, and the container names none; give it a "command", or start the cluster with the image in its catalog`,
    );
  }
  checkUser(container, pod);
  const id = `${node.randomId()}${node.randomId()}`.slice(0, 64);
  const directory = join(podDirectory(node, pod), "containers", container.name, String(restart));
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const etc = writeEtc(directory, pod, sandbox.ips);
  const podUid = pod.metadata.uid ?? "";
  const cgroupFile = node.cgroups.create(podUid, id);
  const process = await launchContainer({
    ledger: node.ledger,
    netNamespacePath: sandbox.namespacePath,
    directory,
    root: {
      strategy: node.machine.rootStrategy,
      hostname: pod.spec.hostNetwork === true ? node.addresses.name : hostname(pod),
      mounts: volumes.mounts(container, env),
      copies: etc,
      readOnlyRoot: container.securityContext?.readOnlyRootFilesystem === true,
      keep: node.machine.keep,
      cgroupFile,
      program: {
        argv,
        env,
        workingDir: container.workingDir ?? "/",
        privileges: node.machine.changesUsers ? privilegeArguments(container.securityContext, pod.spec.securityContext) : [],
      },
    },
  });
  const log = new ContainerLog(logPath(node, pod, container.name, restart), () => node.clock.now());
  log.attach(process.stdout, "stdout");
  log.attach(process.stderr, "stderr");
  const pid = process.programPid();
  if (cgroupFile === undefined && node.machine.ownsProc && pid !== undefined) await showCgroup(pid, { podUid, containerId: id, directory });
  return { id, process, log };
}

/** Where a pod's files are on this machine. */
export function podDirectory(node: NodeContext, pod: Pod): string {
  return join(node.directory, "pods", pod.metadata.uid ?? pod.metadata.name);
}

/** Where the node keeps a run's log, as /var/log/pods on a real one. */
export function logPath(node: NodeContext, pod: Pod, container: string, restart: number): string {
  const { namespace, name, uid } = pod.metadata;
  return join(node.paths.root, "var/log/pods", `${namespace}_${name}_${uid}`, container, `${restart}.log`);
}

function environmentOf(node: NodeContext, pod: Pod, container: Container, sandbox: Sandbox, image: Readonly<Record<string, string>>): Record<string, string> {
  const namespace = pod.metadata.namespace ?? "default";
  return containerEnvironment(container, {
    pod,
    podIps: sandbox.ips,
    hostIps: hostIps(node),
    configMap: (name) => node.configMaps.get(`${namespace}/${name}`),
    secret: (name) => node.secrets.get(`${namespace}/${name}`),
    base: {
      PATH: node.machine.path,
      HOME: "/root",
      HOSTNAME: hostname(pod),
      ...image,
      KUBERNETES_SERVICE_HOST: "10.96.0.1",
      KUBERNETES_SERVICE_PORT: "443",
      KUBERNETES_SERVICE_PORT_HTTPS: "443",
      KUBERNETES_PORT: "tcp://10.96.0.1:443",
    },
  });
}

function checkUser({ name, securityContext }: Container, pod: Pod): void {
  const nonRoot =
    securityContext?.runAsNonRoot === true ||
    (pod.spec.securityContext !== undefined && "runAsNonRoot" in pod.spec.securityContext && pod.spec.securityContext.runAsNonRoot === true);
  if (nonRoot && requestedUser(securityContext, pod.spec.securityContext) === 0) {
    throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `container "${name}" has runAsNonRoot and runAsUser 0: the two contradict each other`);
  }
}

function writeEtc(directory: string, pod: Pod, ips: readonly string[]): { source: string; target: string }[] {
  const files = { "resolv.conf": resolvConf(pod), hosts: hostsFile(pod, ips), hostname: `${hostname(pod)}\n` };
  return Object.entries(files).map(([name, text]) => {
    const source = join(directory, name);
    writeFileSync(source, text);
    return { source, target: `/etc/${name}` };
  });
}
