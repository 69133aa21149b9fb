/** Waypoints: what a Gateway offers, and which waypoint a service or a workload goes through (controller contract 3). */
import type { GatewayClass, GatewayObject, LabelSelector, ObjectMeta } from "@fairway/kube";
import { type ApplicationTunnel, type GatewayAddress, isPort, type NetworkId, tryParseIp } from "@fairway/model";
import { annotation, type Labels, label, matchesSelector } from "./labels.ts";
import { waypointAccount, waypointObjectName } from "./waypoint-classes.ts";

export type TrafficType = "service" | "workload" | "all" | "none";

export interface Waypoint {
  readonly namespace: string;
  readonly name: string;
  /** Its GatewayClass. */
  readonly className: string;
  /** Whose identity its pods prove. */
  readonly serviceAccount: string;
  /** Where it listens; before it is ready, where it will. */
  readonly address: GatewayAddress;
  /** Its status carries an address. */
  readonly ready: boolean;
  readonly trafficType: TrafficType;
  readonly allowedRoutes: { readonly from: string; readonly selector: LabelSelector | undefined };
  readonly applicationTunnel: ApplicationTunnel | undefined;
  /** Opts the pods of one service account in, without labels. */
  readonly forServiceAccount: string | undefined;
}

export type BindingRejection = "AttachmentDenied" | "UnsupportedTrafficType";

/** The waypoint of one object. A waypoint that is missing or not ready still binds: its traffic is denied, not let past. */
export type Binding =
  | { readonly kind: "none" }
  | { readonly kind: "bound"; readonly waypoint: WaypointReference; readonly address: GatewayAddress; readonly ready: boolean }
  | { readonly kind: "rejected"; readonly waypoint: WaypointReference; readonly reason: BindingRejection; readonly message: string };

export interface WaypointReference {
  readonly namespace: string;
  readonly name: string;
}

export interface BindingQuestion {
  readonly kind: "service" | "workload";
  readonly namespace: string;
  readonly labels: Labels;
  readonly namespaceLabels: Labels;
  /** Of a workload; of a service when all its pods share one. */
  readonly serviceAccount: string | undefined;
  readonly find: (reference: WaypointReference) => Waypoint | undefined;
  readonly findForServiceAccount: (namespace: string, serviceAccount: string) => Waypoint | undefined;
  readonly clusterDomain: string;
}

const waypointPort = 15008;
const none: Binding = { kind: "none" };
const trafficTypes: readonly string[] = ["service", "workload", "all", "none"];
/** Values of `gateway.istio.io/managed` on the Services of waypoints and east-west gateways. */
const managedByGateway: ReadonlySet<string> = new Set(["istio.io-mesh-controller", "istio.io-eastwest-controller"]);

/** Any Gateway can be a waypoint (controller contract 3.1); only those that are referred to become one. */
export function readWaypoint(gateway: GatewayObject, gatewayClass: GatewayClass | undefined, context: { network: NetworkId; clusterDomain: string }): Waypoint {
  const { metadata, spec, status } = gateway;
  const namespace = metadata.namespace ?? "";
  const address = publishedAddress(gateway, context.network);
  const tunnel = inboundBinding(metadata) ?? (gatewayClass && inboundBinding(gatewayClass.metadata));
  const listener =
    spec?.listeners?.find(({ port, protocol }) => tunnel?.port !== undefined && (port === tunnel.port || protocol === "istio.io/PROXY")) ??
    spec?.listeners?.find(({ port, protocol }) => port === waypointPort && protocol === "HBONE");
  const routes = listener?.allowedRoutes?.namespaces;
  return {
    namespace,
    name: metadata.name,
    className: spec?.gatewayClassName ?? "",
    serviceAccount: waypointAccount(gateway),
    address: address ?? expectedAddress({ namespace, name: waypointObjectName(gateway) }, context.clusterDomain),
    ready: address !== undefined && (status?.addresses?.length ?? 0) > 0,
    trafficType: trafficTypeOf(metadata.labels?.[label.waypointFor] ?? gatewayClass?.metadata.labels?.[label.waypointFor]),
    allowedRoutes: { from: routes?.from ?? "Same", selector: routes?.selector },
    applicationTunnel: tunnel,
    forServiceAccount: metadata.annotations?.[annotation.forServiceAccount],
  };
}

/**
 * Which waypoint (controller contract 3.4): the object's own label, then the waypoint of its service account (3.11), then its
 * namespace's label. "none" on the object stops the search; a reference to a missing waypoint does not fall back.
 */
export function resolveBinding(question: BindingQuestion): Binding {
  const own = referenceIn(question.labels, question.namespace);
  if (own === "none") return none;
  if (own !== undefined) return attach(question, own, "explicit");
  const { serviceAccount, namespace } = question;
  const forAccount = serviceAccount === undefined ? undefined : question.findForServiceAccount(namespace, serviceAccount);
  if (forAccount !== undefined) {
    return { kind: "bound", waypoint: { namespace, name: forAccount.name }, address: forAccount.address, ready: forAccount.ready };
  }
  const inherited = referenceIn(question.namespaceLabels, namespace);
  return inherited === undefined || inherited === "none" ? none : attach(question, inherited, "inherited");
}

/** Services in front of waypoints and east-west gateways have no waypoint themselves. */
export function isGatewayService({ labels = {} }: ObjectMeta): boolean {
  return managedByGateway.has(labels[label.gatewayManaged] ?? "");
}

function attach(question: BindingQuestion, reference: WaypointReference, source: "explicit" | "inherited"): Binding {
  const waypoint = question.find(reference);
  if (waypoint === undefined) return { kind: "bound", waypoint: reference, address: expectedAddress(reference, question.clusterDomain), ready: false };
  const { from, selector } = waypoint.allowedRoutes;
  const admitted =
    from === "All" ||
    (from === "Same" && waypoint.namespace === question.namespace) ||
    (from === "Selector" && matchesSelector(selector ?? {}, question.namespaceLabels));
  const named = `${reference.namespace}/${reference.name}`;
  if (!admitted) {
    const message = `the listener of waypoint ${named} does not admit namespace ${question.namespace}; see its allowedRoutes`;
    return { kind: "rejected", waypoint: reference, reason: "AttachmentDenied", message };
  }
  if (waypoint.trafficType !== "all" && waypoint.trafficType !== question.kind) {
    if (source === "inherited" && question.kind === "workload") return none;
    const message = `waypoint ${named} serves ${waypoint.trafficType} traffic, not ${question.kind} traffic; see its label ${label.waypointFor}`;
    return { kind: "rejected", waypoint: reference, reason: "UnsupportedTrafficType", message };
  }
  return { kind: "bound", waypoint: reference, address: waypoint.address, ready: waypoint.ready };
}

function referenceIn(labels: Labels, namespace: string): WaypointReference | "none" | undefined {
  const name = labels[label.useWaypoint];
  if (name === undefined || name === "") return undefined;
  return name === "none" ? "none" : { name, namespace: labels[label.useWaypointNamespace] ?? namespace };
}

/** A hostname first, else the first IP address (controller contract 3.3). */
function publishedAddress({ metadata, status }: GatewayObject, network: NetworkId): GatewayAddress | undefined {
  const addresses = status?.addresses ?? [];
  const hostname = addresses.find(({ type }) => type === "Hostname")?.value;
  if (hostname !== undefined) return { destination: { kind: "hostname", namespace: metadata.namespace ?? "", hostname }, hbonePort: waypointPort };
  for (const { value } of addresses) {
    const ip = tryParseIp(value);
    if (ip !== undefined) return { destination: { kind: "address", network, ip }, hbonePort: waypointPort };
  }
  return undefined;
}

function expectedAddress({ namespace, name }: WaypointReference, clusterDomain: string): GatewayAddress {
  return { destination: { kind: "hostname", namespace, hostname: `${name}.${namespace}.svc.${clusterDomain}` }, hbonePort: waypointPort };
}

function trafficTypeOf(value: string | undefined): TrafficType {
  if (value === undefined) return "service";
  return trafficTypes.includes(value) ? (value as TrafficType) : "none";
}

/** `PROXY/15088`, `NONE`, … (controller contract 3.6); anything else is as if it were not there. */
function inboundBinding({ annotations = {} }: ObjectMeta): ApplicationTunnel | undefined {
  const [protocol = "", portText] = (annotations[annotation.inboundBinding] ?? "").split("/", 2);
  if (protocol !== "PROXY" && protocol !== "NONE") return undefined;
  if (portText === undefined) return { protocol: protocol === "PROXY" ? "proxy" : "none", port: undefined };
  return isPort(Number(portText)) ? { protocol: protocol === "PROXY" ? "proxy" : "none", port: Number(portText) } : undefined;
}
