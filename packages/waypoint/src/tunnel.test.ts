import { createServer, type RequestListener } from "node:http";
import test, { type ExecutionContext } from "ava";
import { apiConfig, application, endpoint, forwardTo, loopbackAddresses, routeTo, TestWaypoint, workload } from "./test-waypoint.ts";

const at = loopbackAddresses();

/** An HTTP application of a pod. */
async function httpApplication(t: ExecutionContext, host: string, listener: RequestListener): Promise<{ port: number }> {
  const http = createServer(listener);
  t.teardown(() => http.closeAllConnections());
  return application(t, host, (socket) => void http.emit("connection", socket));
}

test.serial("a request goes through HBONE in, the stages and HBONE out to the pod, and its answer comes back", async (t) => {
  const app = await httpApplication(t, at(2), (request, response) => {
    response.setHeader("x-seen", JSON.stringify({ url: request.url, host: request.headers.host, xff: request.headers["x-forwarded-for"] }));
    request.pipe(response);
  });
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }),
  });
  const { peers } = await waypoint.workload("b", at(2), app);
  const answer = await waypoint.request("a", `${at(200)}:80`, "/x/../%61dmin?q=1", {
    method: "POST",
    body: "hello",
    headers: { "x-envoy-attempt-count": "9" },
  });
  t.is(answer.status, 200);
  t.is(answer.body, "hello");
  t.like(JSON.parse(String(answer.headers["x-seen"])), { url: "/admin?q=1", host: "api" });
  t.deepEqual(peers, ["spiffe://cluster.local/ns/default/sa/waypoint"]);
});

test.serial("an address that is not bound here is refused before any byte", async (t) => {
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh: {}, config: apiConfig({ vip: at(200), endpoints: [] }) });
  await t.throwsAsync(waypoint.connect("a", `${at(201)}:80`), { code: "HBONE_REFUSED", message: /400/ });
  await t.throwsAsync(waypoint.connect("a", `${at(200)}:81`), { code: "HBONE_REFUSED", message: /400/ });
  waypoint.synced.set(false);
  await t.throwsAsync(waypoint.connect("a", `${at(200)}:80`), { code: "HBONE_REFUSED", message: /503/ });
});

test.serial("without an endpoint the client is told so; without a route as well", async (t) => {
  const table = [routeTo(forwardTo("api"), { match: { path: { kind: "path-prefix", value: "/a" }, method: undefined, headers: [], query: [], grpc: false } })];
  const waypoint = await TestWaypoint.start(t, { ip: at(1), mesh: {}, config: apiConfig({ vip: at(200), endpoints: [], routes: table }) });
  t.like(await waypoint.request("a", `${at(200)}:80`, "/a"), { status: 503, body: "no healthy upstream" });
  t.like(await waypoint.request("a", `${at(200)}:80`, "/b"), { status: 404, body: "" });
  t.like(await waypoint.request("a", `${at(200)}:80`, "/a/%00"), { status: 400 });
});
