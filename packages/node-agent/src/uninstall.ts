/**
 * Tells an uninstall from a restart or an upgrade, when the agent is asked to stop. An upgrade must leave everything in place: pods
 * stay captured. An uninstall must leave nothing: a plugin without its agent would keep every pod of the node from starting.
 */
import { type KubeClient, resources } from "@fairway/kube";
import { errorCode, type Logger, MeshError } from "@fairway/runtime";

/**
 * `certain`: the DaemonSet is gone or going. `likely`: it could be read before, and the right to was taken away, as helm does in the same
 * moment; but so does a mistake with roles, and a mistake must not take pods out of the mesh.
 */
export type Uninstall = "no" | "likely" | "certain";

export interface UninstallWatch {
  /** Asked once, while stopping. Never rejects. */
  uninstall(): Promise<Uninstall>;
}

/**
 * Reads the agent's DaemonSet now, so that a later failure to read it says something: a wrong name or missing rights must never look
 * like an uninstall. Never rejects.
 */
export async function watchForUninstall(
  client: Pick<KubeClient, "get">,
  { daemonSetName, podNamespace }: { readonly daemonSetName: string | undefined; readonly podNamespace: string },
  log: Logger,
): Promise<UninstallWatch> {
  const never: UninstallWatch = { uninstall: async () => "no" };
  if (daemonSetName === undefined) return never;
  const isLeaving = async (): Promise<boolean> =>
    (await client.get(resources.daemonSets, daemonSetName, podNamespace)).metadata.deletionTimestamp !== undefined;
  try {
    await isLeaving();
  } catch (thrown) {
    log.warn("the agent's own DaemonSet cannot be read, so an uninstall will not clean this node up", {
      daemonSet: daemonSetName,
      error: MeshError.from(thrown, "KUBE_UNAVAILABLE"),
    });
    return never;
  }
  return {
    uninstall: async () => {
      try {
        return (await isLeaving()) ? "certain" : "no";
      } catch (thrown) {
        if (errorCode(thrown) === "KUBE_NOT_FOUND") return "certain";
        if (errorCode(thrown) === "KUBE_FORBIDDEN") return "likely";
        log.warn("it is not known whether this is an uninstall; leaving everything in place", { error: MeshError.from(thrown, "KUBE_UNAVAILABLE") });
        return "no";
      }
    },
  };
}
