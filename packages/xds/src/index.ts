/** Both ends of discovery and the live view of the mesh. */
export { defaultMaxMessageBytes, type XdsConnection } from "./client.ts";
export type { XdsTypeStatus } from "./client-session.ts";
export type { ControlPlaneAccess } from "./control-plane-access.ts";
export { readMeshFile, staticMeshView } from "./file-source.ts";
export { parseMesh } from "./mesh-file.ts";
export type { DecideOptions, MeshChange, MeshRelease, MeshView, ResourceSource, ServedResource, ServedScope, XdsPeer, XdsScope } from "./mesh-source.ts";
export { createXdsMeshView, type XdsMeshView, type XdsMeshViewOptions } from "./mesh-view.ts";
export { type NodeIdentity, type ProxyNode, waypointNode, ztunnelNode } from "./node.ts";
export { contentVersion, MutableResourceSource, type ResourceContent } from "./resource-source.ts";
export {
  createXdsServer,
  defaultXdsServerLimits,
  type XdsClientStatus,
  type XdsNode,
  type XdsServer,
  type XdsServerLimits,
  type XdsServerObserver,
  type XdsServerOptions,
} from "./server.ts";
export { discoveryServerOptions } from "./server-options.ts";
export { applyWaypointResources, emptyWaypointState, type WaypointResources, type WaypointState } from "./waypoint-state.ts";
export { createWaypointView, type WaypointView, type WaypointViewOptions } from "./waypoint-view.ts";
