/** Which pods are guarded, and against whom: those behind a waypoint that refuses requests for them, unless somebody opted out. */
import { type Collection, type Derived, derive, type Service as KubeService, type Namespace, type Pod } from "@fairway/kube";
import type { AuthorizationPolicy } from "@fairway/model";
import { servedProtocol } from "./clusters.ts";
import { type Enforcement, refusesRequests } from "./enforcement.ts";
import { type GuardedPort, guardPolicy, mayBypass } from "./guards.ts";
import type { Inputs } from "./inputs.ts";
import type { MeshSettings } from "./settings.ts";
import type { Binding, Waypoint, WaypointReference } from "./waypoints.ts";
import { podPorts } from "./workloads.ts";

export interface GuardSources {
  readonly inputs: Pick<Inputs, "pods" | "services">;
  readonly settings: MeshSettings;
  readonly waypoints: Collection<Waypoint>;
  readonly serviceBindings: Collection<Binding>;
  readonly podBindings: Collection<Binding>;
  /** Keys of the services that each pod belongs to. */
  readonly podServices: Collection<readonly string[]>;
  readonly namespaceFacts: Collection<Namespace>;
  readonly enforcement: Enforcement;
}

type Guarding = Pick<Waypoint, "namespace" | "name" | "className" | "serviceAccount">;

/** By the key of the Pod object: the policy that guards it. */
export function deriveGuards(sources: GuardSources): Derived<AuthorizationPolicy> {
  const { inputs, settings, waypoints, namespaceFacts, enforcement } = sources;
  const serviceGuards = derive<KubeService, Guarding>(inputs.services, (service, fetch) => {
    const { namespace = "", name } = service.metadata;
    const binding = fetch.get(sources.serviceBindings, `${namespace}/${name}`);
    if (binding?.kind !== "bound" || mayBypass(service)) return undefined;
    const waypoint = guarding(fetch.get(waypoints, keyOf(binding.waypoint)), binding.waypoint);
    return refusesRequests(enforcement.at(fetch, waypoint, { namespace, name })) ? waypoint : undefined;
  });
  return derive<Pod, AuthorizationPolicy>(inputs.pods, (pod, fetch) => {
    const { namespace = "", name } = pod.metadata;
    const key = `${namespace}/${name}`;
    const guarded: GuardedPort[] = [];
    const binding = fetch.get(sources.podBindings, key);
    if (binding?.kind === "bound") {
      const waypoint = guarding(fetch.get(waypoints, keyOf(binding.waypoint)), binding.waypoint);
      if (refusesRequests(enforcement.at(fetch, waypoint, undefined))) guarded.push({ port: undefined, waypoint });
    }
    for (const serviceKey of fetch.get(sources.podServices, key) ?? []) {
      const waypoint = fetch.get(serviceGuards, serviceKey);
      const service = waypoint === undefined ? undefined : fetch.get(inputs.services, serviceKey);
      if (waypoint === undefined || service === undefined) continue;
      const served = new Set((service.spec?.ports ?? []).filter((port) => servedProtocol(port) !== undefined).map(({ port }) => port));
      for (const { servicePort, targetPort } of podPorts(service, pod)) if (served.has(servicePort)) guarded.push({ port: targetPort, waypoint });
    }
    if (guarded.length === 0 || mayBypass(pod, fetch.get(namespaceFacts, namespace))) return undefined;
    return guardPolicy(namespace, guarded, settings.trustDomain);
  });
}

/** A waypoint that is missing guards as well: what needs it is refused until it is there. */
function guarding(known: Waypoint | undefined, { namespace, name }: WaypointReference): Guarding {
  if (known === undefined) return { namespace, name, className: "", serviceAccount: name };
  return { namespace, name, className: known.className, serviceAccount: known.serviceAccount };
}

function keyOf({ namespace, name }: WaypointReference): string {
  return `${namespace}/${name}`;
}
