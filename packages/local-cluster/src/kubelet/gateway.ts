/** `kubectl logs`, `exec` and `port-forward`, answered by the kubelets. */

import { type Collection, objectKey } from "@fairway/kube";
import { linuxPodNetwork, openNamespace } from "@fairway/linux";
import { type Clock, MeshError } from "@fairway/runtime";
import type { DialRequest, ExecRequest, ExecSession, KubeletGateway, LogRequest } from "../api-server/kubelet-gateway.ts";
import { readLog } from "../container/log-file.ts";
import type { Pod } from "../resources.ts";
import { logPath } from "./container-start.ts";
import { findWorker, type Kubelet } from "./kubelet.ts";

const dialTimeoutMs = 5_000;

/** `kubelets` is read at each call: nodes may join after the API server starts. */
export function kubeletGateway(kubelets: () => readonly Kubelet[], pods: () => Collection<Pod> | undefined, clock: Clock): KubeletGateway {
  const worker = (namespace: string, name: string): ReturnType<typeof findWorker> => {
    const known = pods();
    if (known === undefined) throw new MeshError("LOCAL_CLUSTER_NO_SUCH_POD", "the cluster is still starting");
    return findWorker(kubelets(), known, namespace, name);
  };
  return {
    async *logs(request: LogRequest, { signal }): AsyncGenerator<Uint8Array> {
      const found = worker(request.namespace, request.pod);
      const container = found.container(request.container);
      const kubelet = kubelets().find(({ node }) => node.addresses.name === found.pod.spec.nodeName);
      const restart =
        container.restarts -
        (request.previous ? 1 : 0) -
        (container.running === undefined && container.exitCode === undefined && container.restarts > 0 ? 1 : 0);
      if (kubelet === undefined || restart < 0) {
        throw new MeshError(
          "LOCAL_CLUSTER_NO_LOG",
          `there is no ${request.previous ? "previous " : ""}log of container ${request.container} in pod ${objectKey(found.pod)}`,
        );
      }
      const path = logPath(kubelet.node, found.pod, request.container, restart);
      const live = [container.runs.current, container.runs.previous].find((run) => run?.log.path === path);
      yield* readLog(path, live?.log, request, () => clock.now(), signal);
    },

    exec({ namespace, pod, container, command }: ExecRequest, { signal }): Promise<ExecSession> {
      const run = worker(namespace, pod).container(container).running;
      if (run === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", `container ${container} of pod ${namespace}/${pod} is not running`);
      const child = run.process.exec(command);
      signal.addEventListener("abort", child.kill, { once: true });
      const exit = child.exit.then(({ code }) => code).finally(() => signal.removeEventListener("abort", child.kill));
      // The session's reader may leave before the process does; its failure must not go unhandled then.
      exit.catch(() => undefined);
      return Promise.resolve({ stdin: child.stdin, stdout: child.stdout, stderr: child.stderr, exit });
    },

    async dial({ namespace, pod, port }: DialRequest, { signal }) {
      const { sandbox } = worker(namespace, pod);
      if (sandbox === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", `pod ${namespace}/${pod} has no network now`);
      using held = openNamespace(sandbox.namespacePath);
      await using network = linuxPodNetwork(held);
      const { socket } = await network.dial({ host: "127.0.0.1", port, mark: 0, timeoutMs: dialTimeoutMs, signal });
      return socket;
    },
  };
}
