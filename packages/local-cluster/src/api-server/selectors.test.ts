import test from "ava";
import { ApiError } from "./api-error.ts";
import type { KubeObject } from "./kube-object.ts";
import { labelSelectorObject, parseFieldSelector, parseLabelSelector } from "./selectors.ts";

const pod = (labels: Record<string, string>, more: object = {}): KubeObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "p", namespace: "n", uid: "", resourceVersion: "", creationTimestamp: "", labels },
  ...more,
});

test("label selectors match as kubectl documents them", (t) => {
  const labels = { app: "web", tier: "front", "istio.io/rev": "a", n: "7" };
  const cases: [string, boolean][] = [
    ["", true],
    ["app=web", true],
    ["app==web,tier!=back", true],
    ["app!=web", false],
    ["missing!=x", true],
    ["app in (web, api)", true],
    ["app notin (web)", false],
    ["missing notin (web)", true],
    ["istio.io/rev", true],
    ["!app", false],
    ["!missing,app", true],
    ["n>6,n<8", true],
    ["n>7", false],
    ["constructor", false],
    ["!constructor", true],
  ];
  for (const [selector, expected] of cases) t.is(parseLabelSelector(selector)(pod(labels)), expected, selector);
});

test("a selector that is none is a 400", (t) => {
  for (const selector of ["a b", "=x", "app in web", "app in (web", "a=b=c", "UPPER/x=y", "app=a b", "a".repeat(20_000)]) {
    const error = t.throws(() => parseLabelSelector(selector), { instanceOf: ApiError }, selector.slice(0, 20));
    t.is(error?.httpCode, 400);
  }
});

test("field selectors read the fields the reference lets one select on, and refuse others", (t) => {
  const type = { group: "", plural: "pods" };
  const running = pod({}, { spec: { nodeName: "node-1" }, status: { phase: "Running" } });
  t.true(parseFieldSelector("spec.nodeName=node-1,status.phase!=Failed", type)(running));
  t.true(parseFieldSelector("metadata.name==p", type)(running));
  t.false(parseFieldSelector("metadata.namespace=other", type)(running));
  t.true(parseFieldSelector("spec.nodeName=", type)(pod({})));
  t.throws(() => parseFieldSelector("spec.hostNetwork=true", type), { instanceOf: ApiError, message: /field label not supported/ });
});

test("selector objects follow their four operators", (t) => {
  const selector = labelSelectorObject({
    matchLabels: { app: "web" },
    matchExpressions: [
      { key: "tier", operator: "In", values: ["a", "b"] },
      { key: "old", operator: "DoesNotExist" },
      { key: "app", operator: "Exists" },
      { key: "zone", operator: "NotIn", values: ["x"] },
    ],
  });
  t.true(selector({ app: "web", tier: "a" }));
  t.false(selector({ app: "web", tier: "c" }));
  t.false(selector({ app: "web", tier: "a", old: "" }));
  t.false(selector({ app: "web", tier: "a", zone: "x" }));
});
