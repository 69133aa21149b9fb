/**
 * Where a node's paths are on the machine. Each node has its own root directory; only the kernel's views and the handles of network
 * namespaces are the machine's own, because there is one kernel. Pure.
 */
import { posix } from "node:path";
import type { Mount } from "../container/root-script.ts";

const shared = ["/proc", "/sys", "/dev", "/run/netns"];

/** A path on a node, in the one spelling used here: `/var/run` is `/run`. */
function nodePath(path: string): string {
  const normal = posix.normalize(`/${path}`).replace(/(.)\/$/, "$1");
  return normal === "/var/run" || normal.startsWith("/var/run/") ? normal.slice("/var".length) : normal;
}

/** The machine's path for a node's path. */
export function machinePath(nodeRoot: string, path: string): string {
  const normal = nodePath(path);
  return isShared(normal) ? normal : normal === "/" ? nodeRoot : `${nodeRoot}${normal}`;
}

/**
 * The mounts that show a node's path inside a container: the path itself, the namespace handles when they lie below it, and in
 * /proc the node's first process as pid 1, so that `/proc/1/ns/net` is the node's network as on a machine of its own.
 */
export function hostPathMounts(
  node: { readonly root: string; readonly initPid: number | undefined },
  path: string,
  mount: { readonly target: string; readonly readOnly: boolean; readonly kind: "directory" | "file" },
): Mount[] {
  const normal = nodePath(path);
  const mounts: Mount[] = [{ source: machinePath(node.root, normal), ...mount }];
  const below = (child: string): string | undefined => {
    if (isShared(normal) && normal !== child) return undefined;
    return normal === "/" ? `${mount.target}${child}` : child.startsWith(`${normal}/`) ? `${mount.target}${child.slice(normal.length)}` : undefined;
  };
  const netns = below("/run/netns");
  if (netns !== undefined) mounts.push({ source: "/run/netns", target: netns, kind: "directory", readOnly: mount.readOnly });
  const proc = normal === "/proc" ? mount.target : below("/proc");
  if (proc !== undefined) {
    if (normal !== "/proc") mounts.push({ source: "/proc", target: proc, kind: "directory", readOnly: mount.readOnly });
    if (node.initPid !== undefined) mounts.push({ source: `/proc/${node.initPid}`, target: `${proc}/1`, kind: "directory", readOnly: false });
  }
  return mounts;
}

function isShared(path: string): boolean {
  return shared.some((own) => path === own || path.startsWith(`${own}/`));
}
