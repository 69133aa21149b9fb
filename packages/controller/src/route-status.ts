/** What became of a route at each Service that it names as a parent (controller contract 5.1, 5.3). Pure. */
import type { ConditionWish, Service as KubeService, RouteParentReference } from "@fairway/kube";
import type { RouteProblem, RouteReading } from "./route-reading.ts";
import { listProblems } from "./unknown-fields.ts";
import { isServiceParent, mayRoute, serviceParent } from "./waypoint-programs.ts";
import type { Binding } from "./waypoints.ts";

export interface RouteFacts {
  /** By key. */
  service(key: string): KubeService | undefined;
  binding(key: string): Binding | undefined;
  /** Whether somebody else runs the waypoint, and speaks about the route in its own entry. */
  isForeign(binding: Binding): boolean;
  /** What a waypoint said against the routes of this parent. */
  rejection(key: string, binding: Binding, port: number | undefined): string | undefined;
  /** Of the whole route, its references included. */
  readonly problems: readonly RouteProblem[];
}

export interface ParentWish {
  readonly parentRef: RouteParentReference;
  readonly conditions: readonly ConditionWish[];
}

/** One entry per parent that is a Service; parents of other kinds concern other controllers. */
export function parentWishes(reading: RouteReading, facts: RouteFacts): readonly ParentWish[] {
  return reading.parents.filter(isServiceParent).flatMap((parentRef) => {
    const key = serviceParent(parentRef, reading.namespace);
    const binding = facts.binding(key) ?? { kind: "none" };
    if (facts.isForeign(binding)) return [];
    return [{ parentRef, conditions: conditionsAt(reading, parentRef, { key, binding, facts }) }];
  });
}

interface Place {
  readonly key: string;
  readonly binding: Binding;
  readonly facts: RouteFacts;
}

function conditionsAt(reading: RouteReading, parent: RouteParentReference, place: Place): readonly ConditionWish[] {
  const service = place.facts.service(place.key);
  const refusal = refusalAt(reading, parent, service, place);
  const unresolved = place.facts.problems.filter(({ condition }) => condition === "ResolvedRefs");
  const [first] = unresolved;
  const resolved: ConditionWish =
    first === undefined
      ? { type: "ResolvedRefs", status: "True", reason: "ResolvedRefs", message: "All references resolved" }
      : { type: "ResolvedRefs", status: "False", reason: first.reason, message: listProblems(unresolved.map(({ message }) => message)) };
  if (refusal !== undefined) return [{ type: "Accepted", status: "False", ...refusal }, resolved];
  const accepted: ConditionWish = { type: "Accepted", status: "True", reason: "Accepted", message: "Route was valid" };
  return [accepted, resolved, ...partlyInvalid(place.facts.problems), waypointAt(place)];
}

/** Why the route does not count at this parent. */
function refusalAt(
  reading: RouteReading,
  { port }: RouteParentReference,
  service: KubeService | undefined,
  { key, binding, facts }: Place,
): { readonly reason: string; readonly message: string } | undefined {
  if (service === undefined) return { reason: "NoMatchingParent", message: `Service ${key} was not found` };
  if (port !== undefined && !(service.spec?.ports ?? []).some((candidate) => candidate.port === port)) {
    return { reason: "NoMatchingParent", message: `Service ${key} has no port ${port}` };
  }
  const waypoint = binding.kind === "bound" ? binding.waypoint : undefined;
  const namespace = service.metadata.namespace ?? "";
  if (!mayRoute(reading.namespace, namespace, waypoint)) {
    const message = `routes of a Service count from its own namespace (${namespace}) and from its waypoint's, not from the namespaces of its clients`;
    return { reason: "NotAllowedByListeners", message };
  }
  const unreadable = facts.problems.filter(({ condition }) => condition === "Accepted");
  const [first] = unreadable;
  const usable = reading.rules.some(({ matches, action }) => matches.length > 0 && action.kind !== "broken");
  if (first !== undefined && !usable) return { reason: first.reason, message: listProblems(unreadable.map(({ message }) => message)) };
  const rejection = facts.rejection(key, binding, port);
  return rejection === undefined ? undefined : { reason: "Rejected", message: rejection };
}

function partlyInvalid(problems: readonly RouteProblem[]): readonly ConditionWish[] {
  const unreadable = problems.filter(({ condition }) => condition === "Accepted").map(({ message }) => message);
  if (unreadable.length === 0) return [];
  const message = `Dropped matches, or rules that answer 500: ${listProblems(unreadable)}`;
  return [{ type: "PartiallyInvalid", status: "True", reason: "UnsupportedValue", message }];
}

function waypointAt({ binding }: Place): ConditionWish {
  const type = "ResolvedWaypoints";
  const reason = "ResolvedWaypoints";
  switch (binding.kind) {
    case "bound": {
      const named = `${binding.waypoint.namespace}/${binding.waypoint.name}`;
      if (binding.ready) return { type, status: "True", reason, message: `Parent is bound to waypoint ${named}` };
      return { type, status: "False", reason, message: `waypoint ${named} is missing or not ready; requests to the parent are denied until it is` };
    }
    case "rejected":
      return { type, status: "False", reason, message: binding.message };
    case "none": {
      const message = "istio.io/use-waypoint label missing from parent and parent namespace; in ambient mode, route will not be respected";
      return { type, status: "False", reason, message };
    }
  }
}
