import type { AuthorizationPolicyObject, AuthorizationRule } from "@fairway/kube";
import { type PolicyMatch, parseCidr } from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { policy, testSettings } from "./fixtures.ts";
import { convertPolicy } from "./policies.ts";

const convert = (spec: AuthorizationPolicyObject["spec"], metadata: Parameters<typeof policy>[2] = {}) =>
  convertPolicy(policy("p", spec, metadata), testSettings);

/** Clauses of each rule, each match without its empty fields. */
function rules(spec: AuthorizationPolicyObject["spec"]): unknown {
  const filled = (match: PolicyMatch): unknown => Object.fromEntries(Object.entries(match).filter(([, values]) => (values as readonly unknown[]).length > 0));
  return convert(spec).policy?.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(filled)));
}
const one = (rule: AuthorizationRule): unknown => rules({ action: "ALLOW", rules: [rule] });
const exact = (value: string) => ({ kind: "exact", value });

test("scopes: a namespace, the whole mesh from the root namespace, and selected workloads", (t) => {
  t.is(convert({}).policy?.scope, "namespace");
  t.is(convert({}, { namespace: "fairway-system" }).policy?.scope, "global");
  t.is(convert({ selector: { matchLabels: { app: "a" } } }, { namespace: "fairway-system" }).policy?.scope, "workload-selector");
  t.is(convert({ selector: { matchLabels: {} } }).policy?.scope, "namespace");
});

test("no rules allow nothing; an empty rule matches everything", (t) => {
  t.deepEqual(rules({}), []);
  t.deepEqual(rules({ action: "ALLOW", rules: [] }), []);
  t.deepEqual(rules({ action: "DENY", rules: [{}] }), [[]]);
  t.deepEqual(rules({ action: "ALLOW", rules: [{}] }), [[]]);
  t.is(convert(undefined).policy?.action, "allow");
});

test("to is one clause, from is one, each when is its own", (t) => {
  t.deepEqual(
    one({
      to: [{ operation: { ports: ["80", "443"] } }, { operation: { notPorts: ["22"] } }],
      from: [{ source: { namespaces: ["a"], notNamespaces: ["b"] } }, { source: { principals: ["cluster.local/ns/a/sa/b"] } }],
      when: [
        { key: "source.ip", values: ["10.0.0.0/8"], notValues: ["10.1.0.0/16"] },
        { key: "destination.port", notValues: ["9090"] },
      ],
    }),
    [
      [
        [{ destinationPorts: [80, 443] }, { notDestinationPorts: [22] }],
        [{ namespaces: [exact("a")], notNamespaces: [exact("b")] }, { principals: [exact("cluster.local/ns/a/sa/b")] }],
        [{ sourceIps: [parseCidr("10.0.0.0/8")], notSourceIps: [parseCidr("10.1.0.0/16")] }],
        [{ notDestinationPorts: [9090] }],
      ],
    ],
  );
});

test("wildcards: any, prefix, suffix", (t) => {
  t.deepEqual(one({ from: [{ source: { principals: ["*", "cluster.local/*", "*/sa/b"] } }] }), [
    [[{ principals: [{ kind: "presence" }, { kind: "prefix", value: "cluster.local/" }, { kind: "suffix", value: "/sa/b" }] }]],
  ]);
});

test("service accounts are of the policy's namespace unless they name one", (t) => {
  t.deepEqual(one({ from: [{ source: { serviceAccounts: ["web", "other/api"], notServiceAccounts: ["bad"] } }] }), [
    [
      [
        {
          serviceAccounts: [
            { namespace: "shop", serviceAccount: "web" },
            { namespace: "other", serviceAccount: "api" },
          ],
          notServiceAccounts: [{ namespace: "shop", serviceAccount: "bad" }],
        },
      ],
    ],
  ]);
});

test("IPv6 ranges and bare addresses are ranges", (t) => {
  t.deepEqual(one({ from: [{ source: { ipBlocks: ["fd00::/8", "2001:db8::1", "10.0.0.1"] } }] }), [
    [[{ sourceIps: [parseCidr("fd00::/8"), parseCidr("2001:db8::1/128"), parseCidr("10.0.0.1/32")] }]],
  ]);
});

const http: readonly [string, AuthorizationRule][] = [
  ["paths", { to: [{ operation: { paths: ["/x"] } }] }],
  ["notHosts", { to: [{ operation: { notHosts: ["x"] } }] }],
  ["requestPrincipals", { from: [{ source: { requestPrincipals: ["*"] } }] }],
  ["remoteIpBlocks", { from: [{ source: { remoteIpBlocks: ["10.0.0.0/8"] } }] }],
  ["trustDomains", { from: [{ source: { trustDomains: ["td"], namespaces: ["a"] } }] }],
  ["notTrustDomains", { from: [{ source: { notTrustDomains: ["td"] } }] }],
  ["request.headers[x]", { when: [{ key: "request.headers[x]", values: ["a"] }] }],
  ["source.trustDomain", { when: [{ key: "source.trustDomain", values: ["a"] }] }],
];
for (const [attribute, rule] of http) {
  test(`an ALLOW rule with ${attribute} is left out, the others stay, and the author is told`, (t) => {
    const { policy: converted, condition } = convert({ action: "ALLOW", rules: [rule, { from: [{ source: { namespaces: ["a"] } }] }] });
    t.is(converted?.rules.length, 1);
    t.like(condition, { type: "ZtunnelAccepted", status: "True", reason: "UnsupportedValue" });
    t.true(condition.message.includes(attribute));
  });
}

test("an ALLOW policy of HTTP rules only allows nothing", (t) => {
  t.deepEqual(rules({ action: "ALLOW", rules: [{ to: [{ operation: { methods: ["GET"] } }] }] }), []);
});

test("a DENY rule loses only what L4 cannot check", (t) => {
  t.deepEqual(rules({ action: "DENY", rules: [{ to: [{ operation: { paths: ["/x"], ports: ["80"] } }] }] }), [[[{ destinationPorts: [80] }]]]);
  t.deepEqual(rules({ action: "DENY", rules: [{ to: [{ operation: { paths: ["/x"] } }] }] }), [[[{}]]], "an empty match never holds: no effect");
  t.deepEqual(rules({ action: "DENY", rules: [{ from: [{ source: { namespaces: ["a"] } }], when: [{ key: "request.headers[x]", values: ["y"] }] }] }), [
    [[{ namespaces: [exact("a")] }], [{}]],
  ]);
  t.regex(convert({ action: "DENY", rules: [{ to: [{ operation: { paths: ["/x"] } }] }] }).condition.message, /has no effect/);
  t.regex(convert({ action: "DENY", rules: [{ to: [{ operation: { paths: ["/x"], ports: ["80"] } }] }] }).condition.message, /more restrictive/);
});

test("a value that cannot be read rejects the policy in words; ALLOW loses the rule, DENY stays strict", (t) => {
  const bad = { from: [{ source: { ipBlocks: ["10.0.0.0/99"] } }] };
  const allow = convert({ action: "ALLOW", rules: [bad, { from: [{ source: { namespaces: ["a"] } }] }] });
  t.is(allow.policy?.rules.length, 1);
  t.like(allow.condition, { status: "False", reason: "Invalid" });
  t.regex(allow.condition.message, /10\.0\.0\.0\/99/);
  t.deepEqual(
    rules({ action: "DENY", rules: [{ ...bad, to: [{ operation: { ports: ["80"] } }] }] }),
    [[[{ destinationPorts: [80] }]]],
    "the port is still denied, to everybody",
  );
  t.deepEqual(rules({ action: "DENY", rules: [{ to: [{ operation: { ports: ["80", "http"] } }] }] }), [[[{ destinationPorts: [80] }]]]);
  t.regex(convert({ action: "ALLOW", rules: [{ to: [{ operation: { ports: ["123456"] } }] }] }).condition.message, /123456/);
});

test("a DENY rule with both a value that cannot be read and an HTTP attribute still denies", (t) => {
  const both = { from: [{ source: { ipBlocks: ["nonsense"] } }], to: [{ operation: { paths: ["/x"], ports: ["80"] } }] };
  t.deepEqual(rules({ action: "DENY", rules: [both] }), [[[{ destinationPorts: [80] }]]]);
});

test("values that would mean more than they say are refused", (t) => {
  for (const source of [{ namespaces: [""] }, { principals: [""] }, { serviceAccounts: ["a/b/c"] }, { serviceAccounts: ["*"] }, { serviceAccounts: ["/a"] }]) {
    t.deepEqual(one({ from: [{ source }] }), []);
  }
});

test("actions that ztunnel does not have are said and not sent", (t) => {
  for (const action of ["AUDIT", "CUSTOM", "constructor"]) {
    const { policy: converted, condition } = convert({ action, rules: [{}] });
    t.is(converted, undefined);
    t.like(condition, { status: "False", reason: "UnsupportedValue", message: `ztunnel does not support the ${action} action` });
  }
});

test("a dry run is sent as such, or not at all", (t) => {
  const object = policy("p", { rules: [{}] }, { annotations: { "istio.io/dry-run": "true" } });
  t.true(convertPolicy(object, testSettings).policy?.dryRun);
  const off = convertPolicy(object, { ...testSettings, dryRunPolicies: false });
  t.is(off.policy, undefined);
  t.is(off.condition.status, "False");
});

test("objects that the schema would never let in allow nothing and break nothing", (t) => {
  const odd = policy("p", { rules: [{ from: "nonsense", to: [null] }] } as never);
  const { policy: converted, condition } = convertPolicy(odd, testSettings);
  t.deepEqual(converted?.rules, []);
  t.is(condition.status, "False");
});

const fromShop = { from: [{ source: { namespaces: ["shop"] } }] };
/** An unknown field inside a rule, where it is said to be, and what a DENY rule still denies. */
const misspelt: readonly [string, object, RegExp, unknown][] = [
  ["of a rule", { form: fromShop.from }, /spec\.rules\[0\]\.form: no such field/, [[]]],
  ["of a rule beside others", { form: fromShop.from, to: [{ operation: { ports: ["80"] } }] }, /rules\[0\]\.form/, [[[{ destinationPorts: [80] }]]]],
  ["of an entry of from", { from: [{ sorce: { namespaces: ["a"] } }] }, /rules\[0\]\.from\[0\]\.sorce/, [[]]],
  ["of a source", { from: [{ source: { namespace: ["a"] } }] }, /from\[0\]\.source\.namespace:/, [[]]],
  ["of a source beside others", { from: [{ source: { namespaces: ["a"], prinzipals: ["x"] } }] }, /source\.prinzipals/, [[[{ namespaces: [exact("a")] }]]]],
  ["of an entry of to", { to: [{ operatoin: { ports: ["80"] } }] }, /to\[0\]\.operatoin/, [[]]],
  ["of an operation", { to: [{ operation: { port: ["80"] } }] }, /to\[0\]\.operation\.port:/, [[]]],
  ["of a condition", { when: [{ key: "source.ip", vales: ["10.0.0.0/8"] }] }, /when\[0\]\.vales/, [[]]],
  ["that is a condition's key", { when: [{ kye: "source.ip", values: ["10.0.0.0/8"] }] }, /when\[0\]\.kye/, [[]]],
  ["that is an attribute", { when: [{ key: "source.ips", values: ["10.0.0.0/8"] }] }, /source\.ips/, [[]]],
  ["named as every object's own", { constructor: 1 }, /rules\[0\]\.constructor/, [[]]],
];
for (const [where, rule, told, denied] of misspelt) {
  test(`an unknown field ${where}: an ALLOW rule is left out, a DENY rule denies no less, and the author is told where`, (t) => {
    const allow = convert({ action: "ALLOW", rules: [rule, fromShop] });
    t.deepEqual(allow.policy?.rules.length, 1, "the other rule stays");
    t.deepEqual(rules({ action: "ALLOW", rules: [rule] }), []);
    t.deepEqual(rules({ action: "DENY", rules: [rule] }), denied);
    for (const action of ["ALLOW", "DENY"]) {
      const { condition } = convert({ action, rules: [rule] });
      t.like(condition, { type: "ZtunnelAccepted", status: "False", reason: "Invalid" });
      t.regex(condition.message, told);
    }
  });
}

/** Unknown fields beside the rules: what is enforced, and what the author reads. */
const selector = { matchLabels: { app: "server" } };
const beside: readonly [string, object, readonly unknown[], RegExp][] = [
  [
    "a selected ALLOW applies as it reads",
    { action: "ALLOW", selector, selektor: {}, rules: [{}] },
    [[]],
    /spec\.selektor: no such field; the policy applies without/,
  ],
  ["an ALLOW whose selector may be misspelt allows nothing", { action: "ALLOW", selektor: selector, rules: [{}] }, [], /spec\.selektor.*allows nothing/],
  [
    "a selector with an unknown field selects too much to allow",
    { action: "ALLOW", selector: { ...selector, matchExpressions: [] }, rules: [{}] },
    [],
    /spec\.selector\.matchExpressions.*allows nothing/,
  ],
  ["a selector without labels that are known", { action: "ALLOW", selector: { matchLable: { app: "x" } }, rules: [{}] }, [], /spec\.selector\.matchLable/],
  ["an action that may be misspelt is not ALLOW", { actoin: "DENY", selector, rules: [{}] }, [], /spec\.actoin.*allows nothing/],
  ["targets that may be misspelt", { action: "ALLOW", targetRfs: [], rules: [{}] }, [], /spec\.targetRfs/],
  [
    "a DENY denies wherever it may apply",
    { action: "DENY", selektor: selector, rules: [{}] },
    [[]],
    /spec\.selektor: no such field; the policy applies without/,
  ],
  ["a DENY whose rules may be misspelt denies everything", { action: "DENY", selector, ruels: [{}] }, [[]], /spec\.ruels.*denies everything/],
  ["an ALLOW whose rules may be misspelt allows nothing", { action: "ALLOW", selector, ruels: [{}] }, [], /spec\.ruels/],
];
for (const [title, spec, enforced, told] of beside) {
  test(`unknown fields of a policy: ${title}`, (t) => {
    t.deepEqual(rules(spec), enforced);
    const { condition } = convert(spec);
    t.like(condition, { type: "ZtunnelAccepted", status: "False", reason: "Invalid" });
    t.regex(condition.message, told);
  });
}

test("both kinds of unknown fields are told at once, and a thousand of them in few words", (t) => {
  const both = convert({ action: "ALLOW", selector, selektor: {}, rules: [{ form: [] }] } as never);
  t.regex(both.condition.message, /spec\.selektor.*spec\.rules\[0\]\.form/);
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`${"x".repeat(500)}${index}`, 1]));
  const { message } = convert({ action: "ALLOW", selector, ...many } as never).condition;
  t.true(message.length < 3_000);
  t.regex(message, /and 990 more/);
});

test("every field that is known is no unknown field", (t) => {
  const all = ["principals", "namespaces", "serviceAccounts", "ipBlocks", "requestPrincipals", "remoteIpBlocks", "trustDomains"];
  const fields = (names: readonly string[]) =>
    Object.fromEntries(names.flatMap((name) => [name, `not${name.charAt(0).toUpperCase()}${name.slice(1)}`]).map((name) => [name, []]));
  const keys = [
    "request.headers[x]",
    "request.auth.claims[iss]",
    "remote.ip",
    "connection.sni",
    "source.serviceAccount",
    "source.trustDomain",
    "experimental.envoy.x",
  ];
  const rule = {
    from: [{ source: fields(all) }],
    to: [{ operation: fields(["hosts", "ports", "methods", "paths"]) }],
    when: keys.map((key) => ({ key, values: ["a"], notValues: ["b"] })),
  };
  const { condition } = convert({ selector, action: "DENY", provider: { name: "x" }, rules: [rule], targetRefs: [] });
  t.like(condition, { status: "True", reason: "UnsupportedValue" });
});

test("no rule, whatever its values, makes the conversion throw", (t) => {
  const words = fc.array(fc.string({ maxLength: 12 }), { maxLength: 3 });
  const rule = fc.record({
    from: fc.array(fc.record({ source: fc.record({ ipBlocks: words, principals: words, serviceAccounts: words, trustDomains: words }) }), { maxLength: 2 }),
    to: fc.array(fc.record({ operation: fc.record({ ports: words, paths: words }) }), { maxLength: 2 }),
    when: fc.array(fc.record({ key: fc.string({ maxLength: 20 }), values: words, notValues: words }), { maxLength: 2 }),
  });
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 3 }), fc.constantFrom("ALLOW", "DENY"), (list, action) => {
      const { policy: converted } = convert({ action, rules: list });
      t.true((converted?.rules.length ?? 0) <= list.length);
    }),
    { numRuns: 200 },
  );
});
