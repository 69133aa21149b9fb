import { spiffeId } from "@fairway/model";
import test from "ava";
import { readConfig, type Surroundings } from "./environment.ts";

const nowhere: Surroundings = { exists: () => false, read: () => "" };
const least = { GATEWAY_NAME: "waypoint", POD_NAMESPACE: "shop", SERVICE_ACCOUNT: "waypoint" };

test("what the deployer sets is enough, and the rest has the reference's defaults", (t) => {
  const config = readConfig(least, nowhere);
  t.like(config.proxy, {
    identity: spiffeId({ trustDomain: "cluster.local", namespace: "shop", serviceAccount: "waypoint" }),
    gateway: "shop/waypoint",
    listen: { host: "0.0.0.0", port: 15_008, reusePort: true },
    pathNormalization: "base",
    trustedHops: 0,
    replayBytes: 65_536,
    accessLog: "text",
  });
  t.is(config.workerThreads, 2);
  t.is(config.xds.address, "https://localhost:15012");
  t.deepEqual(config.proxy.tracing.endpoint, undefined);
  t.regex(config.node.id, /^waypoint~/);
});

test("an empty variable is an unset one; IPv6 is listened to where there is any", (t) => {
  t.is(readConfig({ ...least, XDS_ADDRESS: "" }, nowhere).xds.address, "https://localhost:15012");
  t.is(readConfig(least, { exists: () => true, read: () => "0\n" }).proxy.listen.host, "::");
  t.is(readConfig({ ...least, IPV6_ENABLED: "false" }, { exists: () => true, read: () => "0\n" }).proxy.listen.host, "0.0.0.0");
});

test("OpenTelemetry's own variables say where spans go and how many", (t) => {
  const { tracing } = readConfig(
    {
      ...least,
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318/",
      OTEL_TRACES_SAMPLER: "traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.25",
      OTEL_EXPORTER_OTLP_HEADERS: "a=b, c=d",
    },
    nowhere,
  ).proxy;
  t.deepEqual(tracing, {
    endpoint: "http://collector:4318/v1/traces",
    headers: { a: "b", c: "d" },
    ratio: 0.25,
    parentBased: false,
    serviceName: "waypoint.shop",
  });
  const exact = readConfig({ ...least, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://c/x", OTEL_TRACES_SAMPLER: "parentbased_always_on" }, nowhere);
  t.like(exact.proxy.tracing, { endpoint: "http://c/x", ratio: 1, parentBased: true });
});

test("every wrong variable is named at once", (t) => {
  const wrong = {
    ...least,
    PATH_NORMALIZATION: "SOME",
    XFF_TRUSTED_HOPS: "-1",
    TRUSTED_GATEWAYS: "not-spiffe",
    WAYPOINT_WORKER_THREADS: "0",
    HTTP_IDLE_TIMEOUT: "soon",
  };
  const error = t.throws(() => readConfig(wrong, nowhere), { code: "RUNTIME_BAD_CONFIG" });
  for (const name of ["PATH_NORMALIZATION", "XFF_TRUSTED_HOPS", "TRUSTED_GATEWAYS", "WAYPOINT_WORKER_THREADS", "HTTP_IDLE_TIMEOUT"])
    t.true(error?.message.includes(name), name);
  t.throws(() => readConfig({}, nowhere), { message: /GATEWAY_NAME.*POD_NAMESPACE.*SERVICE_ACCOUNT/s });
});
