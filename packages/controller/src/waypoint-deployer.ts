/**
 * Runs waypoints: our GatewayClasses exist, every Gateway of them has its pods, and its status says whether they can be reached
 * (controller contract 3.1, 3.9, 3.10). Nothing is deleted here: what was deployed is owned by its Gateway and goes with it.
 */
import { isDeepStrictEqual } from "node:util";
import {
  applyConditions,
  type Collection,
  type Deployment,
  derive,
  type GatewayObject,
  index,
  type KubeClient,
  type KubeObject,
  MutableCollection,
  type ResourceType,
  resources,
  type Service,
  type ServiceAccount,
  WorkQueue,
} from "@fairway/kube";
import { type Clock, errorCode, type Logger, MeshError } from "@fairway/runtime";
import { type GatewayProblem, gatewayStatus } from "./gateway-status.ts";
import type { Inputs } from "./inputs.ts";
import { annotation, isOurRevision, label } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";
import { untilAborted } from "./until-aborted.ts";
import { controllerName, controllerVersion, isHandsOff, isOurClass, managedWaypoint, waypointClassNames, waypointObjectName } from "./waypoint-classes.ts";
import { type WaypointPodSettings, waypointObjects } from "./waypoint-objects.ts";

export interface DeployerOptions {
  readonly client: KubeClient;
  readonly inputs: Pick<Inputs, "gateways" | "gatewayClasses" | "services" | "endpointSlices">;
  readonly settings: MeshSettings;
  readonly pod: WaypointPodSettings;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Problem extends GatewayProblem {
  /** Of the Gateway. */
  readonly key: string;
}

const fieldManager = "istio.io/gateway-controller";
const statusManager = "fairway-gateway-status";
const classConditions = { fieldManager: "fairway-gateway-class-status", owned: ["Accepted"] } as const;
const classRetryMs = 10_000;
const managedSelector = `${label.gatewayManaged}=${managedWaypoint}`;

/** Runs while this replica leads. */
export async function runWaypoints(options: DeployerOptions, signal: AbortSignal): Promise<void> {
  const { client, inputs, settings, pod, clock, log } = options;
  await using stack = new AsyncDisposableStack();
  const deployments = stack.use(client.collection(resources.deployments, { labelSelector: managedSelector, reduce: withoutStatus }));
  const accounts = stack.use(client.collection(resources.serviceAccounts, { labelSelector: managedSelector }));
  const ours = stack.use(
    derive(inputs.gateways, (gateway, fetch): GatewayObject | undefined => {
      if (!isOurClass(fetch.get(inputs.gatewayClasses, gateway.spec?.gatewayClassName ?? ""))) return undefined;
      const isOurs = gateway.metadata.deletionTimestamp === undefined && isOurRevision(gateway.metadata, settings.revision);
      return isOurs && !isHandsOff(gateway) ? gateway : undefined;
    }),
  );
  // What is deployed follows from these; a status that changes deploys nothing.
  const wanted = stack.use(
    derive(
      ours,
      ({ metadata: { name, namespace, uid, labels, annotations }, spec }): GatewayObject => ({
        metadata: { name, ...(namespace && { namespace }), ...(uid && { uid }), labels: labels ?? {}, annotations: annotations ?? {} },
        ...(spec && { spec }),
      }),
    ),
  );
  const problems = new MutableCollection<Problem>(({ key }) => key);
  const children = [
    derive<Deployment, object>(deployments, ({ metadata, spec }) => ({ labels: metadata.labels, spec })),
    derive<ServiceAccount, object>(accounts, ({ metadata }) => ({ labels: metadata.labels })),
    derive<Service, object>(inputs.services, ({ metadata, spec }) =>
      metadata.labels?.[label.gatewayManaged] === managedWaypoint ? { labels: metadata.labels, spec } : undefined,
    ),
  ];
  for (const child of children) stack.use(child);

  const deploying = stack.use(
    new WorkQueue({
      name: "deployment of waypoint",
      log,
      clock,
      handle: async (key) => {
        const gateway = wanted.get(key);
        if (gateway === undefined) problems.delete(key);
        else await deploy({ client, gateway, settings, pod, problems });
      },
    }),
  );
  const slices = index(inputs.endpointSlices, ({ metadata }) => [`${metadata.namespace ?? ""}/${metadata.labels?.[label.serviceName] ?? ""}`]);
  stack.use(slices);
  const facts = stack.use(
    derive(ours, (gateway, fetch) => {
      const key = keyOf(gateway);
      const service = fetch.get(inputs.services, `${gateway.metadata.namespace ?? ""}/${waypointObjectName(gateway)}`);
      const own = service?.metadata.labels?.[label.gatewayManaged] === managedWaypoint ? service : undefined;
      const endpoints = own === undefined ? [] : fetch.lookup(slices, keyOf(own)).flatMap((slice) => slice.endpoints ?? []);
      const hasReadyEndpoint = endpoints.some(({ conditions }) => conditions?.ready === true);
      return { service: own, hasReadyEndpoint, problem: fetch.get(problems, key) };
    }),
  );
  const saying = stack.use(
    new WorkQueue({
      name: "status of waypoint",
      log,
      clock,
      handle: async (key) => {
        const gateway = ours.get(key);
        const known = facts.get(key);
        if (gateway === undefined || known === undefined) return;
        const status = gatewayStatus(gateway, known, settings, new Date(clock.now()));
        if (isDeepStrictEqual(withoutAbsent(status), withoutAbsent(gateway.status))) return;
        const { name, namespace } = gateway.metadata;
        const body: GatewayObject = { metadata: { name, ...(namespace === undefined ? {} : { namespace }) }, status };
        await client.apply(resources.gateways, body, { fieldManager: statusManager, force: true, subresource: "status" });
      },
    }),
  );

  await untilAborted(
    Promise.all([deployments.synced, accounts.synced]).then(() => undefined),
    signal,
  );
  if (signal.aborted) return;
  stack.use(follow(wanted, (key) => deploying.add(key)));
  for (const child of children) {
    stack.use(
      child.subscribe((events) => {
        for (const { key, object } of events) deploying.add(ownerOf(key, object));
      }),
    );
  }
  stack.use(follow(ours, (key) => saying.add(key)));
  stack.use(follow(facts, (key) => saying.add(key)));
  await keepClasses(options, signal);
}

/** Our classes are there, and say that they are ours. Until the Gateway API is installed there is nothing to do but to wait. */
async function keepClasses({ client, inputs: { gatewayClasses }, clock, log }: DeployerOptions, signal: AbortSignal): Promise<void> {
  let served = true;
  while (!signal.aborted) {
    try {
      for (const name of waypointClassNames) {
        const known = gatewayClasses.get(name);
        if (known === undefined) await client.create(resources.gatewayClasses, { metadata: { name }, spec: { controllerName } });
        else if (isOurClass(known)) {
          const wish = { type: "Accepted", status: "True", reason: "Accepted", message: "Handled by the Fairway controller" } as const;
          await applyConditions(client, resources.gatewayClasses, known, [wish], { ...classConditions, now: new Date(clock.now()) });
        }
      }
      served = true;
    } catch (thrown) {
      const code = errorCode(thrown);
      if (code === "KUBE_NOT_FOUND" && served) {
        served = false;
        log.info("waypoints cannot be deployed before the Gateway API is installed: its definitions are missing");
      } else if (code !== "KUBE_NOT_FOUND" && code !== "KUBE_CONFLICT") {
        log.warn("the GatewayClasses of waypoints cannot be kept; trying again", { error: MeshError.from(thrown, "KUBE_UNAVAILABLE") });
      }
    }
    await clock.sleep(classRetryMs, { signal }).catch(() => undefined);
  }
}

interface Deploying {
  readonly client: KubeClient;
  readonly gateway: GatewayObject;
  readonly settings: MeshSettings;
  readonly pod: WaypointPodSettings;
  readonly problems: MutableCollection<Problem>;
}

async function deploy({ client, gateway, settings, pod, problems }: Deploying): Promise<void> {
  const key = keyOf(gateway);
  const parameters = gateway.spec?.infrastructure?.parametersRef;
  if (parameters !== undefined) {
    const message = `spec.infrastructure.parametersRef (${parameters.kind} ${parameters.name}) is not supported; remove it, and use the chart's waypoint values`;
    problems.set({ key, reason: "InvalidParameters", message });
    return;
  }
  const { serviceAccount, service, deployment } = waypointObjects(gateway, settings, pod);
  const foreign: string[] = [];
  // A service account may be the user's own; it is used as it is.
  await applyOwned(client, resources.serviceAccounts, serviceAccount);
  if (!(await applyOwned(client, resources.services, service))) foreign.push(`Service ${keyOf(service)}`);
  if (!(await applyOwned(client, resources.deployments, deployment))) foreign.push(`Deployment ${keyOf(deployment)}`);
  if (foreign.length > 0) {
    const message = `${foreign.join(" and ")} exists and is not ours (label ${label.gatewayManaged}); rename it, or the Gateway`;
    problems.set({ key, reason: "Invalid", message });
  } else problems.delete(key);
  if (gateway.metadata.annotations?.[annotation.controllerVersion] === String(controllerVersion)) return;
  const patch = { metadata: { annotations: { [annotation.controllerVersion]: String(controllerVersion) } } };
  await client.mergePatch(resources.gateways, gateway.metadata.name, gateway.metadata.namespace, patch);
}

/** False, and nothing written, when the object is there and was not made for a Gateway. The version pins what was looked at. */
async function applyOwned<T extends KubeObject>(client: KubeClient, type: ResourceType<T>, object: T): Promise<boolean> {
  const { name, namespace } = object.metadata;
  const existing = await client.get(type, name, namespace).catch((thrown: unknown) => {
    if (errorCode(thrown) === "KUBE_NOT_FOUND") return undefined;
    throw thrown;
  });
  if (existing !== undefined && existing.metadata.labels?.[label.gatewayManaged] !== managedWaypoint) return false;
  const resourceVersion = existing?.metadata.resourceVersion;
  const pinned = resourceVersion === undefined ? object : { ...object, metadata: { ...object.metadata, resourceVersion } };
  await client.apply(type, pinned, { fieldManager, force: true });
  return true;
}

/** What is there now, and then every change. */
function follow<T>(collection: Collection<T>, found: (key: string) => void): Disposable {
  for (const [key] of collection.entries()) found(key);
  return collection.subscribe((events) => {
    for (const { key } of events) found(key);
  });
}

/** Key of the Gateway that an object was deployed for. */
function ownerOf(key: string, object: object): string {
  const { labels = {} } = object as { labels?: Record<string, string> };
  return `${key.split("/")[0] ?? ""}/${labels[label.gatewayName] ?? ""}`;
}

function keyOf({ metadata }: KubeObject): string {
  return `${metadata.namespace ?? ""}/${metadata.name}`;
}

function withoutStatus({ status: _status, ...deployment }: Deployment): Deployment {
  return deployment;
}

/** Fields that are undefined and fields that are not there are one thing on the wire. */
function withoutAbsent(value: unknown): unknown {
  return value === undefined ? {} : JSON.parse(JSON.stringify(value));
}
