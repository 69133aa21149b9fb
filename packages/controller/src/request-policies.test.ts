import type { AuthorizationPolicyObject, AuthorizationRule } from "@fairway/kube";
import { authorizeRequest, HeaderFields, parseIp, type RequestFacts, type RequestVerdict, type SpiffeId } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { policy } from "./fixtures.ts";
import { convertRequestPolicy } from "./request-policies.ts";

const convert = (spec: AuthorizationPolicyObject["spec"], metadata: Parameters<typeof policy>[2] = {}) =>
  convertRequestPolicy(policy("p", spec, metadata), "fairway-system");
const targetRefs = [{ kind: "Service", name: "web" }];

interface Request {
  readonly method?: string;
  readonly authority?: string;
  readonly path?: string;
  readonly headers?: Record<string, string | readonly string[]>;
  readonly identity?: string;
  readonly source?: string;
  readonly remote?: string;
  readonly port?: number;
  readonly claims?: RequestFacts["claims"];
}

function facts({
  method = "GET",
  authority = "web",
  path = "/",
  headers = {},
  identity = "spiffe://cluster.local/ns/shop/sa/client",
  ...rest
}: Request): RequestFacts {
  return {
    head: { method, scheme: "http", authority, path, headers: HeaderFields.of(headers) },
    identity: identity === "" ? undefined : (identity as SpiffeId),
    source: { ip: parseIp(rest.source ?? "10.0.0.1"), port: 1 },
    remote: { ip: parseIp(rest.remote ?? "192.0.2.1"), port: 1 },
    destination: { ip: parseIp("10.1.0.1"), port: rest.port ?? 80 },
    serverName: undefined,
    claims: rest.claims,
  };
}

/** What an ALLOW policy of one rule says. */
function allows(rule: AuthorizationRule, request: Request): boolean {
  return authorizeRequest([convert({ targetRefs, action: "ALLOW", rules: [rule] }).policy], facts(request)).allowed;
}

function denies(rule: unknown, request: Request): RequestVerdict {
  return authorizeRequest([convert({ targetRefs, action: "DENY", rules: [rule as AuthorizationRule] }).policy], facts(request));
}

const source = (entry: object): AuthorizationRule => ({ from: [{ source: entry }] });
const operation = (entry: object): AuthorizationRule => ({ to: [{ operation: entry }] });
const when = (key: string, values: string[], notValues?: string[]): AuthorizationRule => ({ when: [{ key, values, ...(notValues && { notValues }) }] });
const token = (claims: NonNullable<RequestFacts["claims"]>): Request => ({ claims: { iss: "https://issuer", sub: "alice", ...claims } });

/** An attribute, a rule that asks for it, what matches, what does not. */
const attributes: readonly [string, AuthorizationRule, readonly Request[], readonly Request[]][] = [
  ["hosts, whatever their case", operation({ hosts: ["Web.Example"] }), [{ authority: "web.EXAMPLE" }], [{ authority: "other" }]],
  ["hosts by suffix", operation({ hosts: ["*.example"] }), [{ authority: "a.Example" }], [{ authority: "example" }]],
  ["methods", operation({ methods: ["GET", "P*"] }), [{ method: "GET" }, { method: "PUT" }], [{ method: "DELETE" }]],
  ["paths, without the query", operation({ paths: ["/a"] }), [{ path: "/a?b=c" }], [{ path: "/a/b" }]],
  ["paths by prefix", operation({ paths: ["/a/*"] }), [{ path: "/a/b/c" }], [{ path: "/ab" }]],
  ["paths by suffix", operation({ paths: ["*/info"] }), [{ path: "/x/info" }], [{ path: "/x/info/y" }]],
  ["paths with one element open", operation({ paths: ["/a/{*}/c"] }), [{ path: "/a/b/c" }], [{ path: "/a/c" }, { path: "/a/b/b/c" }]],
  ["paths with the rest open", operation({ paths: ["/a/{**}"] }), [{ path: "/a/b/c" }, { path: "/a/" }], [{ path: "/b" }]],
  ["ports", operation({ ports: ["80"] }), [{ port: 80 }], [{ port: 81 }]],
  ["all of one operation", operation({ methods: ["GET"], paths: ["/a"] }), [{ path: "/a" }], [{ path: "/a", method: "PUT" }, { path: "/b" }]],
  ["not these methods", operation({ notMethods: ["DELETE"] }), [{ method: "GET" }], [{ method: "DELETE" }]],
  ["not these paths", operation({ paths: ["/*"], notPaths: ["/admin*"] }), [{ path: "/x" }], [{ path: "/admin/x" }]],
  ["ipBlocks", source({ ipBlocks: ["10.0.0.0/24"] }), [{ source: "10.0.0.9" }], [{ source: "10.0.1.9" }]],
  ["notIpBlocks", source({ notIpBlocks: ["10.0.0.0/24"] }), [{ source: "10.0.1.9" }], [{ source: "10.0.0.9" }]],
  ["remoteIpBlocks", source({ remoteIpBlocks: ["192.0.2.0/24"] }), [{ remote: "192.0.2.7" }], [{ remote: "10.0.0.1" }]],
  ["namespaces", source({ namespaces: ["shop"] }), [{}], [{ identity: "spiffe://cluster.local/ns/shop-2/sa/shop" }, { identity: "" }]],
  ["namespaces with an open end", source({ namespaces: ["sh*"] }), [{}], [{ identity: "spiffe://cluster.local/ns/other/sa/sh" }]],
  ["notNamespaces", source({ notNamespaces: ["shop"] }), [{ identity: "spiffe://cluster.local/ns/other/sa/a" }], [{}]],
  ["serviceAccounts of the policy's namespace", source({ serviceAccounts: ["client"] }), [{}], [{ identity: "spiffe://cluster.local/ns/other/sa/client" }]],
  ["serviceAccounts elsewhere", source({ serviceAccounts: ["other/a"] }), [{ identity: "spiffe://x/ns/other/sa/a" }], [{}]],
  ["principals", source({ principals: ["cluster.local/ns/shop/sa/client"] }), [{}], [{ identity: "spiffe://evil/ns/shop/sa/client" }, { identity: "" }]],
  ["principals by suffix", source({ principals: ["*/sa/client"] }), [{}], [{ identity: "spiffe://cluster.local/ns/shop/sa/client-2" }]],
  ["any principal", source({ principals: ["*"] }), [{}], [{ identity: "" }]],
  ["trustDomains", source({ trustDomains: ["cluster.local"] }), [{}], [{ identity: "spiffe://cluster.local.evil/ns/shop/sa/client" }]],
  ["any token", source({ requestPrincipals: ["*"] }), [token({})], [{}]],
  ["a token of an issuer", source({ requestPrincipals: ["https://issuer/*"] }), [token({})], [{}, { claims: { iss: "https://other", sub: "alice" } }]],
  ["one subject", source({ requestPrincipals: ["https://issuer/alice"] }), [token({})], [token({ sub: "bob" })]],
  ["a header", when("request.headers[X-Team]", ["a"]), [{ headers: { "x-team": "a" } }], [{}, { headers: { "x-team": "b" } }]],
  ["a header that is there", when("request.headers[x-team]", ["*"]), [{ headers: { "x-team": "b" } }], [{}]],
  ["not that header value", when("request.headers[x-team]", ["*"], ["b"]), [{ headers: { "x-team": "a" } }], [{ headers: { "x-team": "b" } }]],
  ["an audience among several", when("request.auth.audiences", ["x"]), [token({ aud: ["y", "x"] })], [token({ aud: "y" })]],
  ["the presenter", when("request.auth.presenter", ["app"]), [token({ azp: "app" })], [token({})]],
  ["a nested claim", when("request.auth.claims[realm][roles]", ["admin"]), [token({ realm: { roles: ["admin"] } })], [token({ roles: ["admin"] })]],
  [
    "one scope among several",
    when("request.auth.claims[scope]", ["read"]),
    [token({ scope: "write read" }), token({ scope: ["read"] })],
    [token({ scope: "reader" })],
  ],
  ["scopes by prefix", when("request.auth.claims[scope]", ["orders:*"]), [token({ scope: "a orders:read" })], [token({ scope: "my-orders:read" })]],
  ["source.ip", when("source.ip", ["10.0.0.1"]), [{}], [{ source: "10.0.0.2" }]],
  ["remote.ip", when("remote.ip", ["192.0.2.1"]), [{}], [{ remote: "10.0.0.2" }]],
  ["destination.ip", when("destination.ip", ["10.1.0.0/16"]), [{}], []],
  ["destination.port", when("destination.port", ["80"]), [{}], [{ port: 90 }]],
  ["source.namespace", when("source.namespace", ["shop"]), [{}], [{ identity: "" }]],
  ["source.principal", when("source.principal", ["cluster.local/*"]), [{}], [{ identity: "spiffe://other/ns/shop/sa/client" }]],
  ["source.serviceAccount", when("source.serviceAccount", ["client"]), [{}], [{ identity: "" }]],
  ["source.trustDomain", when("source.trustDomain", ["cluster.*"]), [{}], [{ identity: "spiffe://other/ns/shop/sa/client" }]],
];
for (const [title, rule, matching, others] of attributes) {
  test(`an ALLOW rule matches ${title}`, (t) => {
    for (const request of matching) t.true(allows(rule, request), JSON.stringify(request));
    for (const request of others) t.false(allows(rule, request), JSON.stringify(request));
    t.deepEqual(convert({ targetRefs, rules: [rule] }).problems, []);
  });
}

const unreadable: readonly [string, unknown][] = [
  ["a range that is none", source({ ipBlocks: ["10.0.0.0/99"] })],
  ["a port that is none", operation({ ports: ["http"] })],
  ["an empty value", operation({ paths: [""] })],
  ["a template inside an element", operation({ paths: ["/a{*}"] })],
  ["an unknown field", { form: [] }],
  ["a source that says nothing", source({})],
  ["an unknown attribute", when("request.body", ["x"])],
  ["a claim without a name", when("request.auth.claims", ["x"])],
  ["a condition without values", { when: [{ key: "request.headers[x]" }] }],
  ["a principal of a token without a subject", source({ requestPrincipals: ["issuer"] })],
];
for (const [title, rule] of unreadable) {
  test(`with ${title} an ALLOW rule allows nothing, a DENY rule denies no less, and the author is told`, (t) => {
    t.false(allows(rule as AuthorizationRule, {}));
    t.false(denies(rule, {}).allowed);
    t.true(convert({ targetRefs, rules: [rule as AuthorizationRule] }).problems.length > 0);
  });
}

test("a policy with no rules allows nothing; one with an empty rule matches everything", (t) => {
  t.false(authorizeRequest([convert({ targetRefs }).policy], facts({})).allowed);
  t.true(allows({}, {}));
  t.false(denies({}, {}).allowed);
});

test("AUDIT and dry run only report", (t) => {
  const audit = convert({ targetRefs, action: "AUDIT", rules: [{}] }).policy;
  const dry = convert({ targetRefs, action: "DENY", rules: [{}] }, { annotations: { "istio.io/dry-run": "true" } }).policy;
  const verdict = authorizeRequest([audit, dry], facts({}));
  t.true(verdict.allowed);
  t.deepEqual(
    verdict.observed.map(({ action }) => action),
    ["audit", "deny"],
  );
});

test("what nobody can answer for is denied, and the author is told", (t) => {
  for (const action of ["CUSTOM", "constructor"]) {
    const { policy: converted, unsupported } = convert({ targetRefs, action, rules: [operation({ paths: ["/x"] })] });
    t.false(authorizeRequest([converted], facts({ path: "/x" })).allowed);
    t.true(authorizeRequest([converted], facts({ path: "/y" })).allowed, "it asks about /x only");
    t.regex(unsupported ?? "", new RegExp(`${action} action is not supported`));
  }
});

test("an unknown field beside the rules never widens them", (t) => {
  const misspelt = convert({ targetRefs, actoin: "DENY", rules: [{}] } as never);
  t.false(authorizeRequest([misspelt.policy], facts({})).allowed);
  const ruleless = convert({ targetRefs, action: "DENY", ruels: [{}] } as never);
  t.false(authorizeRequest([ruleless.policy], facts({})).allowed);
  t.regex(ruleless.problems.join(), /spec\.ruels: no such field/);
});

test("objects that the schema would never let in allow nothing and break nothing", (t) => {
  for (const spec of [
    { targetRefs, rules: [{ from: "x", to: [null] }] },
    { targetRefs, rules: 3 },
    { targetRefs, rules: [{ when: [{ key: 3, values: [null] }] }] },
  ]) {
    const { policy: converted, problems } = convert(spec as never);
    t.false(authorizeRequest([converted], facts({})).allowed);
    t.true(problems.length > 0);
  }
  for (const odd of [3, "x", [null], [3], { kind: "Service" }]) t.notThrows(() => convert({ targetRefs: odd, rules: [{}] } as never));
});

test("no rule, whatever its values, makes the conversion throw, and what cannot be read never allows", (t) => {
  const words = fc.array(fc.string({ maxLength: 12 }), { maxLength: 3 });
  const rule = fc.record({
    from: fc.array(fc.record({ source: fc.record({ ipBlocks: words, principals: words, requestPrincipals: words, namespaces: words }) }), { maxLength: 2 }),
    to: fc.array(fc.record({ operation: fc.record({ ports: words, paths: words, hosts: words, notMethods: words }) }), { maxLength: 2 }),
    when: fc.array(fc.record({ key: fc.string({ maxLength: 20 }), values: words, notValues: words }), { maxLength: 2 }),
  });
  fc.assert(
    fc.property(rule, (one) => {
      const { policy: converted, problems } = convert({ targetRefs, action: "ALLOW", rules: [one] });
      t.is(converted.rules.length, problems.length > 0 ? 0 : 1);
    }),
    { numRuns: 200 },
  );
});
