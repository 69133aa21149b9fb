/**
 * What each waypoint is told: the inverse of the bindings, with routes, clusters and policies of what is bound (controller contract 3.12).
 * Every part is derived of its own objects, so that a pod that becomes ready touches the endpoints of its services and nothing else.
 */
import {
  type Collection,
  type Derived,
  derive,
  deriveMany,
  type Fetch,
  index,
  join,
  type Service as KubeService,
  type Pod,
  type ReferenceGrantObject,
  type RouteBackendReference,
} from "@fairway/kube";
import { passthroughCluster, type RouteTable, type ServedPort, type ServedTarget, type Service, type Workload } from "@fairway/model";
import { type BackendFacts, isCore, resolveBackend } from "./backends.ts";
import { boundClusterName, clusterOf, commonWhereabouts, endpointsOf, otherClusterName, servedProtocol, type Whereabouts } from "./clusters.ts";
import { type ClusterSettings, type DestinationRuleReading, settingsFor } from "./destination-rules.ts";
import type { Enforced, Enforcement } from "./enforcement.ts";
import { readGrpcRoute } from "./grpc-routes.ts";
import { readHttpRoute } from "./http-routes.ts";
import type { Inputs } from "./inputs.ts";
import { label } from "./labels.ts";
import { type RouteReading, readSafely } from "./route-reading.ts";
import { type BackendAnswer, directTable, type FindBackend, routeTable } from "./routes.ts";
import type { MeshSettings } from "./settings.ts";
import { type WaypointResource, waypointResourceKey } from "./waypoint-resource.ts";
import type { Binding, Waypoint } from "./waypoints.ts";

export interface ProgramSources {
  readonly inputs: Pick<Inputs, "services" | "pods" | "httpRoutes" | "grpcRoutes" | "referenceGrants">;
  readonly settings: MeshSettings;
  readonly enforcement: Enforcement;
  readonly destinationRules: Collection<DestinationRuleReading>;
  readonly waypoints: Collection<Waypoint>;
  /** By the key of the Service object. */
  readonly serviceBindings: Collection<Binding>;
  readonly meshServices: Collection<Service>;
  /** By the key of the Pod object. */
  readonly podBindings: Collection<Binding>;
  readonly podWorkloads: Collection<Workload>;
  readonly workloads: Collection<Workload>;
}

export interface Programs {
  readonly resources: Collection<WaypointResource>;
  /** By `HTTPRoute/<namespace>/<name>`, and so for GRPCRoute. */
  readonly routes: Collection<RouteReading>;
  readonly backendFacts: (fetch: Fetch) => BackendFacts;
}

/** A cluster that a waypoint needs. */
interface Demand {
  readonly waypoint: string;
  readonly name: string;
  /** Key of the Service object. */
  readonly service: string;
  readonly port: number;
}

interface BoundService {
  readonly waypoint: string;
  readonly tables: readonly RouteTable[];
  readonly demands: readonly Demand[];
}

export function derivePrograms(sources: ProgramSources): Programs {
  const { inputs, enforcement, waypoints, serviceBindings, meshServices } = sources;
  const routes = join<RouteReading>(
    deriveMany(inputs.httpRoutes, (object) => readSafely("HTTPRoute", object, readHttpRoute)),
    deriveMany(inputs.grpcRoutes, (object) => readSafely("GRPCRoute", object, readGrpcRoute)),
  );
  const routesByParent = index(routes, ({ parents, namespace }) => parents.filter(isServiceParent).map((parent) => serviceParent(parent, namespace)));
  const grants = index(inputs.referenceGrants, ({ metadata }) => [metadata.namespace ?? ""]);

  const backendFacts = (fetch: Fetch): BackendFacts => ({
    service: (namespace, name) => fetch.get(inputs.services, `${namespace}/${name}`),
    grants: (namespace): readonly ReferenceGrantObject[] => fetch.lookup(grants, namespace),
  });
  const waypointOf = (fetch: Fetch, binding: Binding | undefined): Waypoint | undefined =>
    binding?.kind === "bound" ? fetch.get(waypoints, waypointKey(binding.waypoint)) : undefined;

  const attached = (fetch: Fetch, service: KubeService, waypoint: Waypoint): readonly RouteReading[] =>
    fetch.lookup(routesByParent, objectKeyOf(service)).filter(({ namespace }) => mayRoute(namespace, service.metadata.namespace ?? "", waypoint));

  const finder = (fetch: Fetch, waypoint: Waypoint): ClusterFinder => {
    const demands = new Map<string, Demand>();
    const facts = backendFacts(fetch);
    const find = (reference: RouteBackendReference, from: RouteReading): BackendAnswer => {
      const answer = resolveBackend(reference, from, facts);
      if (answer.kind === "nowhere") return answer;
      const key = objectKeyOf(answer.service);
      const hostname = fetch.get(meshServices, key)?.hostname ?? "";
      const port = answer.service.spec?.ports?.find((candidate) => candidate.port === answer.port);
      const ours = waypointOf(fetch, fetch.get(serviceBindings, key)) === waypoint && port !== undefined && servedProtocol(port) !== "tcp";
      const name = ours ? boundClusterName(answer.port, "http", hostname) : otherClusterName(answer.port, hostname);
      demands.set(name, { waypoint: waypointKey(waypoint), name, service: key, port: answer.port });
      return { kind: "cluster", cluster: name };
    };
    return { find, demands };
  };

  const boundServices = derive<KubeService, BoundService>(inputs.services, (service, fetch) => {
    const key = objectKeyOf(service);
    const waypoint = waypointOf(fetch, fetch.get(serviceBindings, key));
    const known = fetch.get(meshServices, key);
    if (waypoint === undefined || known === undefined) return undefined;
    return bindRoutes(service, known, { waypoint: waypointKey(waypoint), readings: attached(fetch, service, waypoint), find: finder(fetch, waypoint) });
  });

  const serviceTargets = derive<KubeService, WaypointResource>(inputs.services, (service, fetch) => {
    const key = objectKeyOf(service);
    const waypoint = waypointOf(fetch, fetch.get(serviceBindings, key));
    const known = fetch.get(meshServices, key);
    // A service without a virtual address cannot be asked for; its workloads are addressed directly.
    if (waypoint === undefined || known === undefined || known.vips.length === 0) return undefined;
    const { policies, tokens } = enforcement.at(fetch, waypoint, { namespace: known.namespace, name: known.name });
    return { waypoint: waypointKey(waypoint), kind: "target", value: serviceTargetOf(service, known, { policies, tokens }) };
  });

  const workloadTargets = deriveMany<Workload, WaypointResource>(sources.podWorkloads, (workload, fetch) => {
    const waypoint = waypointOf(fetch, fetch.get(sources.podBindings, `${workload.namespace}/${workload.name}`));
    if (waypoint === undefined) return [];
    const target = workloadTargetOf(workload, enforcement.at(fetch, waypoint, undefined));
    const resources: readonly WaypointResource[] = [
      { waypoint: waypointKey(waypoint), kind: "target", value: target },
      { waypoint: waypointKey(waypoint), kind: "routes", value: directTable },
    ];
    return resources.map((resource) => [waypointResourceKey(resource), resource]);
  });

  const demands = deriveMany(boundServices, (bound) => bound.demands.map((demand) => [`${demand.waypoint}|${demand.name}`, demand] as const));
  return {
    resources: join<WaypointResource>(
      deriveMany(serviceTargets, (resource) => [[waypointResourceKey(resource), resource]]),
      workloadTargets,
      deriveMany(boundServices, ({ waypoint, tables }) =>
        tables.map((value) => {
          const resource: WaypointResource = { waypoint, kind: "routes", value };
          return [waypointResourceKey(resource), resource] as const;
        }),
      ),
      ...clusterResources(demands, sources),
    ),
    routes,
    backendFacts,
  };
}

interface ClusterFinder {
  readonly find: FindBackend;
  /** What was found so far. */
  readonly demands: Map<string, Demand>;
}

function bindRoutes(
  service: KubeService,
  { hostname }: Service,
  { waypoint, readings, find: { find, demands } }: { waypoint: string; readings: readonly RouteReading[]; find: ClusterFinder },
): BoundService {
  const key = objectKeyOf(service);
  const tables: RouteTable[] = [];
  for (const port of service.spec?.ports ?? []) {
    const protocol = servedProtocol(port);
    const own = (spoken: "http" | "tcp"): string => {
      const name = boundClusterName(port.port, spoken, hostname);
      demands.set(name, { waypoint, name, service: key, port: port.port });
      return name;
    };
    if (protocol === "tcp" || protocol === "detect") own("tcp");
    if (protocol !== "http" && protocol !== "detect") continue;
    const ofPort = readings.filter(({ parents, namespace }) => parents.some((parent) => namesPort(parent, namespace, key, port.port)));
    const name = own("http");
    tables.push(routeTable(name, port.port, name, ofPort, find));
  }
  return { waypoint, tables, demands: [...demands.values()] };
}

function clusterResources(
  demands: Collection<Demand>,
  { inputs, settings, waypoints, meshServices, podWorkloads, workloads, destinationRules }: ProgramSources,
): readonly Derived<WaypointResource>[] {
  const workloadsByService = index(workloads, ({ services }) => services.keys());
  const rulesByHostname = index(destinationRules, ({ hostname }) => [hostname]);
  const treatmentOf = (fetch: Fetch, { waypoint, known, port }: { waypoint: string; known: Service; port: number }): ClusterSettings => {
    const namespaces = [...new Set([waypoint.split("/", 1)[0] ?? "", known.namespace, settings.rootNamespace])];
    return settingsFor(fetch.lookup(rulesByHostname, known.hostname), { port, namespaces });
  };
  const podsByGateway = index(inputs.pods, ({ metadata: { namespace = "", labels = {} } }) => {
    const gateway = labels[label.gatewayName];
    return gateway === undefined ? [] : [`${namespace}/${gateway}`];
  });
  const whereabouts = derive(waypoints, (waypoint, fetch): Whereabouts | undefined => {
    const pods = fetch.lookup(podsByGateway, waypointKey(waypoint));
    return commonWhereabouts(pods.map(({ metadata }) => fetch.get(podWorkloads, `${metadata.namespace ?? ""}/${metadata.name}`)?.locality));
  });
  const terminating = derive<Pod, true>(inputs.pods, ({ metadata }) => (metadata.deletionTimestamp === undefined ? undefined : true));
  const clusters = deriveMany<Demand, WaypointResource>(demands, ({ waypoint, name, service, port }, fetch) => {
    const known = fetch.get(meshServices, service);
    const declared = fetch.get(inputs.services, service)?.spec?.ports?.find((candidate) => candidate.port === port);
    if (known === undefined || declared === undefined) return [];
    const treatment = treatmentOf(fetch, { waypoint, known, port });
    const resource: WaypointResource = { waypoint, kind: "cluster", value: clusterOf(name, known, declared, treatment) };
    return [[waypointResourceKey(resource), resource]];
  });
  const endpoints = deriveMany<Demand, WaypointResource>(demands, ({ waypoint, name, service, port }, fetch) => {
    const known = fetch.get(meshServices, service);
    if (known === undefined) return [];
    const members = fetch.lookup(workloadsByService, `${known.namespace}/${known.hostname}`);
    const left = ({ namespace, name: pod }: Workload): boolean => fetch.get(terminating, `${namespace}/${pod}`) === true;
    // As the reference has it: near ones are preferred where the service asks for it, or where far ones take over when near ones are ejected.
    const prefersNear = known.loadBalancing.mode === "failover" || treatmentOf(fetch, { waypoint, known, port }).ejection !== undefined;
    const near = prefersNear ? fetch.get(whereabouts, waypoint) : undefined;
    const resource: WaypointResource = { waypoint, kind: "endpoints", value: endpointsOf(name, known, port, members, left, near) };
    return [[waypointResourceKey(resource), resource]];
  });
  return [clusters, endpoints];
}

function serviceTargetOf(service: KubeService, { namespace, hostname, vips }: Service, { policies, tokens }: Enforced): ServedTarget {
  const ports = (service.spec?.ports ?? []).flatMap((port): ServedPort[] => {
    const protocol = servedProtocol(port);
    if (protocol === undefined) return [];
    const routes = protocol === "tcp" ? undefined : boundClusterName(port.port, "http", hostname);
    const tcpBackends = protocol === "http" ? [] : [{ cluster: boundClusterName(port.port, "tcp", hostname), weight: 1 }];
    return [{ port: port.port, protocol, routes, tcpBackends, policies, tokens }];
  });
  return { name: `service/${namespace}/${hostname}`, kind: "service", namespace, hostname, addresses: vips.map(({ ip }) => ip), ports, anyPort: undefined };
}

function workloadTargetOf({ uid, namespace, name, addresses }: Workload, { policies, tokens }: Enforced): ServedTarget {
  const tcpBackends = [{ cluster: passthroughCluster, weight: 1 }];
  const anyPort: ServedPort = { port: 0, protocol: "detect", routes: directTable.name, tcpBackends, policies, tokens };
  return { name: `workload/${uid}`, kind: "workload", namespace, hostname: name, addresses, ports: [], anyPort };
}

/** Routes of a service are honoured from its own namespace and from its waypoint's (controller contract 5.1). */
export function mayRoute(routeNamespace: string, serviceNamespace: string, waypoint: { readonly namespace: string } | undefined): boolean {
  return routeNamespace === serviceNamespace || routeNamespace === waypoint?.namespace;
}

export function isServiceParent({ kind = "Gateway", group = "gateway.networking.k8s.io" }: RouteReading["parents"][number]): boolean {
  return kind === "Service" && isCore(group);
}

/** Key of the Service object that a parent reference names. */
export function serviceParent({ namespace, name }: RouteReading["parents"][number], routeNamespace: string): string {
  return `${namespace ?? routeNamespace}/${name}`;
}

/** Whether the parent reference names this port of the Service, or all of them. */
export function namesPort(parent: RouteReading["parents"][number], routeNamespace: string, service: string, port: number): boolean {
  return isServiceParent(parent) && serviceParent(parent, routeNamespace) === service && (parent.port === undefined || parent.port === port);
}

function objectKeyOf({ metadata }: KubeService): string {
  return `${metadata.namespace ?? ""}/${metadata.name}`;
}

function waypointKey({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}
