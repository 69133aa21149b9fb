import { parseIp, type RequestPolicy, type ServedPort, type ServedTarget } from "@fairway/model";
import test from "ava";
import { Listener } from "../gen/resources/envoy/config/listener/v3/listener.ts";
import { JwtAuthentication } from "../gen/resources/envoy/extensions/filters/http/jwt_authn/v3/config.ts";
import { RBAC } from "../gen/resources/envoy/extensions/filters/http/rbac/v3/rbac.ts";
import { HttpConnectionManager } from "../gen/resources/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.ts";
import { changed, empty, type Mutable, refuses, set, type WireType } from "../sample-change.ts";
import { decodeTarget, encodeTarget } from "./listener-codec.ts";

const policy: RequestPolicy = {
  namespace: "shop",
  name: "readers",
  action: "allow",
  dryRun: false,
  rules: [{ kind: "principal", match: { kind: "exact", value: "spiffe://cluster.local/ns/shop/sa/web" } }],
};
const httpPort: ServedPort = {
  port: 80,
  protocol: "http",
  routes: "inbound-vip|80|http|api.shop",
  tcpBackends: [],
  policies: [policy],
  tokens: [
    {
      origin: "shop/jwt",
      issuer: "https://issuer",
      audiences: [],
      keys: { kind: "inline", jwks: "{}" },
      fromHeaders: [],
      fromParams: [],
      fromCookies: [],
      forwardOriginalToken: false,
      outputPayloadToHeader: undefined,
      outputClaimToHeaders: [],
    },
  ],
};
const tcpPort: ServedPort = { port: 90, protocol: "tcp", routes: undefined, tcpBackends: [{ cluster: "db", weight: 1 }], policies: [policy], tokens: [] };
const target: ServedTarget = {
  name: "service/shop/api",
  kind: "service",
  namespace: "shop",
  hostname: "api.shop",
  addresses: [parseIp("10.1.0.1")],
  ports: [httpPort, tcpPort],
  anyPort: undefined,
};
type WireListener = Mutable<Listener>;
type WireManager = Mutable<HttpConnectionManager>;

function managerWith(change: (manager: WireManager) => void): (listener: WireListener) => void {
  return ({ filterChains }) => {
    const filter = filterChains[0]?.filters[0];
    if (filter?.configType?.$case === "typedConfig") filter.configType.value.value = changed(HttpConnectionManager, filter.configType.value.value, change);
  };
}

/** Of the HTTP chain: 0 are the tokens, 1 the policies, 2 the router. */
function filterWith<T>(index: number, type: WireType<T>, change: (message: Mutable<T>) => void): (listener: WireListener) => void {
  return managerWith(({ httpFilters }) => {
    const config = httpFilters[index]?.configType;
    if (config?.$case === "typedConfig") config.value.value = changed(type, config.value.value, change);
  });
}

const ruleKey = "ns[shop]-policy[readers]-rule[0]";
const rbacPlace = 'listener "service/shop/api": filter_chains["80|http"].http_connection_manager.http_filters';
const refusedInListeners: readonly (readonly [message: string, change: (listener: WireListener) => void])[] = [
  ['listener "service/shop/api": bind_to_port: must be false', (listener) => (listener.bindToPort = undefined)],
  ['listener "service/shop/api": access_log is not supported', (listener) => (listener.accessLog = [empty])],
  ['listener "service/shop/api": api_listener is not supported', (listener) => (listener.apiListener = { apiListener: undefined })],
  ['listener "service/shop/api": internal_listener is not supported', (listener) => (listener.listenerSpecifier = { $case: "internalListener", value: empty })],
  [
    'listener "service/shop/api": filter_chains["80|http"].transport_socket is not supported',
    ({ filterChains }) => Object.assign(filterChains[0] ?? {}, { transportSocket: empty }),
  ],
  [
    'listener "service/shop/api": filter_chains["90|tcp"]: a second filter chain for the same match',
    ({ filterChains }) => Object.assign(filterChains[1]?.filterChainMatch ?? {}, { destinationPort: 80 }),
  ],
  [
    'listener "service/shop/api": filter_chains["80|http"].filter_chain_match.server_names is not supported',
    ({ filterChains }) => filterChains[0]?.filterChainMatch?.serverNames.push("api"),
  ],
  [
    'listener "service/shop/api": filter_chains["80|http"].http_connection_manager.scoped_routes is not supported',
    managerWith((manager) => (manager.routeSpecifier = { $case: "scopedRoutes", value: empty })),
  ],
  [
    'listener "service/shop/api": filter_chains["80|http"].http_connection_manager.merge_slashes is not supported',
    managerWith((manager) => (manager.mergeSlashes = true)),
  ],
  [
    'listener "service/shop/api": filter_chains["80|http"].http_connection_manager.tracing is not supported',
    managerWith((manager) => (manager.tracing = empty)),
  ],
  [`${rbacPlace}: the router is missing`, managerWith(({ httpFilters }) => httpFilters.pop())],
  [`${rbacPlace}."envoy.filters.http.jwt_authn": must be the first filter`, managerWith(({ httpFilters }) => httpFilters.unshift(...httpFilters.splice(1, 1)))],
  [
    `${rbacPlace}."envoy.filters.http.rbac": a second filter of the same action`,
    managerWith(({ httpFilters }) => httpFilters.splice(1, 0, ...httpFilters.slice(1, 2))),
  ],
  [
    `${rbacPlace}."cors" is not supported`,
    managerWith(({ httpFilters }) =>
      Object.assign(httpFilters[1] ?? {}, { name: "cors", configType: { $case: "typedConfig", value: { typeUrl: "cors", value: empty } } }),
    ),
  ],
  [
    `${rbacPlace}."envoy.filters.http.jwt_authn".bypass_cors_preflight is not supported`,
    filterWith(0, JwtAuthentication, (message) => (message.bypassCorsPreflight = true)),
  ],
  [
    `${rbacPlace}."envoy.filters.http.jwt_authn".rules.requires.allow_missing_or_failed is not supported`,
    filterWith(0, JwtAuthentication, ({ rules }) =>
      Object.assign(rules[0]?.requirementType ?? {}, { value: { requiresType: { $case: "allowMissingOrFailed", value: {} } } }),
    ),
  ],
  [`${rbacPlace}."envoy.filters.http.rbac".matcher is not supported`, filterWith(1, RBAC, (message) => (message.matcher = empty))],
  ['policy "shop/readers": rule[0].condition is not supported', filterWith(1, RBAC, ({ rules }) => set(rules?.policies.get(ruleKey), { condition: empty }))],
  [
    'policy "shop/readers": rule[0].principals.authenticated is not supported',
    filterWith(1, RBAC, ({ rules }) => set(rules?.policies.get(ruleKey), { principals: [{ identifier: { $case: "authenticated", value: empty } }] })),
  ],
];

for (const [message, change] of refusedInListeners) {
  test(`a listener is refused: ${message}`, (t) => {
    refuses(t, decodeTarget, changed(Listener, encodeTarget(target), change), message);
  });
}

test("a policy whose rules are not numbered one by one is refused", (t) => {
  const change = filterWith(1, RBAC, ({ rules }) => {
    const [first] = rules?.policies.values() ?? [];
    if (first !== undefined) rules?.policies.set("ns[shop]-policy[readers]-rule[900000]", first);
  });
  refuses(t, decodeTarget, changed(Listener, encodeTarget(target), change), 'policy "shop/readers": rule[900000]: the rules before it are missing');
});

test("the two chains of a port whose protocol is detected must have the same policies", (t) => {
  const detect: ServedTarget = { ...target, ports: [{ ...httpPort, protocol: "detect", tcpBackends: tcpPort.tcpBackends }] };
  const bytes = changed(Listener, encodeTarget(detect), ({ filterChains }) => filterChains[1]?.filters.shift());
  refuses(t, decodeTarget, bytes, 'listener "service/shop/api": filter_chains["80|tcp"]: its policies are not those of the HTTP chain');
});
