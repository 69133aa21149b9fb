/** envoy.config.cluster.v3.Cluster to and from the model: always EDS, its endpoints over the same stream (waypoint contract 2.2, 2.3). */
import type { Cluster, ClusterLimits, Ejection } from "@fairway/model";
import { CircuitBreakers, CircuitBreakers_Thresholds } from "../gen/resources/envoy/config/cluster/v3/circuit_breaker.ts";
import * as wire from "../gen/resources/envoy/config/cluster/v3/cluster.ts";
import { OutlierDetection } from "../gen/resources/envoy/config/cluster/v3/outlier_detection.ts";
import { Http1ProtocolOptions, Http2ProtocolOptions } from "../gen/resources/envoy/config/core/v3/protocol.ts";
import * as upstream from "../gen/resources/envoy/extensions/upstreams/http/v3/http_protocol_options.ts";
import { Percent } from "../gen/resources/envoy/type/v3/percent.ts";
import type { Any } from "../gen/resources/google/protobuf/any.ts";
import { readMessage } from "../wire.ts";
import { Place } from "./place.ts";
import {
  adsSource,
  checkAdsSource,
  durationFromWire,
  durationToWire,
  isPacked,
  meshMetadataFromWire,
  meshMetadataToWire,
  pack,
  textOf,
  typeUrlOf,
  unpack,
} from "./values.ts";

export const clusterTypeUrl: string = typeUrlOf(wire.Cluster);

const { EDS } = wire.Cluster_DiscoveryType;
const policies: Readonly<Record<Cluster["loadBalancing"], wire.Cluster_LbPolicy>> = {
  "round-robin": wire.Cluster_LbPolicy.ROUND_ROBIN,
  "least-request": wire.Cluster_LbPolicy.LEAST_REQUEST,
  random: wire.Cluster_LbPolicy.RANDOM,
};
const balancers = new Map(Object.entries(policies).map(([name, policy]) => [policy, name as Cluster["loadBalancing"]]));

/** Envoy's, where nothing is said. */
const defaultConnectTimeoutMs = 5_000;
const defaultLimits: ClusterLimits = { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3 };
const defaultEjection = { errors: 5, baseMs: 30_000, maxMs: 300_000, percent: 10 };
const always = 100;

export function encodeCluster(cluster: Cluster): Uint8Array {
  const { namespace, hostname, port } = cluster.service;
  const message = wire.Cluster.fromPartial({
    name: cluster.name,
    clusterDiscoveryType: { $case: "type", value: EDS },
    edsClusterConfig: { edsConfig: adsSource },
    connectTimeout: durationToWire(cluster.connectTimeoutMs),
    lbPolicy: policies[cluster.loadBalancing],
    circuitBreakers: { thresholds: [cluster.limits] },
    outlierDetection: cluster.ejection && ejectionToWire(cluster.ejection),
    typedExtensionProtocolOptions: new Map([[upstream.HttpProtocolOptions.$type, protocolToWire(cluster.protocol)]]),
    commonLbConfig: {
      healthyPanicThreshold: { value: 0 },
      localityConfigSpecifier: { $case: "localityWeightedLbConfig", value: {} },
    },
    metadata: meshMetadataToWire({
      services: [{ host: hostname, name: hostname.split(".")[0], namespace }],
      default_original_port: port,
    }),
  });
  return wire.Cluster.encode(message).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeCluster(bytes: Uint8Array): Cluster {
  const { name, clusterDiscoveryType, edsClusterConfig, ...more } = readMessage(wire.Cluster, wire.Cluster.$type, bytes);
  const { connectTimeout, lbPolicy, circuitBreakers, outlierDetection, typedExtensionProtocolOptions, commonLbConfig, metadata, ...rest } = more;
  const place = new Place(`cluster ${JSON.stringify(name)}`);
  place.at("name").required(name);
  place.refuseRest(wire.Cluster, rest, { altStatName: "names a metric" });
  if (clusterDiscoveryType?.$case === "clusterType") throw place.refuse("cluster_discovery_type", clusterDiscoveryType);
  if (clusterDiscoveryType?.value !== EDS) throw place.at("type").invalid("only EDS is supported");
  checkEds(place.at("eds_cluster_config"), name, edsClusterConfig);
  checkLocalityConfig(place.at("common_lb_config"), commonLbConfig);
  const loadBalancing = balancers.get(lbPolicy);
  if (loadBalancing === undefined) throw place.at("lb_policy").unknownEnum(lbPolicy);
  return {
    name,
    service: serviceFromWire(place, metadata),
    protocol: protocolFromWire(place.at("typed_extension_protocol_options"), typedExtensionProtocolOptions),
    connectTimeoutMs: connectTimeout === undefined ? defaultConnectTimeoutMs : durationFromWire(place.at("connect_timeout"), connectTimeout),
    loadBalancing,
    limits: limitsFromWire(place.at("circuit_breakers"), circuitBreakers),
    ejection: outlierDetection && ejectionFromWire(place.at("outlier_detection"), outlierDetection),
  };
}

function checkEds(place: Place, name: string, config: wire.Cluster_EdsClusterConfig | undefined): void {
  const { edsConfig, serviceName, ...rest } = place.required(config);
  place.refuseRest(wire.Cluster_EdsClusterConfig, rest);
  checkAdsSource(place.at("eds_config"), edsConfig);
  if (serviceName !== "" && serviceName !== name) throw place.at("service_name").invalid("must be the name of the cluster");
}

/** The weights of localities hold, and there is no panic: an endpoint that is out stays out. */
function checkLocalityConfig(place: Place, config: wire.Cluster_CommonLbConfig | undefined): void {
  if (config === undefined) return;
  const { healthyPanicThreshold, localityConfigSpecifier, ...rest } = config;
  place.refuseRest(wire.Cluster_CommonLbConfig, rest, { updateMergeWindow: "every change is taken at once" });
  if (healthyPanicThreshold !== undefined) {
    const { value, ...others } = healthyPanicThreshold;
    place.at("healthy_panic_threshold").refuseRest(Percent, others);
    if (value !== 0) throw place.at("healthy_panic_threshold").unsupported();
  }
  if (localityConfigSpecifier === undefined) return;
  if (localityConfigSpecifier.$case !== "localityWeightedLbConfig") throw place.refuse("locality_config_specifier", localityConfigSpecifier);
  place.at("locality_weighted_lb_config").refuseRest(wire.Cluster_CommonLbConfig_LocalityWeightedLbConfig, localityConfigSpecifier.value);
}

function serviceFromWire(place: Place, metadata: wire.Cluster["metadata"]): Cluster["service"] {
  const { services, default_original_port: port } = meshMetadataFromWire(metadata);
  const [service] = Array.isArray(services) ? services : [];
  if (typeof service !== "object" || service === null) throw place.at("metadata.istio.services").missing();
  if (typeof port !== "number" || !Number.isInteger(port) || port < 0 || port > 65_535) {
    throw place.at("metadata.istio.default_original_port").invalid("not a port");
  }
  return { namespace: textOf(place, service, "namespace"), hostname: textOf(place, service, "host"), port };
}

function protocolToWire(protocol: Cluster["protocol"]): Any {
  const config = upstream.HttpProtocolOptions.fromPartial({ upstreamProtocolOptions: optionsOf(protocol) });
  return pack(upstream.HttpProtocolOptions, config);
}

function optionsOf(protocol: Cluster["protocol"]): NonNullable<upstream.HttpProtocolOptions["upstreamProtocolOptions"]> {
  const http1 = Http1ProtocolOptions.fromPartial({});
  const http2 = Http2ProtocolOptions.fromPartial({});
  switch (protocol) {
    case "same":
      return { $case: "useDownstreamProtocolConfig", value: { httpProtocolOptions: http1, http2ProtocolOptions: http2 } };
    case "http1":
      return { $case: "explicitHttpConfig", value: { protocolConfig: { $case: "httpProtocolOptions", value: http1 } } };
    case "http2":
      return { $case: "explicitHttpConfig", value: { protocolConfig: { $case: "http2ProtocolOptions", value: http2 } } };
  }
}

/** Without options Envoy speaks HTTP/1.1. */
function protocolFromWire(place: Place, options: wire.Cluster["typedExtensionProtocolOptions"]): Cluster["protocol"] {
  let protocol: Cluster["protocol"] = "http1";
  for (const [key, any] of options) {
    const at = place.at(JSON.stringify(key));
    if (!isPacked(upstream.HttpProtocolOptions, any)) throw at.unsupported();
    const { upstreamProtocolOptions, ...rest } = unpack(upstream.HttpProtocolOptions, any);
    at.refuseRest(upstream.HttpProtocolOptions, rest);
    protocol = protocolOf(at, upstreamProtocolOptions);
  }
  return protocol;
}

function protocolOf(place: Place, options: upstream.HttpProtocolOptions["upstreamProtocolOptions"]): Cluster["protocol"] {
  switch (options?.$case) {
    case "useDownstreamProtocolConfig": {
      const { httpProtocolOptions, http2ProtocolOptions, ...rest } = options.value;
      const at = place.at("use_downstream_protocol_config");
      at.refuseRest(upstream.HttpProtocolOptions_UseDownstreamHttpConfig, rest);
      checkVersionOptions(at, httpProtocolOptions, http2ProtocolOptions);
      return "same";
    }
    case "explicitHttpConfig": {
      const { protocolConfig, ...rest } = options.value;
      const at = place.at("explicit_http_config");
      at.refuseRest(upstream.HttpProtocolOptions_ExplicitHttpConfig, rest);
      if (protocolConfig === undefined) throw at.missing();
      if (protocolConfig.$case === "http3ProtocolOptions") throw at.refuse("protocol_config", protocolConfig);
      if (protocolConfig.$case === "httpProtocolOptions") checkVersionOptions(at, protocolConfig.value, undefined);
      else checkVersionOptions(at, undefined, protocolConfig.value);
      return protocolConfig.$case === "httpProtocolOptions" ? "http1" : "http2";
    }
    default:
      throw place.refuse("upstream_protocol_options", options);
  }
}

function checkVersionOptions(place: Place, http1: Http1ProtocolOptions | undefined, http2: Http2ProtocolOptions | undefined): void {
  place.at("http_protocol_options").refuseRest(Http1ProtocolOptions, http1 ?? {});
  place.at("http2_protocol_options").refuseRest(Http2ProtocolOptions, http2 ?? {});
}

function limitsFromWire(place: Place, breakers: CircuitBreakers | undefined): ClusterLimits {
  if (breakers === undefined) return defaultLimits;
  const { thresholds, ...rest } = breakers;
  place.refuseRest(CircuitBreakers, rest);
  const [first, second] = thresholds;
  if (second !== undefined) throw place.at("thresholds").invalid("more than one");
  if (first === undefined) return defaultLimits;
  const { priority, maxConnections, maxPendingRequests, maxRequests, maxRetries, ...others } = first;
  place.at("thresholds").refuseRest(CircuitBreakers_Thresholds, others, { trackRemaining: "shows more metrics" });
  if (priority !== 0) throw place.at("thresholds.priority").unsupported();
  return {
    maxConnections: maxConnections ?? defaultLimits.maxConnections,
    maxPendingRequests: maxPendingRequests ?? defaultLimits.maxPendingRequests,
    maxRequests: maxRequests ?? defaultLimits.maxRequests,
    maxRetries: maxRetries ?? defaultLimits.maxRetries,
  };
}

/** Success rates, which Envoy watches unless told otherwise, are turned off by name. */
function ejectionToWire(ejection: Ejection): OutlierDetection {
  const { consecutiveErrors, consecutiveGatewayErrors, baseEjectionMs, maxEjectionMs, maxEjectedPercent } = ejection;
  return OutlierDetection.fromPartial({
    ...(consecutiveErrors === 0 ? { enforcingConsecutive5xx: 0 } : { consecutive5xx: consecutiveErrors, enforcingConsecutive5xx: always }),
    ...(consecutiveGatewayErrors === 0
      ? { enforcingConsecutiveGatewayFailure: 0 }
      : { consecutiveGatewayFailure: consecutiveGatewayErrors, enforcingConsecutiveGatewayFailure: always }),
    enforcingSuccessRate: 0,
    baseEjectionTime: durationToWire(baseEjectionMs),
    maxEjectionTime: durationToWire(maxEjectionMs),
    maxEjectionPercent: maxEjectedPercent,
  });
}

function ejectionFromWire(place: Place, message: OutlierDetection): Ejection {
  const { consecutive5xx, enforcingConsecutive5xx = always, consecutiveGatewayFailure, enforcingConsecutiveGatewayFailure = 0, ...more } = message;
  const { enforcingSuccessRate = always, enforcingFailurePercentage = 0, baseEjectionTime, maxEjectionTime, maxEjectionPercent, ...rest } = more;
  place.refuseRest(OutlierDetection, rest, {
    interval: "an endpoint that was ejected comes back when its time is over, without a sweep",
    successRateMinimumHosts: "success rates are off",
    successRateRequestVolume: "success rates are off",
    successRateStdevFactor: "success rates are off",
    failurePercentageThreshold: "failure percentages are off",
    failurePercentageMinimumHosts: "failure percentages are off",
    failurePercentageRequestVolume: "failure percentages are off",
  });
  if (enforcingSuccessRate !== 0) throw place.at("enforcing_success_rate").unsupported();
  if (enforcingFailurePercentage !== 0) throw place.at("enforcing_failure_percentage").unsupported();
  const baseEjectionMs = baseEjectionTime === undefined ? defaultEjection.baseMs : durationFromWire(place.at("base_ejection_time"), baseEjectionTime);
  const percent = maxEjectionPercent ?? defaultEjection.percent;
  if (percent > 100) throw place.at("max_ejection_percent").invalid(`${percent} is not a percentage`);
  return {
    consecutiveErrors: thresholdOf(place.at("enforcing_consecutive_5xx"), consecutive5xx, enforcingConsecutive5xx),
    consecutiveGatewayErrors: thresholdOf(place.at("enforcing_consecutive_gateway_failure"), consecutiveGatewayFailure, enforcingConsecutiveGatewayFailure),
    baseEjectionMs,
    maxEjectionMs:
      maxEjectionTime === undefined ? Math.max(defaultEjection.maxMs, baseEjectionMs) : durationFromWire(place.at("max_ejection_time"), maxEjectionTime),
    maxEjectedPercent: percent,
  };
}

function thresholdOf(place: Place, count: number | undefined, enforcing: number): number {
  if (enforcing !== 0 && enforcing !== always) throw place.invalid(`${enforcing}: an endpoint is ejected always or never`);
  return enforcing === 0 ? 0 : (count ?? defaultEjection.errors);
}
