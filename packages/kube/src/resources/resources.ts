/** Every resource type known here, by one name each. */
import { daemonSets, deployments, replicaSets } from "./apps.ts";
import { leases } from "./coordination.ts";
import { configMaps, events, namespaces, nodes, pods, secrets, serviceAccounts, services } from "./core.ts";
import { endpointSlices } from "./discovery.ts";
import { gatewayClasses, gateways } from "./gateway.ts";
import { grpcRoutes, httpRoutes, referenceGrants } from "./gateway-routes.ts";
import { destinationRules } from "./istio-networking.ts";
import { authorizationPolicies, peerAuthentications, requestAuthentications } from "./istio-security.ts";

export const resources: {
  readonly pods: typeof pods;
  readonly services: typeof services;
  readonly nodes: typeof nodes;
  readonly namespaces: typeof namespaces;
  readonly configMaps: typeof configMaps;
  readonly secrets: typeof secrets;
  readonly serviceAccounts: typeof serviceAccounts;
  readonly events: typeof events;
  readonly deployments: typeof deployments;
  readonly daemonSets: typeof daemonSets;
  readonly replicaSets: typeof replicaSets;
  readonly endpointSlices: typeof endpointSlices;
  readonly leases: typeof leases;
  readonly gateways: typeof gateways;
  readonly gatewayClasses: typeof gatewayClasses;
  readonly httpRoutes: typeof httpRoutes;
  readonly grpcRoutes: typeof grpcRoutes;
  readonly referenceGrants: typeof referenceGrants;
  readonly destinationRules: typeof destinationRules;
  readonly authorizationPolicies: typeof authorizationPolicies;
  readonly peerAuthentications: typeof peerAuthentications;
  readonly requestAuthentications: typeof requestAuthentications;
} = {
  pods,
  services,
  nodes,
  namespaces,
  configMaps,
  secrets,
  serviceAccounts,
  events,
  deployments,
  daemonSets,
  replicaSets,
  endpointSlices,
  leases,
  gateways,
  gatewayClasses,
  httpRoutes,
  grpcRoutes,
  referenceGrants,
  destinationRules,
  authorizationPolicies,
  peerAuthentications,
  requestAuthentications,
};
