import { errorCode } from "@fairway/runtime";
import test from "ava";
import { readConfig } from "./config.ts";

test("a node name is enough; the rest has the contract's defaults", (t) => {
  const config = readConfig({ NODE_NAME: "node-1" });
  t.like(config, {
    nodeName: "node-1",
    zdsSocket: "/var/run/ztunnel/ztunnel.sock",
    pluginSocket: "/var/run/fairway-cni/agent.sock",
    pluginHostSocket: "/var/run/fairway-cni/agent.sock",
    cniBinDir: "/host/opt/cni/bin",
    cniHostBinDir: "/opt/cni/bin",
    cniConfDir: "/host/etc/cni/net.d",
    hostProc: "/host/proc",
    probeIpv4: "169.254.7.127",
    daemonSetName: "fairway-node-agent",
    healthPort: 8000,
    metricsPort: 15014,
    dnsCapture: true,
  });
  t.deepEqual(config.excludeNamespaces, ["kube-system"]);
  t.deepEqual(config.probeSource, { kind: "scan" });
});

test("values are read as what they mean", (t) => {
  const config = readConfig({
    NODE_NAME: "n",
    EXCLUDE_NAMESPACES: "a, b,,",
    PROBE_SOURCE: "mark:0x2A",
    AMBIENT_DNS_CAPTURE: "FALSE",
    DAEMONSET_NAME: "",
    KUBECONFIG: "",
  });
  t.deepEqual(config.excludeNamespaces, ["a", "b"]);
  t.deepEqual(config.probeSource, { kind: "mark", mark: 42 });
  t.false(config.dnsCapture);
  t.is(config.daemonSetName, undefined);
  t.is(config.kubeconfig, undefined);
  t.deepEqual(readConfig({ NODE_NAME: "n", EXCLUDE_NAMESPACES: "" }).excludeNamespaces, []);
  t.deepEqual(readConfig({ NODE_NAME: "n", PROBE_SOURCE: "skuid:1001" }).probeSource, { kind: "user", uid: 1001 });
  t.deepEqual(readConfig({ NODE_NAME: "n", PROBE_SOURCE: "any-local" }).probeSource, { kind: "any-local" });
});

test("what is wrong is named, all of it", (t) => {
  const error = t.throws(() => readConfig({ PROBE_SOURCE: "skuid:x; flush ruleset", HOST_PROBE_SNAT_IP: "here", HEALTH_PORT: "99999" }));
  t.is(errorCode(error), "RUNTIME_BAD_CONFIG");
  for (const name of ["NODE_NAME", "PROBE_SOURCE", "HOST_PROBE_SNAT_IP", "HEALTH_PORT"]) t.true(error.message.includes(name), name);
});
