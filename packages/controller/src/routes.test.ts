import type { GrpcRouteMatch, HttpRouteMatch, HttpRouteRule } from "@fairway/kube";
import { type ForwardAction, HeaderFields, type HttpRoute, type RequestHead, redirectLocation, rewritten, routeOf } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { grpcRoute, httpRoute } from "./fixtures.ts";
import { readGrpcRoute } from "./grpc-routes.ts";
import { readHttpRoute } from "./http-routes.ts";
import { readDuration } from "./route-reading.ts";
import { type FindBackend, routeTable } from "./routes.ts";

const find: FindBackend = ({ name }) => ({ kind: "cluster", cluster: name });
const backendRefs = [{ name: "web", port: 80 }];

function table(...rules: readonly HttpRouteRule[]) {
  return routeTable("t", 80, "own", [readHttpRoute(httpRoute("r", { rules: [...rules] }))], find);
}

function head(changes: Partial<RequestHead> & { fields?: Record<string, string> } = {}): RequestHead {
  const { fields = {}, ...rest } = changes;
  return { method: "GET", scheme: "http", authority: "web", path: "/", headers: HeaderFields.of(fields), ...rest };
}

const matchOf = (match: HttpRouteMatch, request: RequestHead): boolean => routeOf(table({ matches: [match], backendRefs }), request) !== undefined;
const first = (rule: HttpRouteRule): HttpRoute => {
  const route = table(rule).virtualHosts[0]?.routes[0];
  if (route === undefined) throw new Error("no route");
  return route;
};
const forward = (rule: HttpRouteRule): ForwardAction => {
  const { action } = first({ backendRefs, ...rule });
  if (action.kind !== "forward") throw new Error(`not forwarded: ${JSON.stringify(action)}`);
  return action;
};

const matches: readonly [string, HttpRouteMatch, readonly Parameters<typeof head>[0][], readonly Parameters<typeof head>[0][]][] = [
  ["everything, when it asks for nothing", {}, [{ path: "/x" }, { method: "POST" }], []],
  ["a prefix by elements", { path: { type: "PathPrefix", value: "/a/" } }, [{ path: "/a" }, { path: "/a/b?c" }], [{ path: "/ab" }, { path: "/" }]],
  ["an exact path", { path: { type: "Exact", value: "/a" } }, [{ path: "/a?x=1" }], [{ path: "/a/" }]],
  ["a pattern over the whole path", { path: { type: "RegularExpression", value: "/v[0-9]+" } }, [{ path: "/v12" }], [{ path: "/v12/x" }]],
  ["a method", { method: "PUT" }, [{ method: "PUT" }], [{ method: "GET" }]],
  ["a header, whatever the case of its name", { headers: [{ name: "X-A", value: "1" }] }, [{ fields: { "x-a": "1" } }], [{ fields: { "x-a": "2" } }, {}]],
  ["the host as a header", { headers: [{ name: "Host", value: "web" }] }, [{}], [{ authority: "other" }]],
  [
    "the first of two that ask about one header",
    {
      headers: [
        { name: "x", value: "1" },
        { name: "X", value: "2" },
      ],
    },
    [{ fields: { x: "1" } }],
    [{ fields: { x: "2" } }],
  ],
  ["a query parameter", { queryParams: [{ name: "q", value: "1" }] }, [{ path: "/?q=1" }], [{ path: "/?q=2" }, { path: "/" }]],
  ["a query parameter by pattern", { queryParams: [{ type: "RegularExpression", name: "q", value: "a+" }] }, [{ path: "/?q=aa" }], [{ path: "/?q=ab" }]],
];
for (const [title, match, taken, left] of matches) {
  test(`a match takes ${title}`, (t) => {
    for (const request of taken) t.true(matchOf(match, head(request)), JSON.stringify(request));
    for (const request of left) t.false(matchOf(match, head(request)), JSON.stringify(request));
  });
}

const calls: readonly [string, GrpcRouteMatch, readonly string[], readonly string[]][] = [
  ["any call", {}, ["/a.B/C"], []],
  ["one method", { method: { service: "a.B", method: "C" } }, ["/a.B/C"], ["/a.B/D", "/a.B/C/x"]],
  ["one service", { method: { service: "a.B" } }, ["/a.B/C"], ["/a.BC/C"]],
  ["a method of any service", { method: { method: "C" } }, ["/x/C", "/y.Z/C"], ["/x/D"]],
  ["a pattern", { method: { type: "RegularExpression", service: "a|b", method: "C.*" } }, ["/a/C1", "/b/C"], ["/ab/C", "/a/D"]],
];
for (const [title, match, taken, left] of calls) {
  test(`a GRPCRoute takes ${title}`, (t) => {
    const made = routeTable("t", 80, "own", [readGrpcRoute(grpcRoute("g", { rules: [{ matches: [match], backendRefs }] }))], find);
    const call = (path: string, type = "application/grpc"): boolean =>
      routeOf(made, head({ method: "POST", path, fields: { "content-type": type } })) !== undefined;
    for (const path of taken) t.true(call(path), path);
    for (const path of left) t.false(call(path), path);
    t.false(call(taken[0] ?? "/", "text/plain"), "only gRPC");
  });
}

test("names: a rule's own, else its route's with its number", (t) => {
  t.deepEqual(
    table({ backendRefs }, { name: "mine", backendRefs }).virtualHosts[0]?.routes.map(({ name }) => name),
    ["shop.r.0", "mine"],
  );
});

test("headers are changed by the rule and by its backends, in both directions", (t) => {
  const set = (name: string) => ({ set: [{ name, value: "1" }], add: [{ name: "B", value: "2" }], remove: ["C", "c"] });
  const changes = (name: string) => ({ set: [{ name, value: "1" }], add: [{ name: "b", value: "2" }], remove: ["c"] });
  const filters = [
    { type: "RequestHeaderModifier", requestHeaderModifier: set("Q") },
    { type: "ResponseHeaderModifier", responseHeaderModifier: set("P") },
  ];
  const route = first({ filters, backendRefs: [{ name: "web", port: 80, filters }] });
  t.deepEqual([route.requestHeaders, route.responseHeaders], [changes("q"), changes("p")]);
  const backend = route.action.kind === "forward" ? route.action.backends[0] : undefined;
  t.deepEqual([backend?.requestHeaders, backend?.responseHeaders], [changes("q"), changes("p")]);
});

test("a request is mirrored whole, by percent, or by fraction", (t) => {
  const mirror = (extra: object) => ({ type: "RequestMirror", requestMirror: { backendRef: { name: "m", port: 80 }, ...extra } });
  const filters = [mirror({}), mirror({ percent: 5 }), mirror({ fraction: { numerator: 1, denominator: 1000 } }), mirror({ percent: 0 })];
  t.deepEqual(
    forward({ filters }).mirrors.map(({ fraction }) => fraction),
    [1, 0.05, 0.001],
  );
});

test("times: the whole request, each try, and 0s for no limit", (t) => {
  t.like(forward({ timeouts: { request: "10s", backendRequest: "2s" } }), { timeoutMs: 10_000 });
  t.is(forward({ timeouts: { backendRequest: "1m500ms" } }).retry?.perTryTimeoutMs, 60_500);
  t.is(forward({ timeouts: { request: "0s" } }).timeoutMs, undefined);
});

test("retries: what a rule asks for, else only what the application cannot have seen; without routes the mesh's default", (t) => {
  t.deepEqual(forward({ retry: { codes: [500, 503], attempts: 3, backoff: "100ms" } }).retry, {
    on: ["connect-failure", "refused-stream", "reset", "unavailable", "cancelled", "retriable-status-codes"],
    attempts: 3,
    statusCodes: [500, 503],
    perTryTimeoutMs: undefined,
    backoff: { baseMs: 100, maxMs: 1_000 },
  });
  t.is(forward({ retry: {} }).retry?.attempts, 2);
  t.deepEqual(forward({}).retry?.on, ["connect-failure", "refused-stream"]);
  const plain = routeTable("t", 80, "own", [], find).virtualHosts[0]?.routes[0]?.action;
  t.like(plain, { kind: "forward", retry: { attempts: 2, on: ["connect-failure", "refused-stream", "unavailable", "cancelled"] } } as never);
});

/** Match, replacement, path asked for, path that results (Gateway API, HTTPPathModifier). */
const replacements: readonly [string, string, string, string][] = [
  ["/foo", "/xyz", "/foo/bar", "/xyz/bar"],
  ["/foo/", "/xyz/", "/foo/bar", "/xyz/bar"],
  ["/foo", "/xyz", "/foo", "/xyz"],
  ["/foo", "/", "/foo/bar", "/bar"],
  ["/foo", "", "/foo", "/"],
  ["/", "/xyz", "/foo", "/xyz/foo"],
  ["/", "/xyz/", "/foo?a=b", "/xyz/foo?a=b"],
];
for (const [value, replacePrefixMatch, asked, result] of replacements) {
  test(`the prefix ${value} replaced by ${JSON.stringify(replacePrefixMatch)} makes ${asked} ${result}, in a rewrite and in a redirect`, (t) => {
    const path = { type: "ReplacePrefixMatch", replacePrefixMatch };
    const found = [{ path: { type: "PathPrefix", value } }];
    const rewrite = first({ matches: found, backendRefs, filters: [{ type: "URLRewrite", urlRewrite: { path } }] });
    t.is(rewritten(head({ path: asked }), rewrite).path, result);
    const redirect = first({ matches: found, filters: [{ type: "RequestRedirect", requestRedirect: { path, statusCode: 308 } }] });
    if (redirect.action.kind !== "redirect") throw new Error("not a redirect");
    t.is(redirect.action.redirect.status, 308);
    t.is(redirectLocation(head({ path: asked }), redirect, redirect.action.redirect), `http://web${result}`);
  });
}

test("a redirect changes what it names, 302 when it says nothing", (t) => {
  const route = first({ filters: [{ type: "RequestRedirect", requestRedirect: { scheme: "https", hostname: "new", port: 8443 } }] });
  if (route.action.kind !== "redirect") throw new Error("not a redirect");
  t.is(route.action.redirect.status, 302);
  t.is(redirectLocation(head({ path: "/a?b" }), route, route.action.redirect), "https://new:8443/a?b");
});

test("a rewrite can name another host and a whole path", (t) => {
  const route = first({
    backendRefs,
    filters: [{ type: "URLRewrite", urlRewrite: { hostname: "one", path: { type: "ReplaceFullPath", replaceFullPath: "/two" } } }],
  });
  t.like(rewritten(head({ path: "/a?b=c" }), route), { authority: "one", path: "/two?b=c" });
});

test("a rule that cannot be done answers 500 where it matches, and never does less than it says", (t) => {
  for (const rule of [{ filters: [{ type: "CORS" }] }, { retry: { attempts: -1 } }, { timeouts: { request: "1.5s" } }] as HttpRouteRule[]) {
    t.deepEqual(first({ backendRefs, ...rule }).action, { kind: "respond", status: 500, body: "" });
  }
});

test("durations are the Gateway API's", (t) => {
  t.is(readDuration("1h2m3s4ms"), 3_723_004);
  t.is(readDuration("0s"), 0);
  for (const text of ["", "1", "s", "1.5s", "-1s", "1d", "1h1h1h1h1h"]) t.throws(() => readDuration(text), { name: "InvalidValueError" });
});

test("no rule, whatever its values, makes the reading throw", (t) => {
  const word = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom("Exact", "RegularExpression", "PathPrefix", "/a", "(", "GET"));
  const entry = fc.record({ name: word, value: word }, { requiredKeys: ["name", "value"] });
  const match = fc.record(
    { path: fc.record({ type: word, value: word }), headers: fc.array(entry), queryParams: fc.array(entry), method: word },
    { requiredKeys: [] },
  );
  const filter = fc.record({
    type: fc.constantFrom("RequestHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "x"),
    requestHeaderModifier: fc.record({ set: fc.array(entry), remove: fc.array(word) }),
    requestRedirect: fc.record({ scheme: word, port: fc.integer(), path: fc.record({ type: word, replaceFullPath: word }) }),
  });
  const rule = fc.record({
    matches: fc.array(match),
    filters: fc.array(filter),
    timeouts: fc.record({ request: word }),
    retry: fc.record({ attempts: fc.double() }),
  });
  fc.assert(
    fc.property(rule, (one) => {
      t.true((table(one as HttpRouteRule).virtualHosts[0]?.routes.length ?? 0) <= Math.max(one.matches.length, 1));
    }),
    { numRuns: 200 },
  );
});
