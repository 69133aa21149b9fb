/** The mesh's root certificate in every namespace, for whoever must trust the controller (controller contract 7.5). */
import { type Collection, type KubeClient, type Namespace, resources, WorkQueue } from "@fairway/kube";
import { type Clock, errorCode, type Logger, type Watch } from "@fairway/runtime";
import { untilAborted } from "./until-aborted.ts";

export interface RootDistributionOptions {
  readonly client: KubeClient;
  readonly namespaces: Collection<Namespace>;
  readonly rootBundle: Watch<string>;
  readonly clock: Clock;
  readonly log: Logger;
}

const configMapName = "istio-ca-root-cert";
const key = "root-cert.pem";
const skipped: ReadonlySet<string> = new Set(["kube-public", "kube-node-lease", "local-path-storage"]);
const fieldManager = "fairway-controller";

/** Runs while this replica leads: writes, and puts back what was edited or deleted. */
export async function distributeRoots({ client, namespaces, rootBundle, clock, log }: RootDistributionOptions, signal: AbortSignal): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const written = stack.use(client.collection(resources.configMaps, { fieldSelector: `metadata.name=${configMapName}` }));
  const wanted = (namespace: string): boolean => {
    const object = namespaces.get(namespace);
    return object !== undefined && !skipped.has(namespace) && object.status?.phase !== "Terminating" && object.metadata.deletionTimestamp === undefined;
  };
  const queue = stack.use(
    new WorkQueue({
      name: "root distribution",
      log,
      clock,
      handle: async (namespace) => {
        const bundle = rootBundle.current;
        if (!wanted(namespace) || written.get(`${namespace}/${configMapName}`)?.data?.[key] === bundle) return;
        const object = { metadata: { name: configMapName, namespace, labels: { "istio.io/config": "true" } }, data: { [key]: bundle } };
        await client.apply(resources.configMaps, object, { fieldManager, force: true }).catch((thrown: unknown) => {
          // The namespace went away in the same moment; its deletion is an event of its own.
          if (errorCode(thrown) !== "KUBE_NOT_FOUND" || wanted(namespace)) throw thrown;
        });
      },
    }),
  );
  const all = (): void => {
    for (const { metadata } of namespaces.list()) queue.add(metadata.name);
  };
  await untilAborted(written.synced, signal);
  if (signal.aborted) return;
  stack.use(namespaces.subscribe((events) => events.forEach((event) => void queue.add(event.key))));
  stack.use(written.subscribe((events) => events.forEach((event) => void queue.add(event.object.metadata.namespace ?? ""))));
  stack.use(rootBundle.subscribe(all));
  all();
  await untilAborted(new Promise<void>(() => undefined), signal);
}
