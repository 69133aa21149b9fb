/** From Kubernetes objects to mesh resources; CA; status writer. */
export { type Controller, type ControllerOptions, startController } from "./app.ts";
export { type Config, type Ports, readConfig } from "./config.ts";
export type { MeshSettings } from "./settings.ts";
