/** The node's L4 tunnel. A program: run `fairway-ztunnel`; the names here are for tests that run it in their own process. */
export { realSeams, runZtunnel, type Seams, type ZtunnelOptions } from "./app.ts";
export type { Config, PodName, ProxyConfig } from "./config.ts";
export { readConfig } from "./environment.ts";
