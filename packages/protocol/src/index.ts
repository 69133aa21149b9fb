/** The wire vocabulary: .proto files, generated types, and codecs between wire and model. */
export {
  addressTypeUrl,
  decodeAddress,
  encodeService,
  encodeWorkload,
  type MeshAddress,
  serviceAliases,
  workloadAliases,
  workloadTypeUrl,
} from "./address-codec.ts";
export { authorizationTypeUrl, decodeAuthorization, encodeAuthorization, salvageAuthorization } from "./authorization-codec.ts";
export { type CaptureProbeDestination, captureProbeDestinations, isCaptureProbe } from "./capture-probe.ts";
export {
  type DnsAnswer,
  type DnsCode,
  type DnsExtension,
  type DnsQuery,
  type DnsQuestion,
  type DnsRequest,
  dnsCodeOf,
  dnsCodes,
  dnsMaxMessageBytes,
  dnsTypeName,
  dnsTypes,
  dnsUdpLimit,
  encodeDnsAnswer,
  isDnsResponseTo,
  isInternetQuestion,
  readDnsRequest,
  relayedDnsResponse,
  withDnsId,
} from "./dns-message.ts";
export { clusterTypeUrl, decodeCluster, encodeCluster } from "./envoy/cluster-codec.ts";
export { decodeEndpoints, encodeEndpoints, endpointTypeUrl } from "./envoy/endpoint-codec.ts";
export { type GrpcResource, type GrpcResources, type GrpcService, grpcResources } from "./envoy/grpc-profile.ts";
export { decodeTarget, encodeTarget, listenerTypeUrl } from "./envoy/listener-codec.ts";
export { decodeRouteTable, encodeRouteTable, routeTypeUrl } from "./envoy/route-codec.ts";
export { ControlPlane, Node } from "./gen/envoy/config/core/v3/base.ts";
export {
  AggregatedDiscoveryServiceClient,
  type AggregatedDiscoveryServiceServer,
  AggregatedDiscoveryServiceService,
} from "./gen/envoy/service/discovery/v3/ads.ts";
export {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
  Resource,
} from "./gen/envoy/service/discovery/v3/discovery.ts";
export { Any } from "./gen/google/protobuf/any.ts";
export { Status } from "./gen/google/rpc/status.ts";
export {
  IstioCertificateRequest,
  IstioCertificateResponse,
  IstioCertificateServiceClient,
  type IstioCertificateServiceServer,
  IstioCertificateServiceService,
} from "./gen/istio/auth/ca.ts";
export { ProtocolDecodeError, type ProtocolDecodeErrorCode, ProtocolEncodeError } from "./protocol-error.ts";
export {
  decodeZdsHello,
  decodeZdsRequest,
  decodeZdsResponse,
  encodeZdsHello,
  encodeZdsRequest,
  encodeZdsResponse,
  type ZdsHello,
  type ZdsRequest,
  type ZdsResponse,
  type ZdsWorkload,
  zdsMaxMessageBytes,
} from "./zds-codec.ts";
