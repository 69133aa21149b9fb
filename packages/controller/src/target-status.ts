/** `WaypointAccepted`: what became of an object that names its targets, target by target (controller contract 4.3, 4.9). Pure. */
import type { ConditionWish, Service as KubeService, PolicyTargetReference } from "@fairway/kube";
import { isCore } from "./backends.ts";
import { listProblems } from "./unknown-fields.ts";
import { waypointClassNames } from "./waypoint-classes.ts";
import type { Binding, Waypoint } from "./waypoints.ts";

export interface TargetFacts {
  readonly rootNamespace: string;
  service(namespace: string, name: string): KubeService | undefined;
  binding(namespace: string, name: string): Binding | undefined;
  waypoint(namespace: string, name: string): Waypoint | undefined;
}

/** What is said about the object apart from its targets. */
export interface Findings {
  /** What cannot be read, in words. */
  readonly problems: readonly string[];
  /** What the mesh cannot do at all. */
  readonly unsupported: string | undefined;
  /** What a waypoint said against it. */
  readonly rejection: string | undefined;
}

interface TargetOutcome {
  readonly bound: boolean;
  readonly reason: string;
  readonly message: string;
}

const type = "WaypointAccepted";

export function waypointCondition(targets: readonly PolicyTargetReference[], namespace: string, facts: TargetFacts, findings: Findings): ConditionWish {
  const { problems, unsupported, rejection } = findings;
  if (unsupported !== undefined) return { type, status: "False", reason: "UnsupportedValue", message: unsupported };
  if (problems.length > 0) {
    const message = `fields or values that cannot be read: ${listProblems(problems)}; it is enforced as strictly as it can be`;
    return { type, status: "False", reason: "Invalid", message };
  }
  const outcomes = targets.map((target) => targetOutcome(target, namespace, facts));
  const failed = outcomes.filter(({ bound }) => !bound);
  const message = outcomes.map((outcome) => outcome.message).join("; ");
  const [first] = failed;
  if (first !== undefined && failed.length === outcomes.length) return { type, status: "False", reason: first.reason, message };
  if (rejection !== undefined) return { type, status: "False", reason: "Rejected", message: rejection };
  return { type, status: "True", reason: first === undefined ? "Accepted" : "PartiallyInvalid", message };
}

function targetOutcome({ kind, group, name, namespace: elsewhere }: PolicyTargetReference, namespace: string, facts: TargetFacts): TargetOutcome {
  const bound = (to: string): TargetOutcome => ({ bound: true, reason: "Accepted", message: `bound to ${to}` });
  const failure = (reason: string, message: string): TargetOutcome => ({ bound: false, reason, message });
  const named = `${kind} ${namespace}/${name}`;
  if (elsewhere !== undefined && elsewhere !== "" && elsewhere !== namespace) {
    return failure("Invalid", `targets in another namespace (${elsewhere}) are not supported`);
  }
  if (kind === "Service" && isCore(group)) {
    if (facts.service(namespace, name) === undefined) return failure("TargetNotFound", `${named} was not found`);
    const binding = facts.binding(namespace, name);
    return binding?.kind === "bound"
      ? bound(`${binding.waypoint.namespace}/${binding.waypoint.name}`)
      : failure("AncestorNotBound", `Service ${name} is not bound to a waypoint`);
  }
  if (kind === "Gateway") {
    return facts.waypoint(namespace, name) === undefined ? failure("TargetNotFound", `${named} was not found`) : bound(`${namespace}/${name}`);
  }
  if (kind === "GatewayClass") {
    const valid = namespace === facts.rootNamespace && waypointClassNames.includes(name);
    const classes = waypointClassNames.join(" and ");
    return valid ? bound(name) : failure("Invalid", `only the classes of waypoints (${classes}) can be targeted, and only from ${facts.rootNamespace}`);
  }
  return failure("Invalid", `targets of kind ${kind} are not supported`);
}
