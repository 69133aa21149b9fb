/** Arbitrary things that a waypoint is told, in the one form in which they come back from the wire, for the tests of this package. */
import {
  type Cidr,
  type Cluster,
  type ClusterEndpoints,
  compilePattern,
  type Endpoint,
  type HeaderChanges,
  type HttpRoute,
  type IpAddress,
  ipFromBytes,
  type PathChange,
  type Pattern,
  policyForTcp,
  type RequestCondition,
  type RequestPolicy,
  type RouteAction,
  type RouteTable,
  type ServedPort,
  type ServedTarget,
  type TextMatch,
  type TokenRule,
} from "@fairway/model";
import fc from "fast-check";

const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,11}$/);
const text = fc.string({ unit: "grapheme", maxLength: 12 });
const someText = fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 });
const hostname = fc.tuple(label, label).map(([name, namespace]) => `${name}.${namespace}.svc.cluster.local`);
const clusterName = fc.tuple(fc.integer({ min: 1, max: 65_535 }), hostname).map(([port, host]) => `inbound-vip|${port}|http|${host}`);
const port = fc.integer({ min: 1, max: 65_535 });
const milliseconds = fc.integer({ min: 1, max: 10_000_000 });
const uint32 = fc.nat(2 ** 32 - 1);
const ip: fc.Arbitrary<IpAddress> = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })).map(ipFromBytes);
const cidr: fc.Arbitrary<Cidr> = fc.tuple(ip, fc.nat(128)).map(([address, bits]) => ({ ip: address, length: address.includes(":") ? bits : bits % 33 }));
const path = fc.stringMatching(/^(\/[a-z0-9.%~-]{1,8}){1,3}$/);

const compiled = new Map<string, Pattern>();
/** One object per pattern, so that equal patterns are the same. */
export function pattern(source: string): Pattern {
  const found = compiled.get(source) ?? compilePattern(source);
  compiled.set(source, found);
  return found;
}
const anyPattern = fc.constantFrom("/items/[0-9]+", "v[12].*", "(a|b)+", ".*").map(pattern);
const anyChangePattern = fc.constantFrom("^/old/(.*)$", "/v1", "/.*x").map(pattern);

function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined });
}

export const anyText: fc.Arbitrary<TextMatch> = fc.oneof(
  fc
    .record({ kind: fc.constantFrom("exact" as const, "prefix" as const, "suffix" as const, "contains" as const), value: text, ignoreCase: fc.boolean() })
    .map(({ kind, value, ignoreCase }): TextMatch => ({ kind, value, ...(ignoreCase && { ignoreCase }) })),
  anyPattern.map((each): TextMatch => ({ kind: "regex", pattern: each })),
);
const textOrPresent = fc.oneof(anyText, fc.constant({ kind: "present" as const }));

const headerValues = fc.array(fc.record({ name: label, value: text }), { maxLength: 2 });
const changes: fc.Arbitrary<HeaderChanges> = fc.record({ set: headerValues, add: headerValues, remove: fc.array(label, { maxLength: 2 }) });

const pathChange: fc.Arbitrary<PathChange> = fc.oneof(
  fc.record({ kind: fc.constant("full" as const), value: fc.oneof(path, fc.constantFrom("/a\\b", "/\\1", "/\\\\2")) }),
  fc.record({ kind: fc.constant("prefix" as const), value: path }),
  fc.record({ kind: fc.constant("regex" as const), pattern: anyChangePattern, substitution: fc.constantFrom("/new/\\1", "/x", "/\\\\") }),
);

const backend = fc.record({ cluster: clusterName, weight: uint32, requestHeaders: changes, responseHeaders: changes });
const retry = fc.record({
  on: fc.uniqueArray(
    fc.constantFrom(
      "connect-failure",
      "refused-stream",
      "reset",
      "gateway-error",
      "5xx",
      "retriable-4xx",
      "retriable-status-codes",
      "cancelled",
      "unavailable",
    ),
  ),
  attempts: fc.nat(10),
  statusCodes: fc.array(fc.integer({ min: 100, max: 599 }), { maxLength: 3 }),
  perTryTimeoutMs: maybe(milliseconds),
  backoff: fc.record({ baseMs: milliseconds, maxMs: milliseconds }),
});
const rewrite = fc
  .record({ authority: maybe(hostname), path: maybe(pathChange) })
  .filter(({ authority, path: change }) => authority !== undefined || change !== undefined);

const anyAction: fc.Arbitrary<RouteAction> = fc.oneof(
  fc.record<RouteAction & { kind: "forward" }>({
    kind: fc.constant("forward"),
    backends: fc.array(backend, { minLength: 1, maxLength: 3 }).filter((backends) => backends.some(({ weight }) => weight > 0)),
    timeoutMs: maybe(milliseconds),
    retry: maybe(retry),
    rewrite: maybe(rewrite),
    mirrors: fc.array(fc.record({ cluster: clusterName, fraction: fc.nat(1_000_000).map((millionths) => millionths / 1_000_000) }), { maxLength: 2 }),
  }),
  fc.record({
    kind: fc.constant("redirect" as const),
    redirect: fc.record({
      scheme: maybe(fc.constantFrom("http", "https")),
      hostname: maybe(hostname),
      port: maybe(port),
      path: maybe(pathChange),
      status: fc.constantFrom(301, 302, 303, 307, 308),
    }),
  }),
  fc.record({ kind: fc.constant("respond" as const), status: fc.integer({ min: 200, max: 599 }), body: text }),
);

const anyRoute: fc.Arbitrary<HttpRoute> = fc.record({
  name: text,
  match: fc.record({
    path: fc.oneof(
      fc.record({ kind: fc.constantFrom("exact" as const, "path-prefix" as const, "prefix" as const), value: path }),
      fc.constant({ kind: "prefix" as const, value: "/" }),
      anyPattern.map((each) => ({ kind: "regex" as const, pattern: each })),
    ),
    method: maybe(fc.constantFrom("GET", "POST", "PURGE")),
    headers: fc.array(fc.record({ name: label, value: textOrPresent, invert: fc.boolean() }), { maxLength: 2 }),
    query: fc.array(fc.record({ name: label, value: textOrPresent }), { maxLength: 2 }),
    grpc: fc.boolean(),
  }),
  action: anyAction,
  requestHeaders: changes,
  responseHeaders: changes,
});

export const anyRouteTable: fc.Arbitrary<RouteTable> = fc.record({
  name: clusterName,
  virtualHosts: fc.array(fc.record({ name: text, domains: fc.array(hostname, { maxLength: 2 }), routes: fc.array(anyRoute, { maxLength: 3 }) }), {
    maxLength: 2,
  }),
});

const ejectionCount = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 100 }));
export const anyCluster: fc.Arbitrary<Cluster> = fc.record({
  name: clusterName,
  service: fc.record({ namespace: label, hostname, port: fc.nat(65_535) }),
  protocol: fc.constantFrom("same", "http1", "http2"),
  connectTimeoutMs: milliseconds,
  loadBalancing: fc.constantFrom("round-robin", "least-request", "random"),
  limits: fc.record({ maxConnections: uint32, maxPendingRequests: uint32, maxRequests: uint32, maxRetries: uint32 }),
  ejection: maybe(
    fc.record({
      consecutiveErrors: ejectionCount,
      consecutiveGatewayErrors: ejectionCount,
      baseEjectionMs: milliseconds,
      maxEjectionMs: milliseconds,
      maxEjectedPercent: fc.nat(100),
    }),
  ),
});

const anyEndpoint: fc.Arbitrary<Endpoint> = fc.record({
  address: fc.record({ ip, port }),
  tunnel: fc.constantFrom("hbone", "none"),
  workload: text,
  health: fc.constantFrom("healthy", "unhealthy", "draining"),
  weight: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
});
export const anyEndpoints: fc.Arbitrary<ClusterEndpoints> = fc.record({
  cluster: clusterName,
  localities: fc.array(
    fc.record({
      locality: fc.record({ region: text, zone: text, subzone: text }),
      priority: fc.nat(128),
      weight: uint32,
      endpoints: fc.array(anyEndpoint, { maxLength: 3 }),
    }),
    { maxLength: 3 },
  ),
});

const requestLeaf: fc.Arbitrary<RequestCondition> = fc.oneof(
  fc.record({ kind: fc.constant("destination-ip" as const), range: cidr }),
  fc.tuple(fc.nat(65_535), fc.nat(65_535)).map(([a, b]) => ({ kind: "destination-port" as const, from: Math.min(a, b), to: Math.max(a, b) })),
  fc.record({ kind: fc.constant("header" as const), name: fc.oneof(label, fc.constant(":method")), match: textOrPresent }),
  fc.record({ kind: fc.constant("path" as const), match: anyText }),
  fc.record({ kind: fc.constant("server-name" as const), match: anyText }),
  fc.record({ kind: fc.constant("claim" as const), path: fc.array(someText, { minLength: 1, maxLength: 3 }), match: textOrPresent }),
);
const clientLeaf: fc.Arbitrary<RequestCondition> = fc.oneof(
  fc.record({ kind: fc.constant("principal" as const), match: anyText }),
  fc.record({ kind: fc.constantFrom("source-ip" as const, "remote-ip" as const), range: cidr }),
);

function treeOf(leaf: fc.Arbitrary<RequestCondition>, operators: readonly ("all" | "some" | "not")[]): fc.Arbitrary<RequestCondition> {
  return fc.letrec<{ tree: RequestCondition }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      leaf,
      ...operators.map((kind) =>
        kind === "not"
          ? tie("tree").map((of): RequestCondition => ({ kind, of }))
          : fc.array(tie("tree"), { minLength: 1, maxLength: 3 }).map((of): RequestCondition => ({ kind, of })),
      ),
    ),
  })).tree;
}

/** Any tree whatever, as far as the model goes. */
export const anyCondition: fc.Arbitrary<RequestCondition> = treeOf(fc.oneof(requestLeaf, clientLeaf, fc.constant<RequestCondition>({ kind: "any" })), [
  "all",
  "some",
  "not",
]);

/** As a rule is written: conditions of the request, then of the client, all of which must hold. */
const anyRule: fc.Arbitrary<RequestCondition> = fc
  .tuple(fc.array(alternative(requestLeaf), { maxLength: 2 }), fc.array(alternative(clientLeaf), { maxLength: 2 }))
  .map(([ofRequest, ofClient]) => {
    const [first = { kind: "any" as const }, ...others] = [...ofRequest, ...ofClient];
    return others.length === 0 ? first : { kind: "all", of: [first, ...others] };
  });

function alternative(leaf: fc.Arbitrary<RequestCondition>): fc.Arbitrary<RequestCondition> {
  const negated = treeOf(leaf, ["all", "some", "not"]).map((of): RequestCondition => ({ kind: "not", of }));
  const some = fc.array(treeOf(leaf, ["all", "some", "not"]), { minLength: 1, maxLength: 3 }).map((of): RequestCondition => ({ kind: "some", of }));
  return fc.oneof(leaf, negated, some);
}

const actions = ["deny", "allow", "audit"] as const;
function policyOrder({ action, dryRun }: RequestPolicy): number {
  return actions.indexOf(action) * 2 + (dryRun ? 1 : 0);
}

const anyRequestPolicies: fc.Arbitrary<RequestPolicy[]> = fc
  .uniqueArray(
    fc.record({
      namespace: label,
      name: label,
      action: fc.constantFrom(...actions),
      dryRun: fc.boolean(),
      rules: fc.array(anyRule, { maxLength: 3 }),
    }),
    { maxLength: 4, selector: ({ namespace, name }) => `${namespace}/${name}` },
  )
  .map((policies) => policies.toSorted((a, b) => policyOrder(a) - policyOrder(b)));

const anyToken: fc.Arbitrary<TokenRule> = fc.record({
  origin: fc.tuple(label, label).map(([namespace, name]) => `${namespace}/${name}`),
  issuer: someText,
  audiences: fc.array(text, { maxLength: 2 }),
  keys: fc.oneof(
    fc.record({ kind: fc.constant("inline" as const), jwks: text }),
    fc.record({ kind: fc.constant("remote" as const), uri: hostname.map((host) => `https://${host}/keys`), timeoutMs: milliseconds }),
  ),
  fromHeaders: fc.array(fc.record({ name: label, prefix: text }), { maxLength: 2 }),
  fromParams: fc.array(label, { maxLength: 2 }),
  fromCookies: fc.array(label, { maxLength: 2 }),
  forwardOriginalToken: fc.boolean(),
  outputPayloadToHeader: maybe(label),
  outputClaimToHeaders: fc.array(fc.record({ header: label, claim: label }), { maxLength: 2 }),
});
const tokens = fc.array(anyToken, { maxLength: 2 });

const tcpBackend = fc.record({ cluster: clusterName, weight: fc.integer({ min: 1, max: 2 ** 32 - 1 }) });
const tcpBackends = fc.array(tcpBackend, { minLength: 1, maxLength: 2 });
function servedPort(number: fc.Arbitrary<number>): fc.Arbitrary<ServedPort> {
  return fc.oneof(
    fc.record({
      port: number,
      protocol: fc.constant("http" as const),
      routes: clusterName,
      tcpBackends: fc.constant([]),
      policies: anyRequestPolicies,
      tokens,
    }),
    fc.record({ port: number, protocol: fc.constant("detect" as const), routes: clusterName, tcpBackends, policies: anyRequestPolicies, tokens }),
    fc.record({
      port: number,
      protocol: fc.constant("tcp" as const),
      routes: fc.constant(undefined),
      tcpBackends,
      policies: fc.constant([]),
      tokens: fc.constant([]),
    }),
  );
}

const addresses = fc.array(ip, { minLength: 1, maxLength: 3 });
export const anyTarget: fc.Arbitrary<ServedTarget> = fc.oneof(
  fc.record({
    name: hostname.map((host) => `service/shop/${host}`),
    kind: fc.constant("service" as const),
    namespace: label,
    hostname,
    addresses,
    ports: fc.uniqueArray(servedPort(port), { maxLength: 3, selector: (each) => each.port }),
    anyPort: fc.constant(undefined),
  }),
  fc.record({
    name: label.map((name) => `workload/cluster//Pod/shop/${name}`),
    kind: fc.constant("workload" as const),
    namespace: label,
    hostname: label,
    addresses,
    ports: fc.constant([]),
    anyPort: maybe(servedPort(fc.constant(0))),
  }),
);

/** A target whose TCP ports have policies that ask for HTTP. */
export const anyTcpPort: fc.Arbitrary<{ readonly port: ServedPort; readonly expected: readonly RequestPolicy[] }> = fc
  .record({ port, cluster: clusterName, policies: anyRequestPolicies })
  .map(({ port: number, cluster, policies }) => ({
    port: { port: number, protocol: "tcp", routes: undefined, tcpBackends: [{ cluster, weight: 1 }], policies, tokens: [] },
    expected: policies.map(policyForTcp),
  }));
