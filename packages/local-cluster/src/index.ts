/** A Kubernetes-shaped cluster on one Linux machine, made of network namespaces. */
export { type ApiServer, type ApiServerLimits, type ApiServerOptions, type KubeletGateway, startApiServer } from "./api-server/index.ts";
export {
  type Cluster,
  type ClusterNode,
  type ClusterOptions,
  type ExecOptions,
  type PodReference,
  startCluster,
} from "./cluster.ts";
export type { CommandResult } from "./command.ts";
export { type Machine, missingPrivilege } from "./container/machine.ts";
export type { ExecProcess, ProcessExit } from "./container/process.ts";
export { findImage, type ImageCatalog, type ImageEntry, wellKnownImages } from "./images.ts";
export { destroyLeftovers, type Leftovers } from "./leftovers.ts";
export { checkoutFile, installed, projectImages, visitorCommand } from "./project-images.ts";
export { asClusterRoot, becomeClusterRoot, enterWords, insideUserNamespace } from "./user-namespace.ts";
