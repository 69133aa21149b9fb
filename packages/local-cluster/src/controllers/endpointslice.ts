/** Keeps the EndpointSlices of services with a selector as their pods come, become ready, and go. */
import { objectKey, WorkQueue } from "@fairway/kube";
import { errorCode } from "@fairway/runtime";
import { type EndpointSlice, endpointSlices, type Pod, type Service } from "../resources.ts";
import { type Controller, type ControllerContext, canonical, untilVisible } from "./context.ts";
import { managedBy, slicesOf } from "./endpoint-slices.ts";

const retry = { initialMs: 50, maxMs: 5_000 };

export function runEndpointSlices(context: ControllerContext): Controller {
  const { collections, clock, log } = context;
  const queue = new WorkQueue({ name: "endpointslice", log, clock, retry, handle: (key) => reconcile(context, key) });
  const wakeFor = (pod: Pod): void => {
    for (const service of collections.services.list()) if (concerns(service, pod)) queue.add(objectKey(service));
  };
  const subscriptions = [
    collections.services.subscribe((events) => {
      for (const { object } of events) queue.add(objectKey(object));
    }),
    collections.pods.subscribe((events) => {
      for (const event of events) {
        wakeFor(event.object);
        if (event.type === "updated") wakeFor(event.previous);
      }
    }),
  ];
  for (const service of collections.services.list()) queue.add(objectKey(service));
  return {
    async [Symbol.asyncDispose]() {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
      await queue[Symbol.asyncDispose]();
    },
  };
}

function concerns({ metadata, spec }: Service, pod: Pod): boolean {
  const selector = Object.entries(spec?.selector ?? {});
  return selector.length > 0 && metadata.namespace === pod.metadata.namespace && selector.every(([key, value]) => pod.metadata.labels?.[key] === value);
}

async function reconcile(context: ControllerContext, key: string): Promise<void> {
  const { collections, client } = context;
  const service = collections.services.get(key);
  if (service === undefined || service.metadata.deletionTimestamp !== undefined) return;
  const zoneOf = (node: string): string | undefined => collections.nodes.get(node)?.metadata.labels?.["topology.kubernetes.io/zone"];
  const wanted = slicesOf(service, collections.pods.list(), zoneOf);
  const present = [...collections.endpointSlices.list()].filter(
    ({ metadata }) =>
      metadata.namespace === service.metadata.namespace &&
      metadata.labels?.["kubernetes.io/service-name"] === service.metadata.name &&
      metadata.labels["endpointslice.kubernetes.io/managed-by"] === managedBy,
  );
  for (const slice of wanted) {
    const known = present.find(({ metadata }) => metadata.name === slice.metadata.name);
    if (known !== undefined && content(known) === content(slice)) continue;
    const stored =
      known === undefined
        ? await client.create(endpointSlices, slice)
        : await client.replace(endpointSlices, { ...slice, metadata: { ...known.metadata, ...slice.metadata } });
    await untilVisible(
      context,
      collections.endpointSlices,
      objectKey(slice),
      (seen) => seen?.metadata.resourceVersion === stored.metadata.resourceVersion || newer(seen, stored),
    );
  }
  for (const slice of present) {
    if (wanted.some(({ metadata }) => metadata.name === slice.metadata.name)) continue;
    try {
      await client.delete(endpointSlices, slice.metadata.name, slice.metadata.namespace);
    } catch (thrown) {
      if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
    }
  }
}

function content({ addressType, endpoints, ports, metadata }: EndpointSlice): string {
  return canonical({ addressType, endpoints: endpoints ?? [], ports: ports ?? [], labels: metadata.labels });
}

/** Versions are opaque to clients, but this cluster's are numbers; for others the deadline of the wait is enough. */
function newer(seen: EndpointSlice | undefined, stored: EndpointSlice): boolean {
  return Number(seen?.metadata.resourceVersion) >= Number(stored.metadata.resourceVersion);
}
