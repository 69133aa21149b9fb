/**
 * The shell script that turns a fresh mount namespace into a container's root and becomes the program. Pure text.
 *
 * Three ways to get a root. `overlay`: an overlay over the host's `/`, writes to a private tmpfs. `bind`, where overlay is refused:
 * a tmpfs with the host's directories bound in read-only; a directory on the way to a mount point becomes a real one with its
 * children bound singly. `layers`, in a user namespace, which may lay an overlay over a directory but not over a tree of mounts such
 * as `/`: as `bind`, but a directory on the way is an overlay, which takes two mounts instead of hundreds. All then pivot, so that nothing of the host's mount table stays reachable but what is listed.
 * This is a way to run programs side by side, not a sandbox against hostile ones.
 */

export type RootStrategy = "overlay" | "layers" | "bind";

export interface Mount {
  /** On the host, symlinks resolved. */
  readonly source: string;
  /** In the container. */
  readonly target: string;
  readonly kind: "directory" | "file";
  readonly readOnly: boolean;
}

export interface Program {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  /** A setpriv(1) command line, or nothing. */
  readonly privileges: readonly string[];
}

export interface RootOptions {
  readonly strategy: RootStrategy;
  /** An empty directory of this container alone: the tmpfs goes here. */
  readonly workDir: string;
  readonly hostname: string;
  readonly mounts: readonly Mount[];
  /** Files given as copies (resolv.conf, hosts, hostname): absolute target to host source. */
  readonly copies: readonly { readonly source: string; readonly target: string }[];
  readonly readOnlyRoot: boolean;
  /** Whether the program stays among the machine's processes. */
  readonly hostPid: boolean;
  /** Host directories that must stay reachable even when they lie below a private directory such as /tmp, or below a volume. */
  readonly keep: readonly string[];
  readonly cgroupFile: string | undefined;
  /** What the script becomes once the root stands. */
  readonly program: Program;
  /** Lists a host directory; only the `bind` way asks. */
  readonly list: (directory: string) => readonly { readonly name: string; readonly kind: "directory" | "file" | "symlink" }[];
}

/** Directories that every container has to itself. */
const privateDirectories = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/** A script for `sh -eu`. It holds the environment too, and so possibly secrets: keep the file private. */
export function rootScript(options: RootOptions): string {
  const { workDir, readOnlyRoot } = options;
  const root = `${workDir}/root`;
  const lines = [
    ...(options.cgroupFile === undefined ? [] : [`echo $$ > ${quote(options.cgroupFile)} || true`]),
    `mount -t tmpfs -o mode=755 tmpfs ${quote(workDir)}`,
    `mkdir ${quote(`${workDir}/upper`)} ${quote(`${workDir}/work`)} ${quote(root)}`,
    ...(options.strategy === "overlay" ? overlay(workDir, root) : bindTree(options, root)),
    `cd ${quote(root)}`,
    "mkdir -p .host",
    "pivot_root . .host",
    "cd /",
    // In a user namespace the machine's pids may be seen, but a /proc of them cannot be made again.
    `mount -t proc proc /proc${options.hostPid ? " 2>/dev/null || mount --rbind /.host/proc /proc" : ""}`,
    "mount -t sysfs sysfs /sys || mount --rbind /.host/sys /sys",
    "[ ! -d /.host/sys/fs/cgroup ] || mount --rbind /.host/sys/fs/cgroup /sys/fs/cgroup",
    "mount --rbind /.host/dev /dev",
    "mount -t tmpfs -o mode=1777 tmpfs /tmp",
    "mount -t tmpfs -o mode=755 tmpfs /run",
    ...options.copies.flatMap(({ source, target }) => [
      `mkdir -p ${quote(parentOf(target))}`,
      `rm -f ${quote(target)}`,
      `cp ${quote(`/.host${source}`)} ${quote(target)}`,
    ]),
    // Parents before children, whatever order the pod names them in.
    ...[...keptMounts(options), ...options.mounts].toSorted((a, b) => depth(a.target) - depth(b.target)).flatMap(bind),
    `hostname ${quote(options.hostname)} || true`,
    "umount -l /.host",
    "rmdir /.host",
    ...(readOnlyRoot ? ["mount -o remount,bind,ro /", "mount -o remount,bind,ro /tmp", "mount -o remount,bind,ro /run"] : []),
    `mkdir -p ${quote(options.program.workingDir)} 2>/dev/null || true`,
    `cd ${quote(options.program.workingDir)}`,
    // Descriptor 4 tells the launcher that the root stands; from here on descriptor 3 takes the program's errors.
    "echo >&4",
    "exec 2>&3 3>&- 4>&-",
    `exec ${programCommand(options.program).map(quote).join(" ")}`,
  ];
  return `${lines.join("\n")}\n`;
}

/** `env -i` and `setpriv` in front of the program: only what the container names is inherited. */
export function programCommand({ argv, env, privileges }: Program): string[] {
  return ["env", "-i", ...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...privileges, ...argv];
}

/** Quotes a word for a POSIX shell. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function overlay(workDir: string, root: string): string[] {
  return [
    `mount -t overlay overlay -o lowerdir=/,upperdir=${quote(`${workDir}/upper`)},workdir=${quote(`${workDir}/work`)} ${quote(root)}`,
    // A lower directory's own mounts are not part of an overlay: system directories that are mounts of their own are bound in.
    `for d in usr bin lib lib64 opt home root var nix; do if [ -d /$d ] && [ ! -L /$d ] && mountpoint -q /$d; then mount --rbind /$d ${quote(root)}/$d; fi; done`,
  ];
}

function bind({ source, target, kind, readOnly }: Mount): string[] {
  const at = quote(target);
  return [
    kind === "directory" ? `mkdir -p ${at}` : `mkdir -p ${quote(parentOf(target))}; [ -e ${at} ] || touch ${at}`,
    `mount --rbind ${quote(`/.host${source}`)} ${at}`,
    // Later mounts on the host (a new namespace handle) shall appear inside, never the reverse.
    `mount --make-rslave ${at}`,
    ...(readOnly ? [`mount -o remount,bind,ro ${at}`] : []),
  ];
}

/** The commands of the `bind` way: every host entry that is not on the way to something of the container's own. */
function bindTree(options: RootOptions, root: string): string[] {
  const { list, mounts, copies } = options;
  const own = [...privateDirectories, ...[...mounts, ...copies, ...keptMounts(options)].map(({ target }) => target)];
  const lines: string[] = [];
  const visit = (directory: string): void => {
    for (const { name, kind } of list(directory === "" ? "/" : directory)) {
      const path = `${directory}/${name}`;
      if (own.includes(path)) continue;
      // Without its owner, who may not exist in a user namespace.
      if (kind === "symlink") lines.push(`cp -PR ${quote(path)} ${quote(`${root}${path}`)}`);
      else if (kind === "directory" && own.some((other) => other.startsWith(`${path}/`))) {
        lines.push(`mkdir -p ${quote(`${root}${path}`)}`);
        if (options.strategy === "layers" && directory === "") {
          lines.push(...layer(options, root, path, own));
          visit(path);
          lines.push("fi");
        } else visit(path);
      } else {
        lines.push(
          kind === "directory" ? `mkdir -p ${quote(`${root}${path}`)}` : `touch ${quote(`${root}${path}`)}`,
          `mount --rbind ${quote(path)} ${quote(`${root}${path}`)}`,
          `mount -o remount,bind,ro ${quote(`${root}${path}`)} || true`,
        );
      }
    }
  };
  lines.push(`mount --bind ${quote(root)} ${quote(root)}`, `mkdir -p ${privateDirectories.map((path) => quote(`${root}${path}`)).join(" ")}`);
  visit("");
  return lines;
}

/**
 * An overlay over one directory; what follows is done where it is refused, up to `fi`. The directories on the way to the container's own
 * are made in the upper layer first: below, they belong to somebody whom a user namespace does not know, and nothing could be made in them.
 */
function layer({ workDir, list }: RootOptions, root: string, path: string, own: readonly string[]): string[] {
  const upper = `${workDir}/upper`;
  const work = `${workDir}/work${path}`;
  const isDirectory = (at: string): boolean => list(parentOf(at)).some(({ name, kind }) => kind === "directory" && at.slice(at.lastIndexOf("/") + 1) === name);
  const ways = new Set<string>([path]);
  for (const target of own.filter((other) => other.startsWith(`${path}/`))) {
    const parts = target.split("/").slice(1, -1);
    for (let length = 2; length <= parts.length; length += 1) {
      const at = `/${parts.slice(0, length).join("/")}`;
      if (!isDirectory(at)) break;
      ways.add(at);
    }
  }
  return [
    `mkdir -p ${[...ways].map((way) => quote(`${upper}${way}`)).join(" ")} ${quote(work)}`,
    `if ! mount -t overlay overlay -o userxattr,lowerdir=${quote(path)},upperdir=${quote(`${upper}${path}`)},workdir=${quote(work)} ${quote(`${root}${path}`)} 2>/dev/null; then :`,
  ];
}

/** What would disappear under a private directory or a volume of the pod, bound in again on top. */
function keptMounts({ keep, mounts }: RootOptions): Mount[] {
  const covered = (path: string): boolean => isHidden(path) || mounts.some(({ target }) => path.startsWith(`${target}/`));
  return keep.filter(covered).map((path) => ({ source: path, target: path, kind: "directory", readOnly: true }));
}

function isHidden(path: string): boolean {
  return privateDirectories.some((directory) => path === directory || path.startsWith(`${directory}/`));
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function depth(path: string): number {
  return path.split("/").filter((part) => part !== "").length;
}
