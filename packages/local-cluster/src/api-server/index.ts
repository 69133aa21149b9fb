/** A small Kubernetes API server in memory. */
export type { ContainerRef, DialRequest, ExecRequest, ExecSession, KubeletGateway, LogRequest } from "./kubelet-gateway.ts";
