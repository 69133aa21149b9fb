import { noHeaderChanges, type RouteTable } from "@fairway/model";
import test from "ava";
import { RouteConfiguration } from "../gen/resources/envoy/config/route/v3/route.ts";
import { ProtocolDecodeError } from "../protocol-error.ts";
import { changed, empty, type Mutable, refuses, set } from "../sample-change.ts";
import { len } from "../sample-resources.ts";
import { decodeRouteTable, encodeRouteTable } from "./route-codec.ts";

const table: RouteTable = {
  name: "table",
  virtualHosts: [
    {
      name: "all",
      domains: ["*"],
      routes: [
        {
          name: "x",
          match: {
            path: { kind: "path-prefix", value: "/a" },
            method: "GET",
            headers: [{ name: "h", value: { kind: "exact", value: "v" }, invert: false }],
            query: [{ name: "q", value: { kind: "present" } }],
            grpc: false,
          },
          action: {
            kind: "forward",
            backends: [
              { cluster: "a", weight: 1, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges },
              { cluster: "b", weight: 2, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges },
            ],
            timeoutMs: 100,
            retry: { on: ["5xx"], attempts: 1, statusCodes: [], perTryTimeoutMs: undefined, backoff: { baseMs: 25, maxMs: 250 } },
            rewrite: undefined,
            mirrors: [{ cluster: "c", fraction: 0.5 }],
          },
          requestHeaders: { set: [{ name: "s", value: "1" }], add: [], remove: [] },
          responseHeaders: noHeaderChanges,
        },
      ],
    },
  ],
};

type WireRoute = Mutable<RouteConfiguration>["virtualHosts"][number]["routes"][number];
type WireAction = Extract<NonNullable<WireRoute["action"]>, { $case: "route" }>["value"];

function routesWith(change: (route: WireRoute, action: WireAction) => void): Uint8Array {
  return changed(RouteConfiguration, encodeRouteTable(table), ({ virtualHosts }) => {
    const route = virtualHosts[0]?.routes[0];
    if (route?.action?.$case !== "route") throw new Error("the sample has a route");
    change(route, route.action.value);
  });
}

const refusedInRoutes: readonly (readonly [message: string, change: (route: WireRoute, action: WireAction) => void])[] = [
  ['route "x": route.hedge_policy is not supported', (_, action) => (action.hedgePolicy = empty)],
  ['route "x": route.hash_policy is not supported', (_, action) => (action.hashPolicy = [empty])],
  ['route "x": route.idle_timeout is not supported', (_, action) => (action.idleTimeout = { seconds: 1, nanos: 0 })],
  ['route "x": route.include_vh_rate_limits is not supported', (_, action) => (action.includeVhRateLimits = false)],
  ['route "x": route.cluster_header is not supported', (_, action) => (action.clusterSpecifier = { $case: "clusterHeader", value: "h" })],
  ['route "x": route.cluster_specifier: missing', (_, action) => (action.clusterSpecifier = undefined)],
  ['route "x": route.host_rewrite_header is not supported', (_, action) => (action.hostRewriteSpecifier = { $case: "hostRewriteHeader", value: "h" })],
  ['route "x": route.timeout: -1 s 0 ns is not a duration', (_, action) => (action.timeout = { seconds: -1, nanos: 0 })],
  ['route "x": typed_per_filter_config is not supported', (route) => route.typedPerFilterConfig.set("f", { typeUrl: "t", value: empty })],
  ['route "x": non_forwarding_action is not supported', (route) => (route.action = { $case: "nonForwardingAction", value: empty })],
  ['route "x": action: missing', (route) => (route.action = undefined)],
  ['route "x": match: missing', (route) => (route.match = undefined)],
  [
    'route "x": match.dynamic_metadata is not supported',
    ({ match }) => match?.dynamicMetadata.push({ filter: "f", path: [], value: undefined, invert: false }),
  ],
  ['route "x": match.connect_matcher is not supported', ({ match }) => set(match, { pathSpecifier: { $case: "connectMatcher", value: empty } })],
  ['route "x": match.path_specifier: missing', ({ match }) => set(match, { pathSpecifier: undefined })],
  ['route "x": match.case_sensitive is not supported', ({ match }) => set(match, { caseSensitive: false })],
];

for (const [message, change] of refusedInRoutes) {
  test(`a route is refused: ${message}`, (t) => {
    refuses(t, decodeRouteTable, routesWith(change), message);
  });
}

test("a pattern that is not RE2 is refused where it stands", (t) => {
  const bytes = routesWith(({ match }) => set(match, { pathSpecifier: { $case: "safeRegex", value: { engineType: undefined, regex: "(" } } }));
  t.regex(t.throws(() => decodeRouteTable(bytes), { instanceOf: ProtocolDecodeError })?.message ?? "", /^route "x": match\.safe_regex: "\(" is not a regular/);
});

test("a retry on what is not known is refused by its name", (t) => {
  const bytes = routesWith((_, { retryPolicy }) => set(retryPolicy, { retryOn: "5xx,envoy-ratelimited" }));
  refuses(t, decodeRouteTable, bytes, 'route "x": route.retry_policy.retry_on."envoy-ratelimited" is not supported');
});

test("a field of a newer Envoy is refused by its number", (t) => {
  const bytes = new Uint8Array([...encodeRouteTable(table), ...len(99, "new")]);
  refuses(t, decodeRouteTable, bytes, 'routes "table": field 99 is not supported');
});

test("header values with variables are refused, and with a doubled percent sign are literal", (t) => {
  const headerOf = (route: WireRoute) => route.requestHeadersToAdd[0]?.header;
  const bytes = routesWith((route) => set(headerOf(route), { value: "%REQ(x)%" }));
  refuses(t, decodeRouteTable, bytes, 'route "x": request_headers_to_add."s": "%REQ(x)%" has a variable, and values are literal');
  const literal = decodeRouteTable(routesWith((route) => set(headerOf(route), { value: "100%%" })));
  t.deepEqual(literal.virtualHosts[0]?.routes[0]?.requestHeaders.set, [{ name: "s", value: "100%" }]);
});

test("what Envoy does where a route says nothing is what is read", (t) => {
  const bytes = routesWith((_, action) => {
    action.timeout = undefined;
    set(action.retryPolicy, { numRetries: undefined, retryBackOff: undefined });
  });
  const action = decodeRouteTable(bytes).virtualHosts[0]?.routes[0]?.action;
  t.like(action, { timeoutMs: 15_000, retry: { attempts: 1, backoff: { baseMs: 25, maxMs: 250 } } });
});
