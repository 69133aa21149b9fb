import { type GatewayObject, resources, type Service } from "@fairway/kube";
import { ManualClock, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { readConfig } from "./config.ts";
import { FakeKube } from "./fake-kube.ts";
import { gateway, service, slice, testSettings } from "./fixtures.ts";
import { controllerName } from "./waypoint-classes.ts";
import { runWaypoints } from "./waypoint-deployer.ts";

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10));
const { waypointPod } = readConfig({ WAYPOINT_IMAGE: "acme/waypoint:1", WAYPOINT_POD: '{"env":{"RUST_LOG":"debug"},"nodeSelector":{"disk":"fast"}}' });

function wanted(name: string, changes: Parameters<typeof gateway>[1] = {}): GatewayObject {
  const { status: _status, ...object } = gateway(name, { ...changes, metadata: { uid: "u1", generation: 1, ...changes.metadata } });
  return { ...object, spec: { ...object.spec, gatewayClassName: "fairway-waypoint", ...changes.spec } };
}

async function run(t: ExecutionContext, kube: FakeKube): Promise<void> {
  const leading = new AbortController();
  const inputs = {
    gateways: kube.store(resources.gateways),
    gatewayClasses: kube.store(resources.gatewayClasses),
    services: kube.store(resources.services),
    endpointSlices: kube.store(resources.endpointSlices),
  };
  const clock = new ManualClock();
  const running = runWaypoints({ client: kube, inputs, settings: testSettings, pod: waypointPod, clock, log: silentLogger }, leading.signal);
  t.teardown(async () => {
    leading.abort();
    await running;
  });
  await settle();
}

const conditions = (kube: FakeKube, name = "wp"): unknown =>
  (kube.store(resources.gateways).get(`shop/${name}`)?.status?.conditions ?? []).map(({ type, status, reason }) => `${type}=${status} ${reason}`);

test("our classes are created where they are missing, and one that others control is left to them", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.gatewayClasses, { metadata: { name: "istio-waypoint" }, spec: { controllerName: "istio.io/mesh-controller" } });
  kube.set(resources.gateways, wanted("theirs", { spec: { gatewayClassName: "istio-waypoint" } }));
  await run(t, kube);
  t.is(kube.store(resources.gatewayClasses).get("fairway-waypoint")?.spec?.controllerName, controllerName);
  t.is(kube.store(resources.gatewayClasses).get("istio-waypoint")?.spec?.controllerName, "istio.io/mesh-controller");
  t.is(kube.store(resources.deployments).get("shop/theirs"), undefined);
  t.deepEqual(conditions(kube, "theirs"), []);
});

test("a Gateway of our class has a ServiceAccount, a Service and a Deployment that go with it", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.gateways, wanted("wp", { metadata: { labels: { team: "a", "gateway.networking.k8s.io/x": "y" } } }));
  await run(t, kube);
  const deployment = kube.store(resources.deployments).get("shop/wp");
  const owner = { apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", name: "wp", uid: "u1" };
  for (const object of [deployment, kube.store(resources.services).get("shop/wp"), kube.store(resources.serviceAccounts).get("shop/wp")]) {
    t.deepEqual(object?.metadata.ownerReferences, [owner]);
    t.like(object?.metadata.labels, { team: "a", "gateway.istio.io/managed": "istio.io-mesh-controller", "gateway.networking.k8s.io/gateway-name": "wp" });
    t.is(object?.metadata.labels?.["gateway.networking.k8s.io/x"], undefined);
  }
  t.deepEqual(
    kube
      .store(resources.services)
      .get("shop/wp")
      ?.spec?.ports?.map(({ name, port, appProtocol }) => [name, port, appProtocol]),
    [
      ["status-port", 15021, "tcp"],
      ["mesh", 15008, "hbone"],
    ],
  );
  t.false("replicas" in (deployment?.spec ?? {}), "how many there are is the user's");
  const template = deployment?.spec?.template;
  t.like(template?.metadata?.labels, { "istio.io/dataplane-mode": "none", "service.istio.io/canonical-name": "wp" });
  t.like(template?.spec, { serviceAccountName: "wp", nodeSelector: { disk: "fast" } });
  const container = template?.spec?.containers?.[0];
  t.is(container?.image, "acme/waypoint:1");
  const env = Object.fromEntries((container?.env ?? []).map(({ name, value, valueFrom }) => [name, value ?? valueFrom?.fieldRef?.fieldPath]));
  t.like(env, {
    GATEWAY_NAME: "wp",
    XDS_ADDRESS: "https://fairway-controller.fairway-system.svc:15012",
    POD_NAME: "metadata.name",
    SERVICE_ACCOUNT: "spec.serviceAccountName",
    TRUST_DOMAIN: "cluster.local",
    RUST_LOG: "debug",
  });
  t.is(kube.store(resources.gateways).get("shop/wp")?.metadata.annotations?.["gateway.istio.io/controller-version"], "5");
});

test("a waypoint that is called as its service account is, is deployed beside the application of that name", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.services, service("api"));
  kube.set(resources.serviceAccounts, { metadata: { name: "api", namespace: "shop" } });
  kube.set(resources.gateways, wanted("api", { metadata: { annotations: { "istio.io/for-service-account": "api" } } }));
  await run(t, kube);
  const deployment = kube.store(resources.deployments).get("shop/api-fairway-waypoint");
  t.is(deployment?.spec?.template?.spec?.serviceAccountName, "api-fairway-waypoint", "with an identity of its own");
  t.truthy(kube.store(resources.services).get("shop/api-fairway-waypoint"));
  t.is(deployment?.metadata.labels?.["gateway.networking.k8s.io/gateway-name"], "api");
  t.deepEqual(conditions(kube, "api"), ["Accepted=True Accepted", "Programmed=False AddressNotUsable", "ResolvedRefs=True ResolvedRefs"]);
  t.is(kube.store(resources.deployments).get("shop/api"), undefined);
});

test("a waypoint is published when an endpoint is ready, and stays published when none is", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.gateways, wanted("wp"));
  await run(t, kube);
  t.deepEqual(conditions(kube), ["Accepted=True Accepted", "Programmed=False AddressNotUsable", "ResolvedRefs=True ResolvedRefs"]);
  const made = kube.store(resources.services).get("shop/wp") as Service;
  kube.set(resources.services, { ...made, spec: { ...made.spec, clusterIP: "10.1.9.9", clusterIPs: ["10.1.9.9"] } });
  const ready = (value: boolean) =>
    slice("wp-1", { metadata: { labels: { "kubernetes.io/service-name": "wp" } }, endpoints: [{ addresses: ["10.0.0.9"], conditions: { ready: value } }] });
  kube.set(resources.endpointSlices, ready(false));
  await settle();
  t.is(kube.store(resources.gateways).get("shop/wp")?.status?.addresses, undefined);
  kube.set(resources.endpointSlices, ready(true));
  await settle();
  t.deepEqual(conditions(kube), ["Accepted=True Accepted", "Programmed=True Programmed", "ResolvedRefs=True ResolvedRefs"]);
  const addresses = [
    { type: "IPAddress", value: "10.1.9.9" },
    { type: "Hostname", value: "wp.shop.svc.cluster.local" },
  ];
  t.deepEqual(kube.store(resources.gateways).get("shop/wp")?.status?.addresses, addresses);
  const writes = kube.writes.length;
  kube.set(resources.endpointSlices, ready(false));
  await settle();
  t.deepEqual(conditions(kube), ["Accepted=True Accepted", "Programmed=False AddressNotUsable", "ResolvedRefs=True ResolvedRefs"]);
  t.deepEqual(kube.store(resources.gateways).get("shop/wp")?.status?.addresses, addresses);
  t.is(kube.writes.length, writes + 1, "said once");
});

test("a listener that is no waypoint's is said on the Gateway and on the listener", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.gateways, wanted("wp", { spec: { gatewayClassName: "fairway-waypoint", listeners: [{ name: "web", port: 80, protocol: "HTTP" }] } }));
  await run(t, kube);
  const { status } = kube.store(resources.gateways).get("shop/wp") ?? {};
  t.like(status?.conditions?.[0], { type: "Accepted", status: "False", reason: "ListenersNotValid" });
  t.like(status?.listeners?.[0]?.conditions[0], { type: "Accepted", status: "False", reason: "UnsupportedProtocol" });
});

test("what was not made for a Gateway is never overwritten, and the author is told", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.services, service("wp"));
  kube.set(resources.gateways, wanted("wp"));
  await run(t, kube);
  t.deepEqual(kube.store(resources.services).get("shop/wp")?.spec, service("wp").spec);
  const programmed = kube.store(resources.gateways).get("shop/wp")?.status?.conditions?.[1];
  t.like(programmed, { status: "False", reason: "Invalid" });
  t.regex(programmed?.message ?? "", /Service shop\/wp exists and is not ours/);
});

test("a newer controller, or an address of one's own, keeps us away", async (t) => {
  const kube = new FakeKube();
  for (const version of ["6", "next"])
    kube.set(resources.gateways, wanted(`v${version}`, { metadata: { annotations: { "gateway.istio.io/controller-version": version } } }));
  kube.set(resources.gateways, wanted("manual", { spec: { gatewayClassName: "fairway-waypoint", addresses: [{ type: "Hostname", value: "elsewhere" }] } }));
  kube.set(resources.gateways, wanted("rev", { metadata: { labels: { "istio.io/rev": "other" } } }));
  await run(t, kube);
  t.deepEqual([...kube.store(resources.deployments).list()], []);
  t.deepEqual([...new Set(kube.writes.map(({ type }) => type))], ["gatewayclasses"]);
});

test("parameters that are not supported are refused, never ignored", async (t) => {
  const kube = new FakeKube();
  kube.set(
    resources.gateways,
    wanted("wp", { spec: { gatewayClassName: "fairway-waypoint", infrastructure: { parametersRef: { group: "", kind: "ConfigMap", name: "x" } } } }),
  );
  await run(t, kube);
  t.deepEqual(conditions(kube), ["Accepted=False InvalidParameters", "Programmed=False Invalid", "ResolvedRefs=False InvalidParameters"]);
  t.is(kube.store(resources.deployments).get("shop/wp"), undefined);
});

test("what was deployed is put back when it is deleted or changed", async (t) => {
  const kube = new FakeKube();
  kube.set(resources.gateways, wanted("wp"));
  await run(t, kube);
  kube.store(resources.deployments).delete("shop/wp");
  await settle();
  t.truthy(kube.store(resources.deployments).get("shop/wp"));
});
