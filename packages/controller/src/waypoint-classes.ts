/** Which Gateways are ours to run: those of our classes (controller contract 3.1). */
import type { GatewayClass, GatewayObject } from "@fairway/kube";
import { annotation } from "./labels.ts";

/** Who we are, in the statuses of the Gateway API. */
export const controllerName = "fairway.dev/mesh-controller";
/** Created where they are missing; one that others control is theirs. */
export const waypointClassNames: readonly string[] = ["fairway-waypoint", "istio-waypoint"];
/** Value of the label that marks what was deployed for a waypoint; the one that the ecosystem's tools look for. */
export const managedWaypoint = "istio.io-mesh-controller";
/** Written on a Gateway that we run; a larger number means that a newer controller took over. */
export const controllerVersion = 5;

export function isOurClass(gatewayClass: GatewayClass | undefined): boolean {
  return gatewayClass?.spec?.controllerName === controllerName;
}

/** Whether somebody else deploys for this Gateway: a newer controller, or whoever wrote its addresses (controller contract 3.10). */
export function isHandsOff({ metadata, spec }: GatewayObject): boolean {
  const version = metadata.annotations?.[annotation.controllerVersion];
  if (version !== undefined && !(Number(version) <= controllerVersion)) return true;
  const addresses = spec?.addresses ?? [];
  return addresses.length > 1 || addresses.some(({ type = "IPAddress" }) => type !== "IPAddress");
}

type Named = Pick<GatewayObject, "metadata" | "spec">;

/**
 * Name of the Deployment and the Service. A waypoint of one service account is usually called as the account is, and so is the application that
 * runs as it: such a waypoint says its class as well (controller contract 3.11).
 */
export function waypointObjectName({ metadata: { name, annotations = {} }, spec }: Named): string {
  const plain = annotations[annotation.forServiceAccount] === undefined ? name : `${name}-${spec?.gatewayClassName ?? ""}`;
  return annotations[annotation.nameOverride] ?? plain;
}

/** The service account that its pods run as, and so the identity that they prove. */
export function waypointAccount(gateway: Named): string {
  return gateway.metadata.annotations?.[annotation.gatewayServiceAccount] ?? waypointObjectName(gateway);
}
