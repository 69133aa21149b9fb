/** Kubernetes as derived collections: client, supervised reflector, derive, apply, leader. */
export { type ApplyConditionsOptions, applyConditions, type ConditionWish, datedConditions, type WithConditions } from "./apply.ts";
export { type ConnectOptions, connectKube, createKubeClient } from "./client.ts";
export {
  type Collection,
  type CollectionEvent,
  type KubeClient,
  type KubeObject,
  type ObjectMeta,
  objectKey,
  type ResourceType,
  type Selection,
} from "./collection.ts";
export { type Derived, type DeriveOptions, derive, deriveMany, deriveOne, type Fetch, filter, type Index, index, join } from "./derive.ts";
export type { KubeErrorCode, StatusDocument } from "./errors.ts";
export { MutableCollection } from "./keyed-store.ts";
export { electLeader, type LeaderOptions } from "./leader.ts";
export { type ApplyManifestsOptions, applyManifests, parseManifests } from "./manifests.ts";
export { apiVersionOf, resourcePath } from "./paths.ts";
export type { DaemonSet, Deployment, LabelSelector, ReplicaSet } from "./resources/apps.ts";
export type { Lease } from "./resources/coordination.ts";
export type {
  Condition,
  ConfigMap,
  Container,
  ContainerPort,
  ContainerStatus,
  EnvironmentVariable,
  Event,
  Namespace,
  Node,
  Pod,
  PodSpec,
  PodTemplate,
  Probe,
  ProjectedSource,
  Secret,
  Service,
  ServiceAccount,
  ServicePort,
  Volume,
} from "./resources/core.ts";
export type { Endpoint, EndpointSlice } from "./resources/discovery.ts";
export type { GatewayClass, GatewayListener, GatewayListenerStatus, GatewayObject } from "./resources/gateway.ts";
export type {
  GrpcRouteMatch,
  GrpcRouteObject,
  GrpcRouteRule,
  HttpRouteMatch,
  HttpRouteObject,
  HttpRouteRule,
  ReferenceGrantObject,
  RouteBackendReference,
  RouteFilter,
  RouteHeaderFilter,
  RouteObject,
  RouteParentReference,
  RouteParentStatus,
  RoutePathModifier,
  RouteValueMatch,
  WeightedBackendReference,
} from "./resources/gateway-routes.ts";
export type { DestinationRule, TrafficPolicy } from "./resources/istio-networking.ts";
export type {
  AuthorizationOperation,
  AuthorizationPolicyObject,
  AuthorizationRule,
  AuthorizationSource,
  JwtRule,
  MutualTlsMode,
  PeerAuthentication,
  PolicyTargetReference,
  RequestAuthentication,
  WorkloadSelector,
} from "./resources/istio-security.ts";
export { resources } from "./resources/resources.ts";
export { waitForRollout } from "./rollout.ts";
export type { Credentials } from "./transport.ts";
export { WorkQueue, type WorkQueueOptions } from "./work-queue.ts";
