/** Both ends of discovery and the live view of the mesh. */
export type { MeshChange, MeshView, ResourceSource, ServedResource, XdsPeer } from "./mesh-source.ts";
