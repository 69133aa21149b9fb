import test from "ava";
import { parseCidr } from "./address.ts";
import { authorizeRequest, policyForTcp } from "./authorize-request.ts";
import type { RequestCondition, RequestPolicy } from "./request-policy.ts";
import { aHead, someFacts } from "./sample-request.ts";

const any: RequestCondition = { kind: "any" };
const path = (value: string, kind: "exact" | "prefix" = "exact"): RequestCondition => ({ kind: "path", match: { kind, value } });
const header = (name: string, value: string): RequestCondition => ({ kind: "header", name, match: { kind: "exact", value } });
const not = (of: RequestCondition): RequestCondition => ({ kind: "not", of });
const policy = (action: RequestPolicy["action"], ...rules: RequestCondition[]): RequestPolicy => ({
  namespace: "shop",
  name: action,
  action,
  dryRun: false,
  rules,
});
const passes = (policies: readonly RequestPolicy[], target: string, fields: Parameters<typeof aHead>[1] = {}): boolean =>
  authorizeRequest(policies, someFacts(aHead(target, fields))).allowed;

test("without ALLOW policies all pass, with some one must match, and DENY goes before them", (t) => {
  t.true(passes([], "/"));
  t.true(passes([policy("allow", path("/a"))], "/a"));
  t.false(passes([policy("allow", path("/a"))], "/b"));
  t.false(passes([policy("allow")], "/a"));
  t.false(passes([policy("allow", any), policy("deny", path("/a"))], "/a"));
});

test("the verdict names the policy and its rule", (t) => {
  const verdict = authorizeRequest([policy("deny", path("/x"), path("/a"))], someFacts(aHead("/a?q")));
  t.deepEqual(verdict, { allowed: false, policy: { key: "shop/deny", rule: 1 }, reason: "denied-by-policy", observed: [] });
  t.is(authorizeRequest([policy("allow", path("/x"))], someFacts(aHead("/a"))).reason, "no-allow-matched");
});

test("policies in dry run and audit policies only say what they would have done", (t) => {
  const verdict = authorizeRequest([{ ...policy("deny", any), dryRun: true }, policy("audit", any)], someFacts(aHead("/")));
  t.true(verdict.allowed);
  t.deepEqual(verdict.observed, [
    { key: "shop/deny", action: "deny" },
    { key: "shop/audit", action: "audit" },
  ]);
});

test("a path that an application may read otherwise is denied in any reading, and allowed only in all", (t) => {
  const deny = [policy("deny", path("/admin", "prefix"))];
  for (const target of ["/admin", "//admin", "/%2fadmin", "/x/..%2fadmin", "/;a/admin", "/admin;x=1"]) t.false(passes(deny, target), target);
  const allow = [policy("allow", path("/public", "prefix"))];
  t.true(passes(allow, "/public/a%20b"));
  t.true(passes(allow, "/public/a%2Fb"));
  t.false(passes(allow, "/public/..%2fadmin"));
  t.false(passes([policy("deny", not(path("/public", "prefix")))], "/public/..%2fadmin"));
  t.false(passes([policy("allow", not(path("/admin", "prefix")))], "//admin"));
});

test("repeated header fields cannot smuggle a value past a policy", (t) => {
  const twice = { headers: { "x-role": ["guest", "admin"] } };
  t.false(passes([policy("deny", header("x-role", "admin"))], "/", twice));
  t.false(passes([policy("allow", header("x-role", "admin"))], "/", twice));
  t.false(passes([policy("allow", not(header("x-role", "guest")))], "/", twice));
  t.true(passes([policy("allow", header("x-role", "admin"))], "/", { headers: { "x-role": "admin" } }));
});

test("a denied host is denied whatever port the client writes behind it", (t) => {
  const host: RequestCondition = { kind: "header", name: ":authority", match: { kind: "exact", value: "ADMIN.shop", ignoreCase: true } };
  t.false(passes([policy("deny", host)], "/", { authority: "admin.shop:8080" }));
  t.false(passes([policy("allow", host)], "/", { authority: "admin.shop:8080" }));
  t.true(passes([policy("allow", host)], "/", { authority: "admin.shop" }));
});

test("who proved nothing matches no principal", (t) => {
  const web: RequestCondition = { kind: "principal", match: { kind: "suffix", value: "/sa/web" } };
  const anonymous = someFacts(aHead("/"), { identity: undefined });
  t.true(authorizeRequest([policy("allow", web)], someFacts(aHead("/"))).allowed);
  t.false(authorizeRequest([policy("allow", web)], anonymous).allowed);
  t.false(authorizeRequest([policy("deny", not(web))], anonymous).allowed);
});

test("addresses and ports are compared as ranges", (t) => {
  const inside: RequestCondition = { kind: "source-ip", range: parseCidr("10.0.0.0/24") };
  t.true(passes([policy("allow", { kind: "all", of: [inside, { kind: "destination-port", from: 8080, to: 8080 }] })], "/"));
  t.false(passes([policy("allow", { kind: "all", of: [inside, { kind: "destination-port", from: 1, to: 80 }] })], "/"));
  t.false(passes([policy("allow", { kind: "remote-ip", range: parseCidr("192.168.0.0/16") })], "/"));
});

test("claims are found by path, in lists, and never in prototypes", (t) => {
  const claim = (keys: string[], value?: string): RequestCondition => ({
    kind: "claim",
    path: keys,
    match: value === undefined ? { kind: "present" } : { kind: "exact", value },
  });
  const facts = someFacts(aHead("/"), { claims: { iss: "me", groups: ["a", "b"], nested: { deep: "x" }, level: 3 } });
  const allowed = (condition: RequestCondition): boolean => authorizeRequest([policy("allow", condition)], facts).allowed;
  t.deepEqual([claim(["groups"], "b"), claim(["nested", "deep"], "x"), claim(["level"], "3"), claim(["iss"])].map(allowed), [true, true, true, true]);
  t.deepEqual([claim(["groups"], "c"), claim(["nested"], "x"), claim(["constructor"]), claim(["__proto__"]), claim(["iss", "length"])].map(allowed), [
    false,
    false,
    false,
    false,
    false,
  ]);
});

test("for other bytes than HTTP an ALLOW rule on HTTP is dropped and a DENY rule gets wider", (t) => {
  const port: RequestCondition = { kind: "destination-port", from: 8080, to: 8080 };
  const both: RequestCondition = { kind: "all", of: [path("/a"), port] };
  const verdict = (condition: RequestCondition, action: "allow" | "deny"): boolean =>
    authorizeRequest([policyForTcp(policy(action, condition))], someFacts(aHead("/"))).allowed;
  t.false(verdict(both, "allow"));
  t.false(verdict(both, "deny"));
  t.false(verdict(not(path("/a")), "deny"));
  t.true(verdict(port, "allow"));
  t.true(verdict({ kind: "all", of: [path("/a"), { kind: "destination-port", from: 1, to: 1 }] }, "deny"));
});
