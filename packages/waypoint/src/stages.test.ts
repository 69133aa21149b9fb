import { HeaderFields, type HttpRoute, noHeaderChanges, type RequestPolicy, type RetryPolicy } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { waypointError } from "./failure.ts";
import { rescued } from "./rescue.ts";
import { answerHere } from "./stages/answer-here.ts";
import { authorize } from "./stages/authorize.ts";
import { changeHeaders } from "./stages/change-headers.ts";
import { govern } from "./stages/govern.ts";
import { mirror } from "./stages/mirror.ts";
import { normalise } from "./stages/normalise.ts";
import { rescue } from "./stages/rescue.ts";
import { route } from "./stages/route.ts";
import { sanitise } from "./stages/sanitise.ts";
import { timeout } from "./stages/timeout.ts";
import { tryAgain } from "./stages/try-again.ts";
import { answer, read, testExchange, through, WrittenBody } from "./test-request.ts";
import { apiConfig, forwardTo, routeTo } from "./test-waypoint.ts";

const clean = sanitise({ trustedHops: 0, newRequestId: () => "id-1" });

test("route, policy and upstream get one and the same normalised path; what has none is refused with 400", async (t) => {
  const { exchange } = testExchange({ head: { path: "/a/%2e%2e/%61dmin?x=%61" } });
  await through([normalise({ pathNormalization: "base" })], exchange, async () => answer(200));
  t.is(exchange.head.path, "/admin?x=%61");
  for (const path of ["/a%00", "no-slash", "/a%zz"]) {
    const bad = testExchange({ head: { path } });
    const refused = await through([rescue(), normalise({ pathNormalization: "base" })], bad.exchange, async () => answer(200));
    t.is(refused.status, 400, path);
    t.is(bad.exchange.record.detail, "path_normalization_failed");
  }
});

test("a client cannot say what only proxies may say", async (t) => {
  const { exchange } = testExchange({
    headers: {
      "x-envoy-retry-on": "5xx",
      "x-forwarded-client-cert": "URI=spiffe://evil",
      "l5d-client-id": "x",
      "x-istio-attributes": "y",
      "x-forwarded-for": "1.2.3.4",
      "x-own": "stays",
    },
  });
  await through([clean], exchange, async () => answer(200));
  const names = [...exchange.head.headers].map(([name]) => name);
  t.deepEqual(names.toSorted(), ["x-forwarded-for", "x-forwarded-proto", "x-own", "x-request-id"]);
  t.is(exchange.head.headers.get("x-forwarded-for"), "1.2.3.4, 10.1.0.1");
  t.is(exchange.head.headers.get("x-request-id"), "id-1");
  t.is(exchange.remote.ip, exchange.downstream.source.ip);
});

test("only as many proxies as are trusted speak for the remote client", async (t) => {
  const forwarded = { headers: { "x-forwarded-for": "6.6.6.6, 1.2.3.4" } };
  const { exchange } = testExchange(forwarded);
  await through([sanitise({ trustedHops: 1, newRequestId: () => "" })], exchange, async () => answer(200));
  t.is(String(exchange.remote.ip), "1.2.3.4");
  const garbage = testExchange({ headers: { "x-forwarded-for": "nonsense" } });
  await through([sanitise({ trustedHops: 1, newRequestId: () => "" })], garbage.exchange, async () => answer(200));
  t.is(garbage.exchange.remote.ip, garbage.exchange.downstream.source.ip);
});

const denyAdmin: RequestPolicy = {
  namespace: "default",
  name: "no-admin",
  action: "deny",
  dryRun: false,
  rules: [{ kind: "path", match: { kind: "prefix", value: "/admin" } }],
};

test("a denied request gets the reference's words, and the record names the policy and the rule", async (t) => {
  const { exchange } = testExchange({ head: { path: "/admin/x" }, port: { policies: [denyAdmin] } });
  const observed: unknown[] = [];
  const denied = await through([rescue(), authorize({ onObserved: (_, seen) => observed.push(seen) })], exchange, async () => answer(200));
  t.is(denied.status, 403);
  t.is(await read(denied.body), "RBAC: access denied");
  t.is(exchange.record.detail, "rbac_access_denied_matched_policy[ns[default]-policy[no-admin]-rule[0]]");
  const other = testExchange({ head: { path: "/" }, port: { policies: [{ ...denyAdmin, action: "allow" }] } });
  t.is((await through([rescue(), authorize({ onObserved: () => undefined })], other.exchange, async () => answer(200))).status, 403);
  t.is(other.exchange.record.detail, "rbac_access_denied_matched_policy[none]");
});

test("a gRPC client reads a failure as a gRPC status", async (t) => {
  const { exchange } = testExchange({ head: { path: "/admin/x" }, headers: { "content-type": "application/grpc" }, port: { policies: [denyAdmin] } });
  const denied = await through([rescue(), authorize({ onObserved: () => undefined })], exchange, async () => answer(200));
  t.is(denied.status, 200);
  t.is(denied.headers.get("grpc-status"), "7");
  t.is(denied.headers.get("grpc-message"), "RBAC: access denied");
  t.is(rescued(exchange, waypointError("WAYPOINT_UPSTREAM_TIMEOUT", "late")).headers.get("grpc-status"), "4");
  t.is(rescued(exchange, waypointError("WAYPOINT_UPSTREAM_CONNECT", "down")).headers.get("grpc-status"), "14");
});

test("every failure has its status, flag and detail", (t) => {
  const cases: [Parameters<typeof waypointError>[0], number, string][] = [
    ["WAYPOINT_NO_ROUTE", 404, "NR"],
    ["WAYPOINT_NO_CLUSTER", 503, "NC"],
    ["WAYPOINT_NO_BACKEND", 500, "NC"],
    ["WAYPOINT_NO_HEALTHY_UPSTREAM", 503, "UH"],
    ["WAYPOINT_UPSTREAM_CONNECT", 503, "UF"],
    ["WAYPOINT_UPSTREAM_RESET", 503, "UC"],
    ["WAYPOINT_UPSTREAM_GARBAGE", 502, "UPE"],
    ["WAYPOINT_UPSTREAM_TIMEOUT", 504, "UT"],
    ["WAYPOINT_OVERFLOW", 503, "UO"],
  ];
  for (const [code, status, flag] of cases) {
    const { exchange } = testExchange();
    t.is(rescued(exchange, waypointError(code, "why")).status, status, code);
    t.deepEqual([...exchange.record.flags], [flag], code);
    t.truthy(exchange.record.detail, code);
  }
  const { exchange } = testExchange();
  t.is(rescued(exchange, new TypeError("a fault of ours")).status, 500);
  t.is(rescued(exchange, waypointError("WAYPOINT_OVERFLOW", "")).headers.get("x-envoy-overloaded"), "true");
});

test("a split sends each request to one of its backends, by weight, and a backend that is none answers 500", async (t) => {
  const action = forwardTo(["one", "two"]);
  const weighted = { ...action, backends: action.backends.map((backend, index) => ({ ...backend, weight: index === 0 ? 9 : 1 })) };
  const config = apiConfig({ vip: "10.0.0.1", endpoints: [], routes: [routeTo(weighted)] });
  const draw = async (value: number): Promise<string | undefined> => {
    const { exchange } = testExchange({ config });
    await through([route({ routeTable: (name) => config.routeTables.get(name), random: () => value })], exchange, async () => answer(200));
    return exchange.backend?.cluster;
  };
  t.is(await draw(0.89), "one");
  t.is(await draw(0.91), "two");
  const broken = apiConfig({ vip: "10.0.0.1", endpoints: [], routes: [routeTo(forwardTo("UnknownService"))] });
  const { exchange } = testExchange({ config: broken });
  const stages = [rescue(), route({ routeTable: (name) => broken.routeTables.get(name), random: () => 0 })];
  t.is((await through(stages, exchange, async () => answer(200))).status, 500);
});

test("a request of a long tunnel is governed by what is in force when it comes", async (t) => {
  const { exchange } = testExchange();
  const changed = apiConfig({ vip: "10.0.0.1", endpoints: [], port: { policies: [denyAdmin] } });
  await through([govern({ config: () => changed })], exchange, async () => answer(200));
  t.deepEqual(exchange.downstream.port.policies, [denyAdmin]);
  const stage = govern({ config: () => changed });
  const [first, second] = [testExchange(), testExchange()];
  second.exchange.downstream = first.exchange.downstream;
  for (const { exchange: each } of [first, second]) await through([stage], each, async () => answer(200));
  t.is(first.exchange.downstream, second.exchange.downstream, "requests of one connection share it");
  const gone = testExchange();
  const refused = await through([rescue(), govern({ config: () => ({ ...changed, targets: new Map() }) })], gone.exchange, async () => answer(200));
  t.is(refused.status, 503);
});

const changes: HttpRoute = routeTo(
  {
    ...forwardTo("api", { rewrite: { authority: "other", path: { kind: "prefix", value: "/v2" } } }),
    backends: [
      {
        cluster: "api",
        weight: 1,
        requestHeaders: { set: [], add: [{ name: "X-Added", value: "backend" }], remove: [] },
        responseHeaders: { set: [{ name: "x-from", value: "backend" }], add: [], remove: [] },
      },
    ],
  },
  {
    match: { path: { kind: "path-prefix", value: "/v1" }, method: undefined, headers: [], query: [], grpc: false },
    requestHeaders: { set: [{ name: "x-set", value: "route" }], add: [], remove: ["x-secret"] },
    responseHeaders: { set: [], add: [{ name: "x-from", value: "route" }], remove: ["server"] },
  },
);

test("headers, authority and path change on the way there, headers on the way back", async (t) => {
  const { exchange } = testExchange({ head: { path: "/v1/users?x=1" }, headers: { "x-secret": "s", "x-set": "client" } });
  exchange.route = changes;
  exchange.backend = changes.action.kind === "forward" ? changes.action.backends[0] : undefined;
  const back = await through([changeHeaders()], exchange, async () => answer(200, { server: "x" }));
  t.like(exchange.head, { authority: "other", path: "/v2/users?x=1" });
  t.deepEqual(
    [...exchange.head.headers],
    [
      ["x-set", "route"],
      ["x-added", "backend"],
      ["x-envoy-original-path", "/v1/users?x=1"],
    ],
  );
  t.deepEqual(
    [...back.headers],
    [
      ["x-from", "backend"],
      ["x-from", "route"],
    ],
  );
});

test("redirects and fixed answers need no upstream", async (t) => {
  const { exchange } = testExchange({ head: { path: "/old?x=1" } });
  exchange.route = routeTo({
    kind: "redirect",
    redirect: { scheme: "https", hostname: "new.example", port: undefined, path: { kind: "full", value: "/new" }, status: 308 },
  });
  const redirected = await through([answerHere()], exchange, async () => t.fail("asked the upstream") as never);
  t.is(redirected.status, 308);
  t.is(redirected.headers.get("location"), "https://new.example/new?x=1");
  exchange.route = routeTo({ kind: "respond", status: 500, body: "" });
  t.is((await through([answerHere()], exchange, async () => answer(200))).status, 500);
});

test("an exchange that takes too long is ended with 504, and a caller's shorter deadline counts", async (t) => {
  const clock = new ManualClock();
  const never = async (_: unknown, signal: AbortSignal): Promise<never> =>
    new Promise((__, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  const { exchange } = testExchange();
  exchange.route = routeTo(forwardTo("api", { timeoutMs: 1_000 }));
  const waiting = through([rescue(), timeout({ clock })], exchange, (same) => never(same, exchange.signal));
  await clock.advance(1_000);
  const late = await waiting;
  t.is(late.status, 504);
  t.is(await read(late.body), "upstream request timeout");
  t.deepEqual([...exchange.record.flags], ["UT"]);

  const call = testExchange({ headers: { "content-type": "application/grpc", "grpc-timeout": "250m" } });
  call.exchange.route = routeTo(forwardTo("api", { timeoutMs: 1_000 }));
  const calling = through([rescue(), timeout({ clock: new ManualClock() })], call.exchange, async (same) => {
    t.is(same.head.headers.get("grpc-timeout"), "250m");
    return answer(200);
  });
  t.is((await calling).status, 200);
});

const policy: RetryPolicy = { on: ["5xx", "connect-failure"], attempts: 2, statusCodes: [], perTryTimeoutMs: undefined, backoff: { baseMs: 0, maxMs: 0 } };

function retries(over: Partial<Parameters<typeof tryAgain>[0]> = {}): Parameters<typeof tryAgain>[0] {
  const clock = new ManualClock();
  const immediate = { ...over, clock: Object.assign(clock, { sleep: async () => undefined }) };
  return { random: () => 0, tryTakeRetry: () => () => undefined, onRetry: () => undefined, replayBytes: 16, ...immediate };
}

test("a failure is hidden by another attempt with the whole body, which knows its number", async (t) => {
  const body = new WrittenBody();
  const { exchange } = testExchange({ body });
  exchange.route = routeTo(forwardTo("api", { retry: policy }));
  const seen: [string | undefined, Promise<string>][] = [];
  const got = await through([tryAgain(retries())], exchange, async (same) => {
    seen.push([same.head.headers.get("x-envoy-attempt-count"), read(same.body)]);
    if (seen.length === 1) {
      body.sink?.write(Buffer.from("hello"));
      throw waypointError("WAYPOINT_UPSTREAM_CONNECT", "down");
    }
    if (seen.length === 2) {
      body.sink?.end(undefined);
      return answer(503);
    }
    return answer(200);
  });
  t.is(got.status, 200);
  t.deepEqual(
    seen.map(([count]) => count),
    ["1", "2", "3"],
  );
  t.is(await seen[2]?.[1], "hello");
  t.is(exchange.record.attempts, 3);
});

test("a connection that ends in the middle of a request is no reason for another, unless the route asks", async (t) => {
  const attemptsAfter = async (over: Partial<RetryPolicy>, failure: Error): Promise<number> => {
    const { exchange } = testExchange();
    exchange.route = routeTo(forwardTo("api", { retry: { ...policy, ...over } }));
    await t.throwsAsync(through([tryAgain(retries())], exchange, async () => Promise.reject(failure)));
    return exchange.record.attempts;
  };
  const reset = waypointError("WAYPOINT_UPSTREAM_RESET", "gone", { details: { sent: true } });
  const unsent = waypointError("WAYPOINT_UPSTREAM_RESET", "gone", { details: { sent: false } });
  const late = waypointError("WAYPOINT_PER_TRY_TIMEOUT", "late");
  const byDefault = ["connect-failure", "refused-stream", "unavailable", "cancelled"] as const;
  t.is(await attemptsAfter({ on: byDefault }, reset), 1);
  t.is(await attemptsAfter({ on: byDefault }, unsent), 3);
  t.is(await attemptsAfter({ on: ["reset"] }, reset), 3);
  t.is(await attemptsAfter({ on: ["retriable-status-codes"], statusCodes: [503] }, reset), 3);
  t.is(await attemptsAfter({ on: ["retriable-status-codes"], statusCodes: [504] }, reset), 1);
  t.is(await attemptsAfter({ on: ["retriable-status-codes"], statusCodes: [504] }, late), 3);
});

test("when the attempts are used up the last failure stands, flagged", async (t) => {
  const { exchange } = testExchange();
  exchange.route = routeTo(forwardTo("api", { retry: policy }));
  const got = await through([tryAgain(retries())], exchange, async () => answer(503));
  t.is(got.status, 503);
  t.is(exchange.record.attempts, 3);
  t.deepEqual([...exchange.record.flags], ["URX"]);
});

test("a body that is longer than what is kept is sent once", async (t) => {
  const body = new WrittenBody();
  const { exchange } = testExchange({ body });
  exchange.route = routeTo(forwardTo("api", { retry: policy }));
  let attempts = 0;
  const got = await through([tryAgain(retries())], exchange, async (same) => {
    attempts++;
    void read(same.body).catch(() => undefined);
    body.sink?.write(Buffer.alloc(17));
    return answer(503);
  });
  t.is(got.status, 503);
  t.is(attempts, 1);
});

test("no retry without a place among the cluster's retries, and none for an answer nobody asked to retry", async (t) => {
  for (const [status, over] of [
    [503, { tryTakeRetry: () => undefined }],
    [404, {}],
  ] as const) {
    const { exchange } = testExchange();
    exchange.route = routeTo(forwardTo("api", { retry: policy }));
    let attempts = 0;
    await through([tryAgain(retries(over))], exchange, async () => {
      attempts++;
      return answer(status);
    });
    t.is(attempts, 1, String(status));
  }
});

test("an attempt that takes too long is given up for another", async (t) => {
  const clock = new ManualClock();
  const { exchange } = testExchange();
  exchange.route = routeTo(forwardTo("api", { retry: { ...policy, perTryTimeoutMs: 100 } }));
  let attempts = 0;
  const waiting = through([tryAgain({ ...retries(), clock })], exchange, async (same) => {
    if (++attempts > 1) return answer(200);
    const { signal } = same.attempt;
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  });
  await clock.advance(100);
  await clock.advance(100);
  t.is((await waiting).status, 200);
  t.is(attempts, 2);
});

test("a copy goes to the mirror, marked as one, and what becomes of it is nobody's business", async (t) => {
  const { exchange } = testExchange({ head: { authority: "api:80" }, body: new WrittenBody() });
  exchange.route = routeTo(forwardTo("api", { mirrors: [{ cluster: "shadow", fraction: 1 }] }));
  const sent: { authority: string; body: Promise<string> }[] = [];
  const upstreams = {
    send: async ({ request, body }: { request: { head: { authority: string } }; body: Parameters<typeof read>[0] }) => {
      sent.push({ authority: request.head.authority, body: read(body) });
      throw waypointError("WAYPOINT_NO_HEALTHY_UPSTREAM", "nobody there");
    },
  };
  let dropped = 0;
  const stage = mirror({ clock: new ManualClock(), random: () => 0.5, upstreams, telemetry: { mirrorDropped: () => void dropped++ } });
  const got = await through([stage], exchange, async (same) => {
    const original = read(same.body);
    const source = exchange.request.body as WrittenBody;
    source.sink?.write(Buffer.from("both"));
    source.sink?.end(undefined);
    t.is(await original, "both");
    return answer(200);
  });
  t.is(got.status, 200);
  t.is(sent[0]?.authority, "api-shadow:80");
  t.is(dropped, 1);
});

test("set host means the authority", async (t) => {
  const { exchange } = testExchange();
  exchange.route = routeTo(forwardTo("api"), { requestHeaders: { ...noHeaderChanges, set: [{ name: "Host", value: "inner" }] } });
  await through([changeHeaders()], exchange, async () => answer(200));
  t.is(exchange.head.authority, "inner");
  t.deepEqual([...new HeaderFields([...exchange.head.headers.flat])], []);
});
