import type { AuthorizationPolicyObject } from "@fairway/kube";
import test from "ava";
import { policy, service } from "./fixtures.ts";
import { convertRequestPolicy, targetsOf } from "./request-policies.ts";
import { type TargetFacts, waypointCondition } from "./target-status.ts";

const facts: TargetFacts = {
  rootNamespace: "fairway-system",
  service: (_namespace, name) => (name === "gone" ? undefined : service(name)),
  binding: (namespace, name) =>
    name === "bound"
      ? {
          kind: "bound",
          waypoint: { namespace, name: "wp" },
          address: { destination: { kind: "hostname", namespace, hostname: "wp" }, hbonePort: 15008 },
          ready: true,
        }
      : { kind: "none" },
  waypoint: () => undefined,
};
const targets: readonly [string, NonNullable<AuthorizationPolicyObject["spec"]>, string, string, string][] = [
  ["a bound service", { targetRefs: [{ kind: "Service", name: "bound" }] }, "shop", "True", "Accepted"],
  ["a service without waypoint", { targetRefs: [{ kind: "Service", name: "free" }] }, "shop", "False", "AncestorNotBound"],
  ["a service that is not there", { targetRef: { kind: "Service", name: "gone" } }, "shop", "False", "TargetNotFound"],
  [
    "some of several",
    {
      targetRefs: [
        { kind: "Service", name: "bound" },
        { kind: "Service", name: "gone" },
      ],
    },
    "shop",
    "True",
    "PartiallyInvalid",
  ],
  ["a gateway that is not there", { targetRefs: [{ kind: "Gateway", name: "wp", group: "gateway.networking.k8s.io" }] }, "shop", "False", "TargetNotFound"],
  ["the class from elsewhere", { targetRefs: [{ kind: "GatewayClass", name: "istio-waypoint" }] }, "shop", "False", "Invalid"],
  ["the class from the root namespace", { targetRefs: [{ kind: "GatewayClass", name: "istio-waypoint" }] }, "fairway-system", "True", "Accepted"],
  ["another namespace's service", { targetRefs: [{ kind: "Service", name: "bound", namespace: "other" }] }, "shop", "False", "Invalid"],
  ["a service, and says more than is known", { targetRefs: [{ kind: "Service", name: "bound" }], rules: [{ form: [] }] } as never, "shop", "False", "Invalid"],
  [
    "a service, with an action that nobody answers for",
    { targetRefs: [{ kind: "Service", name: "bound" }], action: "CUSTOM" },
    "shop",
    "False",
    "UnsupportedValue",
  ],
  ["a kind that cannot be a target", { targetRefs: [{ kind: "Pod", name: "a" }] }, "shop", "False", "Invalid"],
];
for (const [title, spec, namespace, status, reason] of targets) {
  test(`a policy that targets ${title}`, (t) => {
    const { problems, unsupported } = convertRequestPolicy(policy("p", spec, { namespace }), facts.rootNamespace);
    t.like(waypointCondition(targetsOf(spec), namespace, facts, { problems, unsupported, rejection: undefined }), { type: "WaypointAccepted", status, reason });
  });
}
