import test from "ava";
import { parseIp } from "./address.ts";
import { authorize } from "./authorize.ts";
import { parseSpiffeId } from "./identity.ts";
import type { AuthorizationPolicy, ConnectionFacts } from "./policy.ts";
import { type RefusedPolicy, standInFor } from "./refused-policy.ts";
import { aMesh, aPolicy, aWorkload } from "./sample-mesh.ts";

const unreadable: RefusedPolicy = { namespace: "default", name: "p", scope: undefined, action: undefined, dryRun: false };
const facts: ConnectionFacts = {
  source: { ip: parseIp("10.0.0.9"), port: 40_000 },
  destination: { ip: parseIp("10.0.0.1"), port: 8080 },
  identity: parseSpiffeId("spiffe://td/ns/clients/sa/web"),
};

function decide(refused: Partial<RefusedPolicy>, namespace: string, others: readonly AuthorizationPolicy[] = []): string {
  const policy = standInFor({ ...unreadable, ...refused }, "istio-system");
  const verdict = authorize(aMesh({ policies: policy === undefined ? others : [...others, policy] }), { ...aWorkload("server", {}), namespace }, facts);
  return verdict.allowed ? "allowed" : verdict.message;
}

const couldNot = (key: string): string => `policy applies but could not be read: ${key}`;
const everyone = aPolicy("everyone", {}, { rules: [{ clauses: [] }] });

for (const [what, refused, namespace, expected] of [
  ["one of which nothing is known denies its namespace", {}, "default", couldNot("default/p")],
  ["one of which nothing is known leaves other namespaces alone", {}, "other", "allowed"],
  ["one of the root namespace denies everybody", { namespace: "istio-system" }, "other", couldNot("istio-system/p")],
  ["one without a namespace denies everybody", { namespace: "" }, "other", couldNot("/p")],
  ["a global one denies everybody", { scope: "global" }, "other", couldNot("default/p")],
  ["a namespaced one of the root namespace denies only there", { scope: "namespace", namespace: "istio-system" }, "other", "allowed"],
  ["an ALLOW allows nobody", { action: "allow" }, "default", "allow policies exist, but none allowed: default/p"],
  ["one with a selector is left to those that name it", { scope: "workload-selector" }, "default", "allowed"],
  ["one that is only a dry run denies nobody", { dryRun: true }, "default", "allowed"],
] as const) {
  test(`an unreadable policy: ${what}`, (t) => {
    t.is(decide(refused, namespace), expected);
  });
}

test("an unreadable ALLOW keeps nobody out whom another one lets in, an unreadable DENY does", (t) => {
  t.is(decide({ action: "allow" }, "default", [everyone]), "allowed");
  t.is(decide({ action: "deny" }, "default", [everyone]), couldNot("default/p"));
});
