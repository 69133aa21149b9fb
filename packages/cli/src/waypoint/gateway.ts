/** The Gateway that asks for a waypoint, and what its status says (controller contract 3.1, 3.9, 3.11). */
import type { GatewayObject } from "@fairway/kube";
import { MeshError } from "@fairway/runtime";

export const waypointClass = "fairway-waypoint";
/** Classes whose Gateways are waypoints; the second is the reference's, which the controller serves as well. */
export const waypointClasses: readonly string[] = [waypointClass, "istio-waypoint"];
export const useWaypointLabel = "istio.io/use-waypoint";
const waypointForLabel = "istio.io/waypoint-for";
const revisionLabel = "istio.io/rev";
const serviceAccountAnnotation = "istio.io/for-service-account";
const hbonePort = 15_008;

export const trafficTypes = ["service", "workload", "all", "none"] as const;
export type TrafficType = (typeof trafficTypes)[number];

export interface WaypointWish {
  readonly namespace: string;
  /** Undefined: `waypoint`, or `<service account>-waypoint`: what runs as an account is often named like it, and a waypoint has a Deployment of its name. */
  readonly name: string | undefined;
  readonly serviceAccount: string | undefined;
  readonly trafficType: TrafficType | undefined;
  readonly revision: string | undefined;
}

/** Throws CLI_BAD_NAME for the name that means "no waypoint". */
export function waypointGateway({ namespace, name, serviceAccount, trafficType, revision }: WaypointWish): GatewayObject {
  const gatewayName = name ?? (serviceAccount === undefined ? "waypoint" : `${serviceAccount}-waypoint`);
  if (gatewayName === "none") throw new MeshError("CLI_BAD_NAME", `"none" as a waypoint means that there is none; choose another name with --name`);
  const labels = {
    ...(trafficType === undefined ? {} : { [waypointForLabel]: trafficType }),
    ...(revision === undefined ? {} : { [revisionLabel]: revision }),
  };
  return {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "Gateway",
    metadata: {
      name: gatewayName,
      namespace,
      ...(Object.keys(labels).length === 0 ? {} : { labels }),
      ...(serviceAccount === undefined ? {} : { annotations: { [serviceAccountAnnotation]: serviceAccount } }),
    },
    spec: { gatewayClassName: waypointClass, listeners: [{ name: "mesh", port: hbonePort, protocol: "HBONE" }] },
  };
}

export function isWaypoint({ spec }: GatewayObject): boolean {
  return waypointClasses.includes(spec?.gatewayClassName ?? "");
}

export interface WaypointSummary {
  readonly namespace: string;
  readonly name: string;
  readonly trafficType: string;
  readonly serviceAccount: string | undefined;
  readonly revision: string;
  /** True, False or Unknown, as the condition says. */
  readonly programmed: string;
  readonly addresses: readonly string[];
  /** What keeps it from working; empty when nothing does. */
  readonly complaints: readonly string[];
}

export function summarise({ metadata, status }: GatewayObject): WaypointSummary {
  const conditions = status?.conditions ?? [];
  const complaints = conditions
    .filter(({ type, status: value }) => value !== "True" && ["Accepted", "Programmed", "ResolvedRefs"].includes(type))
    .map(({ type, reason, message }) => `${type}: ${reason}${message === undefined || message === "" ? "" : ` - ${message}`}`);
  return {
    namespace: metadata.namespace ?? "default",
    name: metadata.name,
    trafficType: metadata.labels?.[waypointForLabel] ?? "service",
    serviceAccount: metadata.annotations?.[serviceAccountAnnotation],
    revision: metadata.labels?.[revisionLabel] ?? "default",
    programmed: conditions.find(({ type }) => type === "Programmed")?.status ?? "Unknown",
    addresses: (status?.addresses ?? []).map(({ value }) => value),
    complaints: conditions.length === 0 ? ["no controller has taken it up yet; is the mesh's controller running?"] : complaints,
  };
}
