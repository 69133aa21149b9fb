/** A container's user and capabilities as setpriv(1) arguments. Pure. */
import type { PodSpec, SecurityContext } from "../resources.ts";

/** What container runtimes leave a container by default. */
const defaultCapabilities = [
  "chown",
  "dac_override",
  "fsetid",
  "fowner",
  "mknod",
  "net_raw",
  "setgid",
  "setuid",
  "setfcap",
  "setpcap",
  "net_bind_service",
  "sys_chroot",
  "kill",
  "audit_write",
];

/** The words before the program; empty when nothing is to change (privileged containers). Throws nothing. */
export function privilegeArguments(container: SecurityContext | undefined, pod: PodSpec["securityContext"]): string[] {
  if (container?.privileged === true) return [];
  const user = container?.runAsUser ?? pod?.runAsUser ?? 0;
  const group = container?.runAsGroup ?? pod?.runAsGroup ?? user;
  const groups = pod?.fsGroup === undefined ? ["--clear-groups"] : [`--groups=${pod.fsGroup}`];
  const kept = capabilities(container?.capabilities);
  const bounding = ["-all", ...kept.map((name) => `+${name}`)].join(",");
  return [
    "setpriv",
    `--reuid=${user}`,
    `--regid=${group}`,
    ...groups,
    `--bounding-set=${bounding}`,
    "--inh-caps=-all",
    // A change of user clears the death signal that ties the program to its launcher: set it again.
    "--pdeathsig=KILL",
    ...(container?.allowPrivilegeEscalation === false ? ["--no-new-privs"] : []),
    "--",
  ];
}

/** The user a container asks to run as; undefined leaves it to the image. */
export function requestedUser(container: SecurityContext | undefined, pod: PodSpec["securityContext"]): number | undefined {
  return container?.runAsUser ?? pod?.runAsUser;
}

function capabilities({ add = [], drop = [] }: NonNullable<SecurityContext["capabilities"]> = {}): string[] {
  const normal = (name: string): string => name.toLowerCase().replace(/^cap_/, "");
  const dropped = new Set(drop.map(normal));
  const base = dropped.has("all") ? [] : defaultCapabilities.filter((name) => !dropped.has(name));
  const added = add.map(normal);
  if (added.includes("all")) return ["all"];
  return [...new Set([...base, ...added])].filter((name) => /^[a-z_]+$/.test(name));
}
