/**
 * From a DestinationRule to how a waypoint treats the endpoints of a service (controller contract 5.4): balancing, limits, ejection. A rule with
 * a value that cannot be read changes nothing; fields that we do not honour are said, and the others count.
 */
import type { ConditionWish, DestinationRule, TrafficPolicy } from "@fairway/kube";
import { type Cluster, type ClusterLimits, defaultConnectTimeoutMs, type Ejection, InvalidValueError, unlimited } from "@fairway/model";
import { messageOf } from "@fairway/runtime";
import { byAge } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";
import { isRecord, listProblems, unknownFields } from "./unknown-fields.ts";

export type ClusterSettings = Pick<Cluster, "connectTimeoutMs" | "loadBalancing" | "limits" | "ejection">;

export interface DestinationRuleReading {
  readonly key: string;
  readonly namespace: string;
  readonly created: { readonly metadata: DestinationRule["metadata"] };
  /** The hostname that it is about. */
  readonly hostname: string;
  readonly settings: ClusterSettings;
  readonly byPort: ReadonlyMap<number, ClusterSettings>;
  readonly condition: ConditionWish | undefined;
}

export const defaultSettings: ClusterSettings = {
  connectTimeoutMs: defaultConnectTimeoutMs,
  loadBalancing: "least-request",
  limits: unlimited,
  ejection: undefined,
};

const loadBalancings: ReadonlyMap<string, Cluster["loadBalancing"]> = new Map([
  ["UNSPECIFIED", "least-request"],
  ["LEAST_REQUEST", "least-request"],
  ["LEAST_CONN", "least-request"],
  ["ROUND_ROBIN", "round-robin"],
  ["RANDOM", "random"],
]);
const durationPattern = /^([0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+$/;
const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
const shortestMs = 1;
const longestMs = 24 * 3_600_000;
const largestLimit = 2 ** 31 - 1;
const defaultEjection: Ejection = {
  consecutiveErrors: 0,
  consecutiveGatewayErrors: 0,
  baseEjectionMs: 30_000,
  maxEjectionMs: 300_000,
  maxEjectedPercent: 10,
};
/** What the reference ejects at when the block is there and says nothing. */
const defaultConsecutiveErrors = 5;

const policyFields = ["loadBalancer", "connectionPool", "outlierDetection"] as const;
const known = {
  spec: new Set(["host", "trafficPolicy"]),
  trafficPolicy: new Set([...policyFields, "portLevelSettings"]),
  portLevelSettings: new Set([...policyFields, "port"]),
  loadBalancer: new Set(["simple"]),
  connectionPool: new Set(["tcp", "http"]),
  tcp: new Set(["maxConnections", "connectTimeout"]),
  http: new Set(["http1MaxPendingRequests", "http2MaxRequests", "maxRetries"]),
  outlierDetection: new Set(["consecutive5xxErrors", "consecutiveGatewayErrors", "baseEjectionTime", "maxEjectionPercent"]),
} as const;

/** Never throws. */
export function readDestinationRule(object: DestinationRule, { clusterDomain }: MeshSettings): DestinationRuleReading {
  const { metadata } = object;
  const namespace = metadata.namespace ?? "";
  const spec = isRecord(object.spec) ? (object.spec as NonNullable<DestinationRule["spec"]>) : {};
  const base = {
    key: `${namespace}/${metadata.name}`,
    namespace,
    created: { metadata },
    hostname: hostnameOf(typeof spec.host === "string" ? spec.host : "", namespace, clusterDomain),
  };
  try {
    const { trafficPolicy = {} } = spec;
    const settings = readPolicy(trafficPolicy, defaultSettings);
    const byPort = new Map(
      (trafficPolicy.portLevelSettings ?? []).map((entry, index) => {
        const number = readNumber(entry.port?.number, `spec.trafficPolicy.portLevelSettings[${index}].port.number`, 1, 65_535) ?? 0;
        // A port's settings stand for themselves: nothing is inherited from the rule's (as the reference has it).
        return [number, readPolicy(entry, defaultSettings)] as const;
      }),
    );
    const ignored = unhonoured(spec);
    const message = `fields that are not honoured: ${listProblems(ignored)}; the others are`;
    const condition: ConditionWish | undefined =
      ignored.length === 0 ? undefined : { type: "WaypointAccepted", status: "True", reason: "PartiallyInvalid", message };
    return { ...base, settings, byPort, condition };
  } catch (thrown) {
    const message = `${messageOf(thrown)}; the object changes nothing until that is corrected`;
    return {
      ...base,
      settings: defaultSettings,
      byPort: new Map(),
      condition: { type: "WaypointAccepted", status: "False", reason: "Invalid", message },
    };
  }
}

/** The settings of one port: of the rules for the service, those of the waypoint's namespace first, then the service's, then the root's. */
export function settingsFor(
  readings: readonly DestinationRuleReading[],
  { port, namespaces }: { readonly port: number; readonly namespaces: readonly string[] },
): ClusterSettings {
  for (const namespace of namespaces) {
    const [first] = readings.filter((reading) => reading.namespace === namespace).sort((a, b) => byAge(a.created, b.created));
    if (first !== undefined) return first.byPort.get(port) ?? first.settings;
  }
  return defaultSettings;
}

/** A name is of the rule's own namespace; more than one label names the namespace, and so on to the whole hostname. */
function hostnameOf(host: string, namespace: string, clusterDomain: string): string {
  const parts = host.split(".");
  if (parts.length === 1) return `${host}.${namespace}.svc.${clusterDomain}`;
  if (parts.length === 2) return `${host}.svc.${clusterDomain}`;
  return parts.length === 3 && parts[2] === "svc" ? `${host}.${clusterDomain}` : host;
}

function readPolicy({ loadBalancer, connectionPool, outlierDetection }: TrafficPolicy, base: ClusterSettings): ClusterSettings {
  const { tcp = {}, http = {} } = connectionPool ?? {};
  const simple = loadBalancer?.simple ?? "UNSPECIFIED";
  const loadBalancing = loadBalancings.get(simple);
  if (loadBalancing === undefined) throw new InvalidValueError(`loadBalancer.simple: ${JSON.stringify(simple)} is not supported`);
  const limits: ClusterLimits = {
    maxConnections: readLimit(tcp.maxConnections, "connectionPool.tcp.maxConnections") ?? base.limits.maxConnections,
    maxPendingRequests: readLimit(http.http1MaxPendingRequests, "connectionPool.http.http1MaxPendingRequests") ?? base.limits.maxPendingRequests,
    maxRequests: readLimit(http.http2MaxRequests, "connectionPool.http.http2MaxRequests") ?? base.limits.maxRequests,
    maxRetries: readLimit(http.maxRetries, "connectionPool.http.maxRetries") ?? base.limits.maxRetries,
  };
  const connectTimeoutMs = readDuration(tcp.connectTimeout, "connectionPool.tcp.connectTimeout") ?? base.connectTimeoutMs;
  return { connectTimeoutMs, loadBalancing, limits, ejection: readEjection(outlierDetection) };
}

function readEjection(outlier: TrafficPolicy["outlierDetection"]): Ejection | undefined {
  if (outlier === undefined) return undefined;
  const count = (value: number | null | undefined, field: string) => readNumber(value ?? undefined, `outlierDetection.${field}`, 0, largestLimit);
  const gateway = count(outlier.consecutiveGatewayErrors, "consecutiveGatewayErrors") ?? 0;
  const baseEjectionMs = readDuration(outlier.baseEjectionTime, "outlierDetection.baseEjectionTime") ?? defaultEjection.baseEjectionMs;
  return {
    consecutiveErrors: count(outlier.consecutive5xxErrors, "consecutive5xxErrors") ?? defaultConsecutiveErrors,
    consecutiveGatewayErrors: gateway,
    baseEjectionMs,
    maxEjectionMs: Math.max(baseEjectionMs, defaultEjection.maxEjectionMs),
    maxEjectedPercent: readNumber(outlier.maxEjectionPercent, "outlierDetection.maxEjectionPercent", 0, 100) ?? defaultEjection.maxEjectedPercent,
  };
}

/** 0 is no limit of one's own, as the reference reads it. */
function readLimit(value: number | undefined, field: string): number | undefined {
  const limit = readNumber(value, field, 0, largestLimit);
  return limit === 0 ? undefined : limit;
}

function readNumber(value: number | undefined, field: string, least: number, most: number): number | undefined {
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new InvalidValueError(`${field}: ${JSON.stringify(value)} is not a whole number from ${least} to ${most}`);
  }
  return value;
}

function readDuration(text: string | undefined, field: string): number | undefined {
  if (text === undefined) return undefined;
  let total = 0;
  for (const [, count, unit] of String(text).matchAll(/([0-9.]+)(ms|s|m|h)/g)) total += Number(count) * (units[unit ?? ""] ?? 0);
  if (!durationPattern.test(text) || total < shortestMs || total > longestMs) {
    throw new InvalidValueError(`${field}: ${JSON.stringify(text)} is not a duration from 1ms to 24h`);
  }
  return Math.round(total);
}

/** Fields that say something we do not do, wherever they stand. */
function unhonoured(spec: NonNullable<DestinationRule["spec"]>): readonly string[] {
  const { trafficPolicy } = spec;
  const found = [...unknownFields(spec, { path: "spec", known: known.spec })];
  const look = (policy: TrafficPolicy | undefined, path: string, fields: ReadonlySet<string>): void => {
    found.push(...unknownFields(policy, { path, known: fields }));
    found.push(...unknownFields(policy?.loadBalancer, { path: `${path}.loadBalancer`, known: known.loadBalancer }));
    found.push(...unknownFields(policy?.connectionPool, { path: `${path}.connectionPool`, known: known.connectionPool }));
    found.push(...unknownFields(policy?.connectionPool?.tcp, { path: `${path}.connectionPool.tcp`, known: known.tcp }));
    found.push(...unknownFields(policy?.connectionPool?.http, { path: `${path}.connectionPool.http`, known: known.http }));
    found.push(...unknownFields(policy?.outlierDetection, { path: `${path}.outlierDetection`, known: known.outlierDetection }));
  };
  look(trafficPolicy, "spec.trafficPolicy", known.trafficPolicy);
  for (const [index, entry] of (trafficPolicy?.portLevelSettings ?? []).entries()) {
    look(entry, `spec.trafficPolicy.portLevelSettings[${index}]`, known.portLevelSettings);
  }
  return found;
}
