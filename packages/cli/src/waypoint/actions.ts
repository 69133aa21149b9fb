/** What `fairway waypoint` does, through the Kubernetes API alone. */
import { type GatewayObject, type KubeClient, resources } from "@fairway/kube";
import { errorCode, MeshError } from "@fairway/runtime";
import pc from "picocolors";
import { stringify } from "yaml";
import { eventually } from "../eventually.ts";
import { type Progress, table } from "../output.ts";
import { isWaypoint, summarise, useWaypointLabel, type WaypointSummary, type WaypointWish, waypointGateway } from "./gateway.ts";

const fieldManager = "fairway";
const readyTimeoutMs = 90_000;

export interface Output {
  readonly print: (text: string) => void;
  readonly progress: Progress;
  readonly json: boolean;
}

/** The manifest as `kubectl apply -f -` takes it. */
export function generate(wish: WaypointWish, { print, json }: Output): void {
  const gateway = waypointGateway(wish);
  print(json ? `${JSON.stringify(gateway)}\n` : stringify(gateway));
}

export interface ApplyOptions {
  readonly enrollNamespace: boolean;
  /** Take the label of the namespace over when it names another waypoint. */
  readonly overwrite: boolean;
  readonly wait: boolean;
}

/** Creates or changes the Gateway, and labels the namespace when asked. Throws CLI_LABEL_TAKEN, CLI_NO_GATEWAY_API, CLI_WAYPOINT_NOT_READY. */
export async function apply(client: KubeClient, wish: WaypointWish, { enrollNamespace, overwrite, wait }: ApplyOptions, output: Output): Promise<void> {
  const gateway = waypointGateway(wish);
  const { name } = gateway.metadata;
  if (enrollNamespace && !overwrite) await refuseTakenLabel(client, wish.namespace, name);
  await withGatewayApi(() => client.apply(resources.gateways, gateway, { fieldManager, force: true }));
  output.print(`waypoint ${wish.namespace}/${name} applied\n`);
  if (enrollNamespace) {
    await client.mergePatch(resources.namespaces, wish.namespace, undefined, { metadata: { labels: { [useWaypointLabel]: name } } });
    output.print(`namespace ${wish.namespace} labelled with ${useWaypointLabel}=${name}\n`);
  }
  if (wait) await waitUntilReady(client, wish.namespace, name, output);
}

export async function list(client: KubeClient, namespace: string | undefined, { print, json }: Output): Promise<void> {
  const waypoints = await findWaypoints(client, namespace);
  if (json) print(`${JSON.stringify(waypoints)}\n`);
  else if (waypoints.length === 0)
    print(`No waypoints${namespace === undefined ? "" : ` in namespace ${namespace}`}. Create one with: fairway waypoint apply\n`);
  else
    print(
      table(
        ["NAMESPACE", "NAME", "FOR", "REVISION", "PROGRAMMED"],
        waypoints.map((waypoint) => [waypoint.namespace, waypoint.name, scopeOf(waypoint), waypoint.revision, coloured(waypoint.programmed)]),
      ),
    );
}

/** False when any of them does not work, so that a script can tell. */
export async function status(client: KubeClient, namespace: string, name: string | undefined, { print, json }: Output): Promise<boolean> {
  const waypoints = (await findWaypoints(client, namespace)).filter((waypoint) => name === undefined || waypoint.name === name);
  if (waypoints.length === 0)
    throw new MeshError("CLI_NO_WAYPOINT", `there is no waypoint ${name ?? ""} in namespace ${namespace}; see: fairway waypoint list -A`);
  if (json) print(`${JSON.stringify(waypoints)}\n`);
  else {
    print(
      table(
        ["NAME", "FOR", "PROGRAMMED", "ADDRESSES"],
        waypoints.map((waypoint) => [waypoint.name, scopeOf(waypoint), coloured(waypoint.programmed), waypoint.addresses.join(", ") || "none yet"]),
      ),
    );
    for (const { name: of, complaints } of waypoints) for (const complaint of complaints) print(`${pc.yellow("!")} ${of}: ${complaint}\n`);
  }
  return waypoints.every(({ programmed }) => programmed === "True");
}

/** Deletes by name, or all of a namespace. A namespace label that named one of them is left and named: it keeps traffic closed on purpose. */
export async function remove(client: KubeClient, namespace: string, names: readonly string[], { print }: Output): Promise<void> {
  const labelled = (await client.get(resources.namespaces, namespace)).metadata.labels?.[useWaypointLabel];
  for (const name of names) {
    await client.delete(resources.gateways, name, namespace);
    print(`waypoint ${namespace}/${name} deleted\n`);
    if (labelled === name)
      print(
        `${pc.yellow("!")} namespace ${namespace} still asks for it, so its traffic is refused; to go without: kubectl label namespace ${namespace} ${useWaypointLabel}-\n`,
      );
  }
}

export async function findWaypoints(client: KubeClient, namespace: string | undefined): Promise<readonly WaypointSummary[]> {
  const gateways = await withGatewayApi(() => client.list(resources.gateways, namespace === undefined ? {} : { namespace }));
  return gateways
    .filter(isWaypoint)
    .map(summarise)
    .sort((a, b) => a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name));
}

async function refuseTakenLabel(client: KubeClient, namespace: string, name: string): Promise<void> {
  const current = (await client.get(resources.namespaces, namespace)).metadata.labels?.[useWaypointLabel];
  if (current !== undefined && current !== name)
    throw new MeshError("CLI_LABEL_TAKEN", `namespace ${namespace} already uses the waypoint ${current}; repeat with --overwrite to change that`);
}

async function waitUntilReady(client: KubeClient, namespace: string, name: string, { progress }: Output): Promise<void> {
  let last: GatewayObject | undefined;
  try {
    await progress.step(`waiting for waypoint ${namespace}/${name}`, () =>
      eventually(
        `waypoint ${namespace}/${name}`,
        async () => {
          last = await client.get(resources.gateways, name, namespace);
          return summarise(last).programmed === "True" ? true : undefined;
        },
        { timeoutMs: readyTimeoutMs },
      ),
    );
  } catch (cause) {
    const complaints = last === undefined ? [] : summarise(last).complaints;
    throw new MeshError(
      "CLI_WAYPOINT_NOT_READY",
      `waypoint ${namespace}/${name} is not programmed after ${readyTimeoutMs / 1000} s: ${complaints.join("; ") || "no reason given"}; see: kubectl -n ${namespace} describe gateway ${name}`,
      { cause },
    );
  }
}

async function withGatewayApi<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
    throw new MeshError("CLI_NO_GATEWAY_API", "the cluster does not know gateways.gateway.networking.k8s.io; install the Gateway API's definitions first", {
      cause: thrown,
    });
  }
}

function scopeOf({ trafficType, serviceAccount }: WaypointSummary): string {
  return serviceAccount === undefined ? trafficType : `service account ${serviceAccount}`;
}

function coloured(programmed: WaypointSummary["programmed"]): string {
  return programmed === "True" ? pc.green(programmed) : pc.yellow(programmed);
}
