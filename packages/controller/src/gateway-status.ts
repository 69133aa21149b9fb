/** What a waypoint's Gateway says of itself (controller contract 3.9). Pure. */
import { type ConditionWish, datedConditions, type GatewayListener, type GatewayObject, type Service } from "@fairway/kube";
import { serviceHostname } from "./services.ts";
import type { MeshSettings } from "./settings.ts";
import { waypointObjectName } from "./waypoint-classes.ts";

export interface GatewayFacts {
  /** What was deployed in front of the waypoint's pods. */
  readonly service: Service | undefined;
  readonly hasReadyEndpoint: boolean;
  /** Why nothing can be deployed; undefined while all is well. */
  readonly problem: GatewayProblem | undefined;
}

export interface GatewayProblem {
  readonly reason: "InvalidParameters" | "Invalid";
  readonly message: string;
}

type GatewayStatus = NonNullable<GatewayObject["status"]>;

const waypointPort = 15_008;
const listenerMessage = 'Expected a single listener on port 15008 with protocol "HBONE"';

export function gatewayStatus(gateway: GatewayObject, facts: GatewayFacts, settings: MeshSettings, now: Date): GatewayStatus {
  const current = gateway.status ?? {};
  const { generation } = gateway.metadata;
  const listeners = gateway.spec?.listeners ?? [];
  const addresses = addressesOf(current, facts, settings);
  const dating = { generation, now };
  return {
    ...(addresses.length === 0 ? {} : { addresses: [...addresses] }),
    conditions: datedConditions(
      [accepted(listeners, facts.problem), programmed(gateway, facts, settings), resolved(facts.problem)],
      current.conditions ?? [],
      dating,
    ),
    listeners: listeners.map((listener) => {
      const before = current.listeners?.find(({ name }) => name === listener.name);
      return {
        name: listener.name,
        attachedRoutes: 0,
        supportedKinds: [],
        conditions: datedConditions(listenerConditions(listener), before?.conditions ?? [], dating),
      };
    }),
  };
}

/** Only what can be used is published, and what was published stays: a waypoint that is away must be missed, not bypassed. */
function addressesOf(current: GatewayStatus, { service, hasReadyEndpoint }: GatewayFacts, settings: MeshSettings): NonNullable<GatewayStatus["addresses"]> {
  const known = current.addresses ?? [];
  if (service === undefined || (known.length === 0 && !hasReadyEndpoint)) return known;
  const ips = service.spec?.clusterIPs ?? (service.spec?.clusterIP === undefined ? [] : [service.spec.clusterIP]);
  return [
    ...ips.filter((ip) => ip !== "" && ip !== "None").map((value) => ({ type: "IPAddress", value })),
    { type: "Hostname", value: serviceHostname(service, settings) },
  ];
}

function accepted(listeners: readonly GatewayListener[], problem: GatewayProblem | undefined): ConditionWish {
  const type = "Accepted";
  if (problem?.reason === "InvalidParameters") return { type, status: "False", reason: problem.reason, message: problem.message };
  if (listeners.some(isWaypointListener)) return { type, status: "True", reason: "Accepted", message: "Resource accepted" };
  return { type, status: "False", reason: "ListenersNotValid", message: listenerMessage };
}

function programmed(gateway: GatewayObject, { service, hasReadyEndpoint, problem }: GatewayFacts, settings: MeshSettings): ConditionWish {
  const type = "Programmed";
  const hostname =
    service === undefined
      ? `${waypointObjectName(gateway)}.${gateway.metadata.namespace ?? ""}.svc.${settings.clusterDomain}`
      : serviceHostname(service, settings);
  if (problem !== undefined) return { type, status: "False", reason: "Invalid", message: problem.message };
  if (service === undefined) return { type, status: "False", reason: "AddressNotAssigned", message: `the Service of ${hostname} is not there yet` };
  if (!hasReadyEndpoint) {
    const message = `no instances found for hostname "${hostname}"; traffic that needs the waypoint is denied until there is one`;
    return { type, status: "False", reason: "AddressNotUsable", message };
  }
  return { type, status: "True", reason: "Programmed", message: `Resource programmed, assigned to service(s) ${hostname}:${waypointPort}` };
}

function resolved(problem: GatewayProblem | undefined): ConditionWish {
  const type = "ResolvedRefs";
  if (problem?.reason === "InvalidParameters") return { type, status: "False", reason: "InvalidParameters", message: problem.message };
  return { type, status: "True", reason: "ResolvedRefs", message: "All references resolved" };
}

function listenerConditions(listener: GatewayListener): readonly ConditionWish[] {
  const valid = isWaypointListener(listener);
  return [
    valid
      ? { type: "Accepted", status: "True", reason: "Accepted", message: "No errors found" }
      : { type: "Accepted", status: "False", reason: "UnsupportedProtocol", message: listenerMessage },
    valid
      ? { type: "Programmed", status: "True", reason: "Programmed", message: "No errors found" }
      : { type: "Programmed", status: "False", reason: "Invalid", message: listenerMessage },
    { type: "ResolvedRefs", status: "True", reason: "ResolvedRefs", message: "No errors found" },
    { type: "Conflicted", status: "False", reason: "NoConflicts", message: "No errors found" },
  ];
}

function isWaypointListener({ port, protocol }: GatewayListener): boolean {
  return port === waypointPort && protocol === "HBONE";
}
