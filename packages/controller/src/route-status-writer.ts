/** Writes what became of each route into its status, beside what other controllers say there. Only the leader writes. */
import { isDeepStrictEqual } from "node:util";
import {
  type Collection,
  datedConditions,
  derive,
  type KubeClient,
  type KubeObject,
  objectKey,
  type ResourceType,
  type RouteObject,
  type RouteParentStatus,
  resources,
} from "@fairway/kube";
import type { Clock, Logger } from "@fairway/runtime";
import { resolveBackend } from "./backends.ts";
import type { Inputs } from "./inputs.ts";
import type { Mesh } from "./mesh.ts";
import type { RejectionsOf } from "./refusals.ts";
import type { RouteKind } from "./route-reading.ts";
import { type ParentWish, parentWishes } from "./route-status.ts";
import { routeProblems } from "./routes.ts";
import { keepStatusOf } from "./status-queue.ts";
import { controllerName, isOurClass } from "./waypoint-classes.ts";

export interface RouteStatusOptions {
  readonly client: KubeClient;
  readonly inputs: Inputs;
  readonly mesh: Mesh;
  readonly rejections: RejectionsOf;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Wish {
  readonly generation: number | undefined;
  readonly parents: readonly ParentWish[];
}

type AnyRoute = RouteObject<unknown>;

/** Dispose to stop. */
export function keepRouteStatus(options: RouteStatusOptions): AsyncDisposable {
  const { inputs } = options;
  const stack = new AsyncDisposableStack();
  stack.use(keepKind(options, "HTTPRoute", resources.httpRoutes as ResourceType<AnyRoute>, inputs.httpRoutes));
  stack.use(keepKind(options, "GRPCRoute", resources.grpcRoutes as ResourceType<AnyRoute>, inputs.grpcRoutes));
  return stack;
}

function keepKind(options: RouteStatusOptions, kind: RouteKind, type: ResourceType<AnyRoute>, objects: Collection<AnyRoute>): AsyncDisposable {
  const { client, inputs, mesh, rejections, clock, log } = options;
  const { programs } = mesh;
  const wishes = derive<AnyRoute, Wish>(objects, (object, fetch) => {
    const reading = fetch.get(programs.routes, `${kind}/${objectKey(object)}`);
    if (reading === undefined) return undefined;
    const facts = programs.backendFacts(fetch);
    const problems = routeProblems(reading, (reference, from) => {
      const answer = resolveBackend(reference, from, facts);
      return answer.kind === "nowhere" ? answer : { kind: "cluster", cluster: "" };
    });
    const parents = parentWishes(reading, {
      problems,
      service: (key) => fetch.get(inputs.services, key),
      binding: (key) => fetch.get(mesh.serviceBindings, key),
      isForeign: (binding) => {
        if (binding.kind !== "bound") return false;
        const waypoint = fetch.get(mesh.waypoints, `${binding.waypoint.namespace}/${binding.waypoint.name}`);
        const gatewayClass = waypoint === undefined ? undefined : fetch.get(inputs.gatewayClasses, waypoint.className);
        return gatewayClass !== undefined && !isOurClass(gatewayClass);
      },
      rejection: (key, binding, port) => rejections.ofRoutes(fetch, binding, fetch.get(mesh.meshServices, key)?.hostname, port),
    });
    return { generation: object.metadata.generation, parents };
  });
  const stack = new AsyncDisposableStack();
  stack.use(wishes);
  stack.use(
    keepStatusOf({
      type,
      objects,
      wishes,
      clock,
      log,
      write: async (object, wish) => {
        const known = object.status?.parents ?? [];
        const parents = merged(known, wish, new Date(clock.now()));
        if (isDeepStrictEqual(plain(parents), plain(known))) return;
        await write(client, type, object, parents);
      },
    }),
  );
  return stack;
}

/** The entries of others as they are, then ours, in the order of the route's parents. */
function merged(known: readonly RouteParentStatus[], { generation, parents }: Wish, now: Date): RouteParentStatus[] {
  const foreign = known.filter((entry) => entry.controllerName !== controllerName);
  const ours = parents.map(({ parentRef, conditions }): RouteParentStatus => {
    const before = known.find((entry) => entry.controllerName === controllerName && isDeepStrictEqual(plain(entry.parentRef), plain(parentRef)));
    return { parentRef, controllerName, conditions: datedConditions(conditions, before?.conditions ?? [], { generation, now }) };
  });
  return [...foreign, ...ours];
}

/** The list is one value to the API: the version makes sure that nobody's entry is lost. */
async function write(client: KubeClient, type: ResourceType<AnyRoute>, { metadata }: KubeObject, parents: readonly RouteParentStatus[]): Promise<void> {
  const { name, namespace, resourceVersion } = metadata;
  const patch = { metadata: { ...(resourceVersion === undefined ? {} : { resourceVersion }) }, status: { parents } };
  await client.mergePatch(type, name, namespace, patch, { subresource: "status" });
}

/** Fields that are undefined and fields that are not there are one thing on the wire. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
