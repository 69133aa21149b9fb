import { HeaderFields, type RequestHead, type TokenRule } from "@fairway/model";
import { ManualClock, MeshError, silentLogger } from "@fairway/runtime";
import test from "ava";
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from "jose";
import { TokenKeys } from "./token-keys.ts";
import { createTokenVerifier } from "./token-verifier.ts";

const now = 1_700_000_000_000;
const one = await generateKeyPair("ES256");
const other = await generateKeyPair("RS256");
const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(one.publicKey)), kid: "one", alg: "ES256", use: "sig" }] });
const { signal } = new AbortController();

function rule(over: Partial<TokenRule> = {}): TokenRule {
  return {
    origin: "default/jwt",
    issuer: "https://issuer.example",
    audiences: [],
    keys: { kind: "inline", jwks },
    fromHeaders: [],
    fromParams: [],
    fromCookies: [],
    forwardOriginalToken: false,
    outputPayloadToHeader: undefined,
    outputClaimToHeaders: [],
    ...over,
  };
}

interface Signed {
  readonly claims?: Record<string, unknown>;
  readonly expiresInS?: number;
  readonly issuer?: string;
  readonly audience?: string;
  readonly key?: CryptoKey;
  readonly kid?: string;
  readonly algorithm?: string;
}

function sign({
  claims = {},
  expiresInS = 600,
  issuer = "https://issuer.example",
  audience,
  key = one.privateKey,
  kid = "one",
  algorithm = "ES256",
}: Signed = {}): Promise<string> {
  const jwt = new SignJWT({ sub: "user", ...claims })
    .setProtectedHeader({ alg: algorithm, ...(kid === "" ? {} : { kid }) })
    .setIssuer(issuer)
    .setExpirationTime(now / 1_000 + expiresInS);
  return (audience === undefined ? jwt : jwt.setAudience(audience)).sign(key);
}

function head(headers: Record<string, string> = {}, path = "/"): RequestHead {
  return { method: "GET", scheme: "http", authority: "api", path, headers: HeaderFields.of(headers) };
}

function verifier(fetchText: ConstructorParameters<typeof TokenKeys>[0]["fetchText"] = async () => jwks, clock = new ManualClock(now)) {
  return createTokenVerifier({ keys: new TokenKeys({ fetchText, clock, log: silentLogger }), clock });
}

async function refusal(rules: readonly TokenRule[], request: RequestHead, check = verifier()): Promise<Record<string, unknown>> {
  try {
    await check.verify(rules, request, { signal });
  } catch (thrown) {
    if (thrown instanceof MeshError) return thrown.details;
    throw thrown;
  }
  return { passed: true };
}

test("a valid token proves its claims and does not reach the application unless the rule says so", async (t) => {
  const token = await sign({ claims: { role: "admin" } });
  const { claims, head: forwarded } = await verifier().verify([rule()], head({ authorization: `Bearer ${token}` }), { signal });
  t.like(claims, { iss: "https://issuer.example", sub: "user", role: "admin" });
  t.false(forwarded.headers.has("authorization"));
  const kept = await verifier().verify([rule({ forwardOriginalToken: true })], head({ authorization: `bearer ${token}` }), { signal });
  t.is(kept.head.headers.get("authorization"), `bearer ${token}`);
});

test("no token is no fault, and proves nothing", async (t) => {
  t.is((await verifier().verify([rule()], head({ authorization: "Basic abc" }), { signal })).claims, undefined);
});

test("each fault is told in the reference's words", async (t) => {
  const bearer = async (signed: Signed): Promise<RequestHead> => head({ authorization: `Bearer ${await sign(signed)}` }, "/p?q");
  const words: [RequestHead, string, number][] = [
    [await bearer({ expiresInS: -61 }), "Jwt is expired", 401],
    [await bearer({ claims: { nbf: now / 1_000 + 61 } }), "Jwt not yet valid", 401],
    [await bearer({ issuer: "https://evil.example" }), "Jwt issuer is not configured", 401],
    [await bearer({ key: (await generateKeyPair("ES256")).privateKey }), "Jwt verification fails", 401],
    [await bearer({ kid: "two" }), "Jwks doesn't have key to match kid or alg from Jwt", 401],
    [head({ authorization: "Bearer rubbish" }), "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", 401],
  ];
  for (const [request, body, status] of words) t.like(await refusal([rule()], request), { body, status });
  t.like(await refusal([rule({ audiences: ["api"] })], await bearer({ audience: "web" })), { body: "Audiences in Jwt are not allowed", status: 403 });
  t.like(await refusal([rule()], await bearer({ expiresInS: -61 })), {
    challenge: 'Bearer realm="http://api/p", error="invalid_token"',
    detail: "jwt_authn_access_denied{Jwt_is_expired}",
  });
  t.like(await refusal([rule()], await bearer({ expiresInS: -59 })), { passed: true });
});

test("a shared secret or no signature at all proves nothing", async (t) => {
  const secret = Buffer.alloc(32, 1);
  const symmetric = rule({ keys: { kind: "inline", jwks: JSON.stringify({ keys: [{ kty: "oct", k: secret.toString("base64url"), kid: "one" }] }) } });
  const hmac = await new SignJWT({}).setProtectedHeader({ alg: "HS256", kid: "one" }).setIssuer("https://issuer.example").sign(secret);
  t.like(await refusal([symmetric], head({ authorization: `Bearer ${hmac}` })), { status: 401 });
  const none = new UnsecuredJWT({}).setIssuer("https://issuer.example").encode();
  t.like(await refusal([rule()], head({ authorization: `Bearer ${none}` })), { status: 401 });
});

test("of several issuers each one's token passes; one bad token among good ones does not", async (t) => {
  const otherJwks = JSON.stringify({ keys: [{ ...(await exportJWK(other.publicKey)), alg: "RS256" }] });
  const rules = [rule(), rule({ issuer: "other", keys: { kind: "inline", jwks: otherJwks }, fromHeaders: [{ name: "x-token", prefix: "" }] })];
  const theirs = await sign({ issuer: "other", key: other.privateKey, algorithm: "RS256", kid: "" });
  t.like(await refusal(rules, head({ "x-token": theirs })), { passed: true });
  t.like(await refusal(rules, head({ authorization: `Bearer ${await sign()}` })), { passed: true });
  t.like(await refusal(rules, head({ authorization: `Bearer ${await sign()}`, "x-token": `${theirs}x` })), { status: 401 });
});

test("tokens are found in headers, parameters and cookies, and leave the query", async (t) => {
  const token = await sign();
  const places = rule({ fromHeaders: [{ name: "X-Auth", prefix: "jwt:" }], fromParams: ["t"], fromCookies: ["session"] });
  for (const request of [head({ "x-auth": `jwt:${token}` }), head({ cookie: `a=1; session=${token}` })])
    t.truthy((await verifier().verify([places], request, { signal })).claims);
  const { head: left } = await verifier().verify([places], head({}, `/p?a=1&t=${token}&b=%20`), { signal });
  t.is(left.path, "/p?a=1&b=%20");
  const { claims } = await verifier().verify([places], head({ authorization: `Bearer ${token}` }), { signal });
  t.is(claims, undefined, "own places replace the default ones");
});

test("what a rule writes for the application nobody else can write", async (t) => {
  const writing = rule({
    outputPayloadToHeader: "X-Payload",
    outputClaimToHeaders: [
      { header: "x-role", claim: "realm.role" },
      { header: "x-nl", claim: "evil" },
    ],
  });
  const token = await sign({ claims: { realm: { role: "admin" }, evil: "a\r\nb: c" } });
  const { head: written } = await verifier().verify([writing], head({ authorization: `Bearer ${token}`, "x-role": "forged", "x-nl": "forged" }), { signal });
  t.is(written.headers.get("x-role"), "admin");
  t.false(written.headers.has("x-nl"));
  t.like(JSON.parse(Buffer.from(written.headers.get("x-payload") ?? "", "base64url").toString()), { sub: "user" });
  const { head: without } = await verifier().verify([writing], head({ "x-role": "forged", "x-payload": "forged" }), { signal });
  t.deepEqual([...without.headers.flat], []);
});

const remote = rule({ keys: { kind: "remote", uri: "http://issuer.example/jwks", timeoutMs: 1_000 } });

test("keys are fetched once for all who wait, kept, and refreshed in the background", async (t) => {
  const clock = new ManualClock(now);
  let fetched = 0;
  const check = verifier(async () => {
    fetched++;
    return jwks;
  }, clock);
  const request = head({ authorization: `Bearer ${await sign({ expiresInS: 90_000 })}` });
  await Promise.all([1, 2, 3].map(() => check.verify([remote], request, { signal })));
  t.is(fetched, 1);
  await clock.advance(21 * 60_000);
  await check.verify([remote], request, { signal });
  t.is(fetched, 2);
});

test("keys that cannot be fetched deny, and their issuer is not asked again at once; those held serve on", async (t) => {
  const clock = new ManualClock(now);
  let fetched = 0;
  let fails = true;
  const check = verifier(async () => {
    fetched++;
    if (fails) throw new Error("down");
    return jwks;
  }, clock);
  const request = head({ authorization: `Bearer ${await sign({ expiresInS: 90_000 })}` });
  t.like(await refusal([remote], request, check), { body: "Jwks remote fetch is failed", status: 401 });
  t.like(await refusal([remote], request, check), { body: "Jwks remote fetch is failed" });
  t.is(fetched, 1);
  fails = false;
  await clock.advance(5_001);
  t.like(await refusal([remote], request, check), { passed: true });
  fails = true;
  await clock.advance(30 * 60_000);
  t.like(await refusal([remote], request, check), { passed: true });
});

test("a key that is not known yet is looked for, but not for every token", async (t) => {
  const clock = new ManualClock(now);
  let fetched = 0;
  let document = JSON.stringify({ keys: [] });
  const check = verifier(async () => {
    fetched++;
    return document;
  }, clock);
  const request = head({ authorization: `Bearer ${await sign()}` });
  t.like(await refusal([remote], request, check), { status: 401 });
  document = jwks;
  t.like(await refusal([remote], request, check), { status: 401 });
  t.is(fetched, 1, "within five seconds nobody is asked again");
  await clock.advance(5_001);
  t.like(await refusal([remote], request, check), { passed: true });
  t.is(fetched, 2);
});

test("without keys of its own a rule asks the issuer where they are; an issuer that does not say accepts no token", async (t) => {
  const uri = "https://issuer.example/.well-known/openid-configuration";
  const discovered = rule({ keys: { kind: "remote", uri, timeoutMs: 1_000 } });
  const request = head({ authorization: `Bearer ${await sign()}` });
  const asked: string[] = [];
  const saying = (document: string) =>
    verifier(async (from) => {
      asked.push(from);
      return from === uri ? document : jwks;
    });
  const verified = await saying('{"jwks_uri":"https://issuer.example/keys"}').verify([discovered], request, { signal });
  t.is(verified.claims?.["sub"], "user");
  t.deepEqual(asked, [uri, "https://issuer.example/keys"]);
  for (const document of ["{}", "null", "nothing", '{"jwks_uri":1}']) t.truthy(await refusal([discovered], request, saying(document)));
});
