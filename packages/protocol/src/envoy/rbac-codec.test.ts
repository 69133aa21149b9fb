import {
  authorizeRequest,
  HeaderFields,
  parseIp,
  type RequestCondition,
  type RequestFacts,
  type RequestPolicy,
  type ServedPort,
  type ServedTarget,
  type SpiffeId,
} from "@fairway/model";
import test from "ava";
import fc from "fast-check";
import { Listener } from "../gen/resources/envoy/config/listener/v3/listener.ts";
import { anyCondition, anyTcpPort } from "../sample-waypoint.ts";
import { decodeTarget, encodeTarget } from "./listener-codec.ts";
import { policiesToWire } from "./rbac-codec.ts";

function targetOf(port: ServedPort): ServedTarget {
  return { name: "service/shop/api", kind: "service", namespace: "shop", hostname: "api", addresses: [parseIp("10.1.0.1")], ports: [port], anyPort: undefined };
}

function throughWire(policies: readonly RequestPolicy[]): readonly RequestPolicy[] {
  const port: ServedPort = { port: 80, protocol: "http", routes: "table", tcpBackends: [], policies, tokens: [] };
  return decodeTarget(encodeTarget(targetOf(port))).ports[0]?.policies ?? [];
}

function aPolicy(action: RequestPolicy["action"], ...rules: readonly RequestCondition[]): RequestPolicy {
  return { namespace: "shop", name: "rule", action, dryRun: false, rules };
}

const principal = (value: string): RequestCondition => ({ kind: "principal", match: { kind: "exact", value } });
const ofPort = (port: number): RequestCondition => ({ kind: "destination-port", from: port, to: port });
const ofPath = (value: string): RequestCondition => ({ kind: "path", match: { kind: "exact", value } });

const identities = ["spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"];
const anySmallCondition: fc.Arbitrary<RequestCondition> = fc.letrec<{ tree: RequestCondition }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom(...identities.map(principal), ofPort(80), ofPort(81), ofPath("/a"), ofPath("/b"), { kind: "any" as const }),
    fc.record({ kind: fc.constantFrom("all" as const, "some" as const), of: fc.array(tie("tree"), { maxLength: 3 }) }),
    fc.record({ kind: fc.constant("not" as const), of: tie("tree") }),
  ),
})).tree;

const everyRequest: readonly RequestFacts[] = identities.flatMap((identity) =>
  [80, 81].flatMap((port) =>
    ["/a", "/b"].map((path): RequestFacts => {
      const source = { ip: parseIp("10.0.0.1"), port: 1000 };
      const head = { method: "GET", scheme: "http" as const, authority: "api", path, headers: new HeaderFields() };
      const destination = { ip: parseIp("10.1.0.1"), port };
      return { head, identity: identity as SpiffeId, source, remote: source, destination, serverName: undefined, claims: undefined };
    }),
  ),
);

test("whatever tree of conditions a policy has, it decides the same on the other side of the wire", (t) => {
  fc.assert(
    fc.property(fc.constantFrom("allow" as const, "deny" as const), fc.array(anySmallCondition, { minLength: 1, maxLength: 3 }), (action, rules) => {
      const policies = [aPolicy(action, ...rules)];
      const decoded = throughWire(policies);
      for (const facts of everyRequest) t.deepEqual(authorizeRequest(decoded, facts), authorizeRequest(policies, facts));
    }),
    { numRuns: 300 },
  );
});

test("a policy that was read is written the same again", (t) => {
  fc.assert(
    fc.property(fc.array(anyCondition, { maxLength: 2 }), (rules) => {
      const once = throughWire([aPolicy("deny", ...rules)]);
      t.deepEqual(encodeTarget(targetOf(portWith(throughWire(once)))), encodeTarget(targetOf(portWith(once))));
    }),
    { numRuns: 100 },
  );
});

function portWith(policies: readonly RequestPolicy[]): ServedPort {
  return { port: 80, protocol: "http", routes: "table", tcpBackends: [], policies, tokens: [] };
}

test("an ALLOW policy without rules stays, and allows nothing", (t) => {
  const decoded = throughWire([aPolicy("allow")]);
  t.deepEqual(decoded, [aPolicy("allow")]);
  for (const facts of everyRequest) t.false(authorizeRequest(decoded, facts).allowed);
});

test("rules have the reference's keys, and a client or a port, as no single policy of Envoy says it, becomes two", (t) => {
  const [filter] = policiesToWire([aPolicy("deny", { kind: "some", of: [principal("a"), ofPort(80)] }, ofPath("/a"))]);
  t.deepEqual(
    [...(filter?.rules?.policies.keys() ?? [])],
    ["ns[shop]-policy[rule]-rule[0]", "ns[shop]-policy[rule]-rule[0]-part[1]", "ns[shop]-policy[rule]-rule[1]"],
  );
});

test("policies in dry run are shadow rules, beside the enforced ones of their action", (t) => {
  const [deny, allow] = policiesToWire([aPolicy("allow"), { ...aPolicy("deny"), dryRun: true }]);
  t.deepEqual([deny?.rules, deny?.shadowRules?.action, allow?.rules?.action, allow?.shadowRules], [undefined, 1, 0, undefined]);
});

test("where bytes are no HTTP, policies are told in terms of TCP", (t) => {
  fc.assert(
    fc.property(anyTcpPort, ({ port, expected }) => {
      const asTold = decodeTarget(encodeTarget(targetOf({ ...port, policies: expected })));
      t.deepEqual(Listener.decode(encodeTarget(targetOf(port))), Listener.decode(encodeTarget(asTold)));
    }),
    { numRuns: 50 },
  );
});
