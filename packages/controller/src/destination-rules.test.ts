import type { DestinationRule } from "@fairway/kube";
import { unlimited } from "@fairway/model";
import test from "ava";
import { defaultSettings, readDestinationRule, settingsFor } from "./destination-rules.ts";
import { gateway, namespace, service, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";

const rule = (spec: DestinationRule["spec"], metadata: Partial<DestinationRule["metadata"]> = {}): DestinationRule => ({
  metadata: { name: "r", namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z", ...metadata },
  ...(spec && { spec }),
});
const read = (trafficPolicy: NonNullable<DestinationRule["spec"]>["trafficPolicy"]) =>
  readDestinationRule(rule({ host: "web", ...(trafficPolicy && { trafficPolicy }) }), testSettings);

test("balancing, limits and ejection are as the rule says; what it does not say is as without it", (t) => {
  const { settings, condition } = read({
    loadBalancer: { simple: "ROUND_ROBIN" },
    connectionPool: { tcp: { maxConnections: 10, connectTimeout: "1.5s" }, http: { http1MaxPendingRequests: 20, http2MaxRequests: 30, maxRetries: 0 } },
    outlierDetection: { consecutive5xxErrors: 3, consecutiveGatewayErrors: null, baseEjectionTime: "10s", maxEjectionPercent: 50 },
  });
  t.deepEqual(settings, {
    connectTimeoutMs: 1_500,
    loadBalancing: "round-robin",
    limits: { maxConnections: 10, maxPendingRequests: 20, maxRequests: 30, maxRetries: unlimited.maxRetries },
    ejection: { consecutiveErrors: 3, consecutiveGatewayErrors: 0, baseEjectionMs: 10_000, maxEjectionMs: 300_000, maxEjectedPercent: 50 },
  });
  t.is(condition, undefined);
  t.deepEqual(read({}).settings, defaultSettings);
  t.is(read({ outlierDetection: {} }).settings.ejection?.consecutiveErrors, 5);
});

test("a port's own settings stand for themselves", (t) => {
  const reading = read({ loadBalancer: { simple: "RANDOM" }, portLevelSettings: [{ port: { number: 81 }, connectionPool: { tcp: { maxConnections: 1 } } }] });
  const at = (port: number) => settingsFor([reading], { port, namespaces: ["shop"] });
  t.is(at(80).loadBalancing, "random");
  t.deepEqual([at(81).loadBalancing, at(81).limits.maxConnections], ["least-request", 1]);
});

test("hosts are names of the rule's namespace, or say theirs", (t) => {
  for (const [host, hostname] of [
    ["web", "web.shop.svc.cluster.local"],
    ["web.other", "web.other.svc.cluster.local"],
    ["web.other.svc", "web.other.svc.cluster.local"],
    ["web.other.svc.cluster.local", "web.other.svc.cluster.local"],
  ] as const) {
    t.is(readDestinationRule(rule({ host }), testSettings).hostname, hostname);
  }
});

for (const [title, trafficPolicy] of [
  ["a balancing that is not supported", { loadBalancer: { simple: "PASSTHROUGH" } }],
  ["a limit below nothing", { connectionPool: { tcp: { maxConnections: -1 } } }],
  ["a time that is none", { connectionPool: { tcp: { connectTimeout: "soon" } } }],
  ["a share over all", { outlierDetection: { maxEjectionPercent: 101 } }],
  ["a port that is none", { portLevelSettings: [{ port: { number: 0 } }] }],
  ["parts that are none", { portLevelSettings: 3, connectionPool: "x" }],
] as const) {
  test(`a rule with ${title} changes nothing, and says so`, (t) => {
    const { settings, condition, byPort } = read({ loadBalancer: { simple: "RANDOM" }, ...trafficPolicy } as never);
    t.deepEqual(settings, defaultSettings);
    t.is(byPort.size, 0);
    t.like(condition, { status: "False", reason: "Invalid" });
  });
}

test("what is not honoured is said, and the rest counts", (t) => {
  const { settings, condition } = readDestinationRule(
    rule({ host: "web", subsets: [], trafficPolicy: { tls: { mode: "SIMPLE" }, loadBalancer: { simple: "RANDOM", warmup: {} } } } as never),
    testSettings,
  );
  t.is(settings.loadBalancing, "random");
  t.like(condition, { status: "True", reason: "PartiallyInvalid" });
  t.regex(condition?.message ?? "", /spec\.subsets.*spec\.trafficPolicy\.tls.*loadBalancer\.warmup/);
});

test("the rule of the waypoint's namespace goes before the service's, that before the root's, the oldest first", (t) => {
  const of = (space: string, simple: string, created: string) =>
    readDestinationRule(
      rule({ host: "web.shop", trafficPolicy: { loadBalancer: { simple } } }, { name: simple, namespace: space, creationTimestamp: created }),
      testSettings,
    );
  const all = [of("fairway-system", "RANDOM", "2020"), of("shop", "ROUND_ROBIN", "2025"), of("shop", "LEAST_REQUEST", "2024"), of("edge", "RANDOM", "2026")];
  const at = (...namespaces: string[]) => settingsFor(all, { port: 80, namespaces }).loadBalancing;
  t.is(at("edge", "shop", "fairway-system"), "random");
  t.is(at("shop", "fairway-system"), "least-request");
  t.is(at("elsewhere", "fairway-system"), "random");
  t.is(at("elsewhere"), "least-request");
});

test("a rule reaches the clusters of its service, and leaves them when it goes", (t) => {
  const inputs = testInputs();
  inputs.namespaces.set(namespace("shop", { "istio.io/use-waypoint": "wp" }));
  inputs.gateways.set(gateway("wp"));
  inputs.services.set(service("web"));
  const { programs } = deriveMesh(inputs, testSettings);
  const cluster = () => programs.resources.get("shop/wp|cluster|inbound-vip|80|http|web.shop.svc.cluster.local")?.value;
  inputs.destinationRules.set(rule({ host: "web", trafficPolicy: { connectionPool: { tcp: { maxConnections: 7 } } } }));
  t.like(cluster(), { limits: { maxConnections: 7 } });
  inputs.destinationRules.delete("shop/r");
  t.like(cluster(), { limits: unlimited });
});
