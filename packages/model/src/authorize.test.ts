import test from "ava";
import fc from "fast-check";
import { cidrContains, ipFromBytes, parseCidr, parseIp } from "./address.ts";
import { authorize } from "./authorize.ts";
import { parseSpiffeId } from "./identity.ts";
import { type AuthorizationPolicy, type ConnectionFacts, emptyMatch, type PolicyMatch, type StringMatch } from "./policy.ts";
import { aMesh, aPolicy, aWorkload } from "./sample-mesh.ts";
import { policyKey, type Workload } from "./workload.ts";

const server = aWorkload("server", { ips: ["10.0.0.1"] });
const facts: ConnectionFacts = {
  source: { ip: parseIp("10.0.0.9"), port: 40_000 },
  destination: { ip: parseIp("10.0.0.1"), port: 8080 },
  identity: parseSpiffeId("spiffe://td/ns/clients/sa/web"),
};
const plaintext: ConnectionFacts = { ...facts, identity: undefined };
const exact = (value: string): StringMatch => ({ kind: "exact", value });
const presence: StringMatch = { kind: "presence" };

function decide(policies: readonly AuthorizationPolicy[], asked: ConnectionFacts = facts, workload: Workload = server): string {
  const verdict = authorize(aMesh({ policies }), workload, asked);
  const dryRun = verdict.dryRun.map(({ policy, effect }) => ` ${effect}:${policy}`).join("");
  return (verdict.allowed ? `allowed ${verdict.policy ?? "-"}` : verdict.message) + dryRun;
}

const notAllowed = "allow policies exist, but none allowed: default/p";

const matching: readonly [string, Partial<PolicyMatch>][] = [
  ["an exact namespace", { namespaces: [exact("clients")] }],
  ["one of several namespaces", { namespaces: [exact("x"), exact("clients")] }],
  ["a namespace prefix", { namespaces: [{ kind: "prefix", value: "cli" }] }],
  ["a namespace suffix", { namespaces: [{ kind: "suffix", value: "ents" }] }],
  ["any namespace", { namespaces: [presence] }],
  ["not another namespace", { notNamespaces: [exact("x")] }],
  ["a principal, without its scheme", { principals: [exact("td/ns/clients/sa/web")] }],
  ["any principal", { principals: [presence] }],
  ["not another principal", { notPrincipals: [exact("td/ns/clients/sa/db")] }],
  ["a service account of any trust domain", { serviceAccounts: [{ namespace: "clients", serviceAccount: "web" }] }],
  ["not another service account", { notServiceAccounts: [{ namespace: "x", serviceAccount: "web" }] }],
  ["a source range", { sourceIps: [parseCidr("10.0.0.0/28")] }],
  ["not another source range", { notSourceIps: [parseCidr("10.0.0.0/29")] }],
  ["a destination address", { destinationIps: [parseCidr("10.0.0.1")] }],
  ["everything of its family", { sourceIps: [parseCidr("0.0.0.0/0")] }],
  ["a port", { destinationPorts: [80, 8080] }],
  ["not another port", { notDestinationPorts: [80] }],
  ["all kinds together", { destinationPorts: [8080], namespaces: [exact("clients")], sourceIps: [parseCidr("10.0.0.9/32")] }],
];
for (const [name, match] of matching) {
  test(`an ALLOW admits by ${name}, and a DENY of the same refuses`, (t) => {
    t.is(decide([aPolicy("p", match)]), "allowed default/p");
    t.is(decide([aPolicy("p", match, { action: "deny" })]), "explicitly denied by: default/p");
  });
}

const notMatching: readonly [string, Partial<PolicyMatch>][] = [
  ["another namespace", { namespaces: [exact("other")] }],
  ["a namespace in other letters", { namespaces: [exact("Clients")] }],
  ["a principal written with its scheme", { principals: [exact("spiffe://td/ns/clients/sa/web")] }],
  ["the namespace excluded", { notNamespaces: [presence] }],
  ["the principal excluded", { principals: [presence], notPrincipals: [{ kind: "suffix", value: "/sa/web" }] }],
  ["another service account", { serviceAccounts: [{ namespace: "clients", serviceAccount: "db" }] }],
  ["a range of the other family", { sourceIps: [parseCidr("::/0")] }],
  ["the source port taken for the destination's", { destinationPorts: [40_000] }],
  ["all but one kind", { destinationPorts: [8080], namespaces: [exact("other")] }],
  ["nothing at all", {}],
];
for (const [name, match] of notMatching) test(`an ALLOW does not admit by ${name}`, (t) => t.is(decide([aPolicy("p", match)]), notAllowed));

test("a refusal names the policies that did not allow, and not more of them than help", (t) => {
  const nobody = (name: string): AuthorizationPolicy => aPolicy(name, { principals: [exact("nobody")] });
  t.is(decide(["a"].map(nobody)), "allow policies exist, but none allowed: default/a");
  t.regex(decide(["a", "b", "c", "d", "e"].map(nobody)), /^allow policies exist, but none allowed: (default\/[a-e], ){2}default\/[a-e] and 2 more$/);
});

test("without identity no principal, namespace or service account matches, and their absence can be asked for", (t) => {
  t.is(decide([aPolicy("p", { principals: [{ kind: "prefix", value: "" }] })], plaintext), notAllowed);
  t.is(decide([aPolicy("p", { namespaces: [presence] })], plaintext), notAllowed);
  t.is(decide([aPolicy("p", { serviceAccounts: [{ namespace: "", serviceAccount: "" }] })], plaintext), notAllowed);
  t.is(decide([aPolicy("p", { notPrincipals: [presence] })], plaintext), "allowed default/p");
  t.is(decide([aPolicy("p", { notNamespaces: [presence] })], plaintext), "allowed default/p");
});

test("the policy that strict mTLS becomes refuses plaintext only", (t) => {
  const strict = aPolicy(
    "istio_converted_static_strict",
    { notPrincipals: [presence] },
    { action: "deny", scope: "workload-selector", namespace: "istio-system" },
  );
  const selected = { ...server, authorizationPolicies: [policyKey("istio-system", "istio_converted_static_strict")] };
  t.is(decide([strict], facts, selected), "allowed -");
  t.is(decide([strict], plaintext, selected), "explicitly denied by: istio-system/istio_converted_static_strict");
});

test("no rules match nothing; no clauses match everything; no matches hold; a clause of only empty matches does not", (t) => {
  const rules = (value: AuthorizationPolicy["rules"]) => decide([aPolicy("p", {}, { rules: value })]);
  t.is(rules([]), notAllowed);
  t.is(rules([{ clauses: [] }]), "allowed default/p");
  t.is(rules([{ clauses: [{ matches: [] }] }]), "allowed default/p");
  t.is(rules([{ clauses: [{ matches: [emptyMatch] }] }]), notAllowed);
  t.is(rules([{ clauses: [{ matches: [emptyMatch, { ...emptyMatch, destinationPorts: [8080] }] }] }]), "allowed default/p");
  t.is(decide([aPolicy("p", {}, { rules: [], action: "deny" })]), "allowed -");
});

test("rules are alternatives, clauses are conditions, matches are alternatives", (t) => {
  const yes = { ...emptyMatch, destinationPorts: [8080] };
  const no = { ...emptyMatch, destinationPorts: [1] };
  const rules = (value: AuthorizationPolicy["rules"]) => decide([aPolicy("p", {}, { rules: value })]);
  t.is(rules([{ clauses: [{ matches: [no] }] }, { clauses: [{ matches: [yes] }] }]), "allowed default/p");
  t.is(rules([{ clauses: [{ matches: [yes] }, { matches: [no] }] }]), notAllowed);
  t.is(rules([{ clauses: [{ matches: [yes] }, { matches: [no, yes] }] }]), "allowed default/p");
});

test("DENY beats ALLOW across all scopes; without any ALLOW everything else is allowed", (t) => {
  const allow = aPolicy("allow", { destinationPorts: [8080] });
  const deny = aPolicy("deny", { destinationPorts: [8080] }, { action: "deny", scope: "global", namespace: "istio-system" });
  t.is(decide([]), "allowed -");
  t.is(decide([allow, deny]), "explicitly denied by: istio-system/deny");
  t.is(decide([aPolicy("deny", { destinationPorts: [1] }, { action: "deny" })]), "allowed -");
  t.is(decide([aPolicy("a", { destinationPorts: [1] }), aPolicy("b", { destinationPorts: [8080] })]), "allowed default/b");
});

test("policies of other namespaces and policies selected by others do not apply", (t) => {
  const denyAll = { action: "deny", rules: [{ clauses: [] }] } as const;
  t.is(decide([aPolicy("p", {}, { ...denyAll, namespace: "other" }), aPolicy("q", {}, { ...denyAll, scope: "workload-selector" })]), "allowed -");
});

test("a policy that the workload names and nobody knows denies", (t) => {
  const naming = { ...server, authorizationPolicies: [policyKey("default", "late")] };
  t.is(decide([], facts, naming), "policy applies but is not known yet: default/late");
  t.is(decide([aPolicy("open", {}, { rules: [{ clauses: [] }] })], facts, naming), "policy applies but is not known yet: default/late");
  t.is(decide([aPolicy("late", { destinationPorts: [8080] }, { scope: "workload-selector" })], facts, naming), "allowed default/late");
  const verdict = authorize(aMesh({}), naming, facts);
  t.deepEqual([verdict.allowed, verdict.policy, !verdict.allowed && verdict.reason], [false, policyKey("default", "late"), "policy-unknown"]);
});

test("dry-run policies are reported and decide nothing", (t) => {
  const deny = aPolicy("deny", { destinationPorts: [8080] }, { action: "deny", dryRun: true });
  const allow = aPolicy("allow", { destinationPorts: [8080] }, { dryRun: true });
  const missing = aPolicy("missing", { destinationPorts: [1] }, { dryRun: true });
  t.is(decide([deny]), "allowed - would-deny:default/deny");
  t.is(decide([allow]), "allowed - would-allow:default/allow");
  t.is(decide([missing]), "allowed - would-not-allow:default/missing");
  t.is(decide([missing, allow]), "allowed - would-allow:default/allow");
  t.is(decide([missing, aPolicy("open", { destinationPorts: [8080] })]), "allowed default/open");
  t.is(decide([deny, aPolicy("closed", { destinationPorts: [8080] }, { action: "deny" })]), "explicitly denied by: default/closed would-deny:default/deny");
});

test("ranges contain the same addresses here as in the address module", (t) => {
  const address = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })).map(ipFromBytes);
  fc.assert(
    fc.property(address, address, fc.nat(128), fc.boolean(), (base, other, bits, same) => {
      const range = { ip: base, length: base.includes(":") ? bits : bits % 33 };
      const source = { ip: same ? base : other, port: 1 };
      const expected = cidrContains(range, source.ip) ? "allowed default/p" : notAllowed;
      t.is(decide([aPolicy("p", { sourceIps: [range] })], { ...facts, source }), expected);
    }),
  );
});

test("ten thousand policies that do not match are passed over in milliseconds", (t) => {
  const policies = Array.from({ length: 10_000 }, (_, index) =>
    aPolicy(
      `p${index}`,
      { principals: [exact(`td/ns/clients/sa/other-${index}`)], sourceIps: [parseCidr("10.0.0.0/8")] },
      { action: index % 2 === 0 ? "deny" : "allow" },
    ),
  );
  const snapshot = aMesh({ policies });
  const rounds = Array.from({ length: 30 }, () => {
    const started = performance.now();
    t.false(authorize(snapshot, server, facts).allowed);
    return performance.now() - started;
  });
  // The quickest round: the others measure the neighbours on this machine.
  const quickest = Math.min(...rounds);
  t.log(`${quickest.toFixed(2)} ms`);
  t.true(quickest < 20, `${quickest} ms`);
});
