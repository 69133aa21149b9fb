/** The mesh in words: facts, immutable snapshots and pure decisions; no I/O, no clock. */
export {
  type Cidr,
  cidrContains,
  defaultNetwork,
  formatSocketAddress,
  type IpAddress,
  type IpFamily,
  ipFamily,
  ipFromBytes,
  ipToBytes,
  isLoopback,
  isPort,
  type NetworkAddress,
  type NetworkId,
  networkId,
  parseCidr,
  parseIp,
  type SocketAddress,
  tryParseIp,
  tryParseSocketAddress,
} from "./address.ts";
export { authorize, type DenialReason, type DryRunResult, type Verdict } from "./authorize.ts";
export { authorizeRequest, policyForTcp } from "./authorize-request.ts";
export { pickByWeight } from "./balance.ts";
export { changedHeaders, redirectLocation, rewritten, splitAuthority } from "./change-request.ts";
export { HeaderFields } from "./header-fields.ts";
export { type NormalizedPath, normalizePath, type PathNormalization, pathOf, queryParameters } from "./http-path.ts";
export type { Claims, JsonValue, RequestFacts, RequestHead } from "./http-request.ts";
export {
  type ForwardAction,
  type GrpcRetryCondition,
  type HeaderChanges,
  type HeaderMatch,
  type HeaderValue,
  type HttpRoute,
  type Mirror,
  noHeaderChanges,
  type PathChange,
  type PathMatch,
  type QueryMatch,
  type Redirect,
  type RetryCondition,
  type RetryPolicy,
  type Rewrite,
  type RouteAction,
  type RouteMatch,
  type RouteTable,
  type VirtualHost,
  type WeightedBackend,
} from "./http-route.ts";
export { defaultTrustDomain, type Identity, identityOf, parseSpiffeId, type SpiffeId, spiffeId, tryParseSpiffeId } from "./identity.ts";
export { InvalidValueError } from "./invalid-value.ts";
export { compareRoutes, hasPathPrefix, isGrpc, routeOf } from "./match-route.ts";
export { compilePattern, maxPatternLength, textMatches } from "./pattern.ts";
export {
  type AuthorizationPolicy,
  type ConnectionFacts,
  emptyMatch,
  type PolicyClause,
  type PolicyMatch,
  type PolicyRule,
  type ServiceAccountMatch,
  type StringMatch,
} from "./policy.ts";
export { type RefusedPolicy, standInFor } from "./refused-policy.ts";
export { discoveryPath, type RequestCondition, type RequestPolicy, type RequestVerdict, type TokenRule } from "./request-policy.ts";
export type {
  InboundRejection,
  InboundRequest,
  InboundRoute,
  NextHop,
  OutboundDenial,
  OutboundRoute,
  OutboundTarget,
  ResolveContext,
} from "./resolve.ts";
export { resolveInbound } from "./resolve-inbound.ts";
export { kubernetesSearchDomains, type NameAnswer, type NameContext, type NameQuestion, resolveName } from "./resolve-name.ts";
export { resolveOutbound } from "./resolve-outbound.ts";
export type { LoadBalancing, LocalityScope, Service, WeightedWaypoint } from "./service.ts";
export type { NamedServices, Party, Snapshot, SnapshotChange } from "./snapshot.ts";
export { applyChange, emptySnapshot } from "./store.ts";
export type { Pattern, TextMatch } from "./text-match.ts";
export {
  type Cluster,
  type ClusterEndpoints,
  type ClusterLimits,
  defaultConnectTimeoutMs,
  type Ejection,
  type Endpoint,
  type LocalityEndpoints,
  unlimited,
} from "./upstream-cluster.ts";
export { passthroughCluster, type ServedPort, type ServedTarget, unknownCluster, type WaypointConfig } from "./waypoint-config.ts";
export {
  type ApplicationTunnel,
  type AppProtocol,
  type GatewayAddress,
  type GatewayDestination,
  type Locality,
  type PolicyKey,
  type PortMapping,
  policyKey,
  type ServiceKey,
  serviceKey,
  type Workload,
  type WorkloadUid,
  workloadIdentity,
} from "./workload.ts";
