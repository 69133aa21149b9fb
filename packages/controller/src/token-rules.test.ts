import type { RequestAuthentication } from "@fairway/kube";
import test from "ava";
import { convertRequestAuthentication } from "./token-rules.ts";

const convert = (...jwtRules: readonly unknown[]) => {
  const spec = { targetRefs: [{ kind: "Service", name: "web" }], jwtRules } as NonNullable<RequestAuthentication["spec"]>;
  return convertRequestAuthentication({ metadata: { name: "jwt", namespace: "shop" }, spec }, "fairway-system");
};
const noKeys = { kind: "inline", jwks: '{"keys":[]}' };

test("a rule says whose tokens count, where they are, and where the keys are", (t) => {
  const { rules, problems, targets } = convert({
    issuer: "https://issuer",
    audiences: ["shop"],
    jwksUri: "https://issuer/keys",
    fromHeaders: [{ name: "X-Token", prefix: "Token " }],
    fromParams: ["token"],
    fromCookies: ["session"],
    forwardOriginalToken: true,
    outputPayloadToHeader: "X-Payload",
    outputClaimToHeaders: [{ header: "X-Sub", claim: "sub" }],
    timeout: "2s",
  });
  t.deepEqual(problems, []);
  t.deepEqual(targets, ["Service/shop/web"]);
  t.deepEqual(rules, [
    {
      origin: "shop/jwt",
      issuer: "https://issuer",
      audiences: ["shop"],
      keys: { kind: "remote", uri: "https://issuer/keys", timeoutMs: 2_000 },
      fromHeaders: [{ name: "x-token", prefix: "Token " }],
      fromParams: ["token"],
      fromCookies: ["session"],
      forwardOriginalToken: true,
      outputPayloadToHeader: "x-payload",
      outputClaimToHeaders: [{ header: "x-sub", claim: "sub" }],
    },
  ]);
});

test("inline keys are taken as they are; without any the issuer is asked where its keys are", (t) => {
  const jwks = '{"keys":[{"kty":"oct"}]}';
  t.deepEqual(convert({ issuer: "a", jwks }).rules[0]?.keys, { kind: "inline", jwks });
  t.deepEqual(convert({ issuer: "https://issuer/" }).rules[0]?.keys, {
    kind: "remote",
    uri: "https://issuer/.well-known/openid-configuration",
    timeoutMs: 5_000,
  });
});

const bad: readonly [string, object, RegExp][] = [
  ["keys that are no JSON", { issuer: "a", jwks: "{" }, /jwks: is not a JSON Web Key Set/],
  ["a key set without keys", { issuer: "a", jwks: "{}" }, /jwks/],
  ["a file for its keys", { issuer: "a", jwksUri: "file:///etc/passwd" }, /jwksUri: is not an http/],
  ["an issuer that cannot be asked", { issuer: "somebody" }, /the issuer must be an http or https URL/],
  ["a field that nobody knows", { issuer: "https://a", audience: ["x"] }, /spec\.jwtRules\[0\]\.audience: no such field/],
  ["a field that is not honoured", { issuer: "https://a", spaceDelimitedClaims: ["x"] }, /spaceDelimitedClaims: no such field/],
  ["a timeout that is none", { issuer: "https://a", timeout: "soon" }, /timeout/],
];
for (const [title, rule, told] of bad) {
  test(`a rule with ${title} accepts no token of its issuer, and says why`, (t) => {
    const { rules, problems } = convert(rule);
    t.deepEqual(rules[0]?.keys, noKeys);
    t.regex(problems.join(), told);
  });
}

test("a rule that cannot be read harms no other", (t) => {
  const { rules, problems } = convert(null, { issuer: "" }, { issuer: "https://a", fromHeaders: "x" }, { issuer: "https://b" });
  t.deepEqual(
    rules.map(({ issuer }) => issuer),
    ["https://b"],
  );
  t.true(problems.length >= 3);
  t.deepEqual(convertRequestAuthentication({ metadata: { name: "jwt", namespace: "shop" }, spec: 3 as never }, "x").rules, []);
});
