import type { Namespace, Pod } from "@fairway/kube";
import test from "ava";
import { type Enrolment, enrolmentOf } from "./enrolment.ts";

const options = { excludeNamespaces: ["kube-system"], systemNamespace: "fairway-system", dnsCapture: false };

interface Case {
  readonly title: string;
  readonly pod?: { namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string>; hostNetwork?: boolean; phase?: string };
  readonly namespace?: Record<string, string> | undefined;
  readonly expected: "enrol" | Extract<Enrolment, { kind: "leave-out" }>["reason"];
}

const ambient = { "istio.io/dataplane-mode": "ambient" };
const none = { "istio.io/dataplane-mode": "none" };

const cases: readonly Case[] = [
  { title: "no label at all", expected: "not-labelled" },
  { title: "the namespace's label", namespace: ambient, expected: "enrol" },
  { title: "the pod's own label, in a namespace that is not labelled", pod: { labels: ambient }, expected: "enrol" },
  { title: "the pod's own label, in a namespace that says none", pod: { labels: ambient }, namespace: none, expected: "enrol" },
  { title: "a pod that opts out of a labelled namespace", pod: { labels: none }, namespace: ambient, expected: "opted-out" },
  { title: "an unknown value on the pod does not opt out", pod: { labels: { "istio.io/dataplane-mode": "sidecar" } }, namespace: ambient, expected: "enrol" },
  { title: "an unknown value on the namespace", namespace: { "istio.io/dataplane-mode": "yes" }, expected: "not-labelled" },
  { title: "a pod on the host's network", pod: { hostNetwork: true, labels: ambient }, namespace: ambient, expected: "host-network" },
  { title: "a pod with a sidecar", pod: { annotations: { "sidecar.istio.io/status": "" }, labels: ambient }, expected: "sidecar" },
  { title: "an excluded namespace", pod: { namespace: "kube-system", labels: ambient }, namespace: ambient, expected: "excluded-namespace" },
  { title: "ztunnel itself", pod: { namespace: "fairway-system", labels: { ...ambient, app: "ztunnel" } }, expected: "ztunnel" },
  { title: "an application called ztunnel elsewhere", pod: { labels: { ...ambient, app: "ztunnel" } }, expected: "enrol" },
  { title: "a job that is done", pod: { phase: "Succeeded" }, namespace: ambient, expected: "terminal" },
  { title: "a pod that failed", pod: { phase: "Failed" }, namespace: ambient, expected: "terminal" },
  { title: "a pod that starts", pod: { phase: "Pending" }, namespace: ambient, expected: "enrol" },
];

for (const { title, pod, namespace, expected } of cases) {
  test(`${title}: ${expected}`, (t) => {
    const decision = enrolmentOf(podOf(pod), namespaceOf(namespace), options);
    t.is(decision.kind === "enrol" ? "enrol" : decision.reason, expected);
  });
}

test("a namespace that is not known yet enrols nobody by its label", (t) => {
  t.is(enrolmentOf(podOf(), undefined, options).kind, "leave-out");
  t.is(enrolmentOf(podOf({ labels: ambient }), undefined, options).kind, "enrol");
});

test("annotations change how a pod is captured", (t) => {
  const annotations = {
    "ambient.istio.io/bypass-inbound-capture": "true",
    "ambient.istio.io/dns-capture": "true",
    "istio.io/reroute-virtual-interfaces": "docker0, k6t-eth0",
  };
  t.deepEqual(enrolmentOf(podOf({ labels: ambient, annotations }), undefined, options), {
    kind: "enrol",
    capture: { bypassInbound: true, dnsCapture: true, virtualInterfaces: ["docker0", "k6t-eth0"] },
    warnings: [],
  });
});

test("annotations that make no sense are left out with a warning, and never become part of a rule", (t) => {
  const annotations = {
    "ambient.istio.io/bypass-inbound-capture": "yes",
    "istio.io/reroute-virtual-interfaces": 'eth0" accept; flush ruleset #,a-name-that-is-too-long,eth1',
  };
  const decision = enrolmentOf(podOf({ labels: ambient, annotations }), undefined, options);
  if (decision.kind !== "enrol") return t.fail();
  t.deepEqual(decision.capture, { bypassInbound: false, dnsCapture: false, virtualInterfaces: ["eth1"] });
  return t.is(decision.warnings.length, 3);
});

function podOf({ namespace = "shop", labels = {}, annotations = {}, hostNetwork, phase = "Running" }: Case["pod"] = {}): Pod {
  return { metadata: { name: "a", namespace, labels, annotations }, spec: hostNetwork === undefined ? {} : { hostNetwork }, status: { phase } };
}

function namespaceOf(labels: Record<string, string> | undefined): Namespace {
  return { metadata: { name: "shop", ...(labels === undefined ? {} : { labels }) } };
}
