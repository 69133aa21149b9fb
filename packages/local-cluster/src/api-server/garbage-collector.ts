/**
 * What follows a deletion: dependents of a deleted owner, the content of a terminating namespace, the objects of a deleted
 * definition. Also the two objects every namespace has. Runs after the write that caused it, never inside it.
 */
import { randomUUID } from "node:crypto";
import type { Clock, Logger } from "@fairway/runtime";
import { messageOf } from "@fairway/runtime";
import { definitionFinalizer, definitionsTable, followDefinition } from "./custom-definitions.ts";
import { deleteObject, finishDeletion, foregroundFinalizer, orphanFinalizer } from "./deletion.ts";
import type { KubeObject, ObjectMeta } from "./kube-object.ts";
import { timestamp } from "./object-writer.ts";
import type { ResourceType, ResourceTypes } from "./resource-types.ts";
import type { Change, Storage } from "./storage.ts";

export interface GarbageCollectorOptions {
  readonly storage: Storage;
  readonly types: ResourceTypes;
  readonly clock: Clock;
  readonly log: Logger;
  readonly caPem: string;
}

/** Events kept; the oldest go first. The reference forgets them after an hour. */
export const maxEvents = 5000;

export class GarbageCollector implements Disposable {
  readonly #options: GarbageCollectorOptions;
  readonly #dependents = new Map<string, Set<string>>();
  readonly #ids = new Map<string, string>();
  readonly #queue = new Set<string>();
  readonly #subscription: Disposable;
  #scheduled: NodeJS.Immediate | undefined;

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    this.#subscription = options.storage.observe((table, change) => this.#observe(table, change));
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
    clearImmediate(this.#scheduled);
  }

  #observe(table: string, change: Change): void {
    const { object, previous } = change;
    const id = idOf(table, object);
    for (const reference of previous?.metadata.ownerReferences ?? []) this.#dependents.get(reference.uid)?.delete(id);
    if (change.type !== "DELETED") for (const reference of object.metadata.ownerReferences ?? []) this.#dependentsOf(reference.uid).add(id);
    if (table === definitionsTable) {
      try {
        followDefinition(this.#options.types, change.type, object);
      } catch (thrown) {
        this.#options.log.warn("a stored definition does not compile", { definition: object.metadata.name, error: messageOf(thrown) });
      }
    }
    if (change.type === "DELETED") {
      this.#ids.delete(object.metadata.uid);
      for (const dependent of this.#dependents.get(object.metadata.uid) ?? []) this.#enqueue(`dependent ${dependent}`);
    } else {
      this.#ids.set(object.metadata.uid, id);
      if (object.metadata.deletionTimestamp !== undefined) this.#enqueue(`owner ${object.metadata.uid}`);
    }
    // An owner that waits in the foreground looks again when one of its dependents changes.
    for (const reference of previous?.metadata.ownerReferences ?? []) this.#enqueue(`owner ${reference.uid}`);
    if ((object.metadata.ownerReferences ?? []).length > 0) this.#enqueue(`dependent ${id}`);
    if (table === "events" && this.#options.storage.size("events") > maxEvents) this.#enqueue("events");
    if (table === "namespaces") this.#enqueue(`namespace ${object.metadata.name}`);
    else if (object.metadata.namespace !== undefined && change.type === "DELETED") this.#enqueue(`namespace ${object.metadata.namespace}`);
    if (table === definitionsTable) this.#enqueue(`definition ${object.metadata.name}`);
    else if (change.type === "DELETED") {
      const definition = this.#options.types.anyVersion(table)?.custom?.definition;
      if (definition !== undefined) this.#enqueue(`definition ${definition}`);
    }
    if (change.type === "DELETED" && (this.#dependents.get(object.metadata.uid)?.size ?? 0) === 0) this.#dependents.delete(object.metadata.uid);
  }

  #enqueue(work: string): void {
    this.#queue.add(work);
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined;
      const batch = [...this.#queue];
      this.#queue.clear();
      for (const item of batch) {
        try {
          this.#work(item);
        } catch (thrown) {
          this.#options.log.warn("could not clean up", { item, error: messageOf(thrown) });
        }
      }
    });
  }

  #work(item: string): void {
    const [kind, ...rest] = item.split(" ");
    const { storage } = this.#options;
    switch (kind) {
      case "dependent":
        this.#checkDependent(rest.join(" "));
        break;
      case "owner":
        this.#checkOwner(this.#find(this.#ids.get(rest[0] ?? "") ?? ""));
        break;
      case "namespace": {
        const namespace = storage.get("namespaces", "", rest[0] ?? "");
        if (namespace !== undefined) this.#checkNamespace(namespace);
        break;
      }
      case "events":
        for (let event = storage.oldest("events"); event !== undefined && storage.size("events") > maxEvents; event = storage.oldest("events")) {
          storage.remove("events", event.metadata.namespace ?? "", event.metadata.name);
        }
        break;
      case "definition": {
        const definition = storage.get(definitionsTable, "", rest[0] ?? "");
        if (definition !== undefined) this.#checkDefinition(definition);
        break;
      }
      default:
    }
  }

  /** Deletes an object none of whose owners exist any more. */
  #checkDependent(id: string): void {
    const found = this.#find(id);
    const references = found?.object.metadata.ownerReferences ?? [];
    if (found === undefined || references.length === 0) return;
    const alive = references.filter((reference) => this.#owner(reference, found.object.metadata.namespace) !== undefined);
    if (alive.length === 0) this.#delete(found.type, found.object);
    else if (alive.length < references.length) this.#put(found.type, { ...found.object, metadata: { ...found.object.metadata, ownerReferences: alive } });
  }

  /** Moves on an owner that is deleted in the foreground or with orphaning. */
  #checkOwner(found: { type: ResourceType; object: KubeObject } | undefined): void {
    if (found === undefined || found.object.metadata.deletionTimestamp === undefined) return;
    const { type, object } = found;
    const finalizers = object.metadata.finalizers ?? [];
    const dependents = [...(this.#dependents.get(object.metadata.uid) ?? [])].flatMap((id) => this.#find(id) ?? []);
    if (finalizers.includes(orphanFinalizer)) {
      for (const dependent of dependents) {
        const kept = (dependent.object.metadata.ownerReferences ?? []).filter((reference) => reference.uid !== object.metadata.uid);
        this.#put(dependent.type, { ...dependent.object, metadata: { ...dependent.object.metadata, ownerReferences: kept } });
      }
      this.#dropFinalizer(type, object, orphanFinalizer);
    } else if (finalizers.includes(foregroundFinalizer)) {
      for (const dependent of dependents)
        if (dependent.object.metadata.deletionTimestamp === undefined) this.#delete(dependent.type, dependent.object, "Foreground");
      const blocking = dependents.filter((dependent) => this.#find(idOf(dependent.type.table, dependent.object)) !== undefined);
      if (blocking.length === 0) this.#dropFinalizer(type, object, foregroundFinalizer);
    }
  }

  #checkNamespace(namespace: KubeObject): void {
    const { storage, types } = this.#options;
    const { name } = namespace.metadata;
    if (namespace.metadata.deletionTimestamp === undefined) {
      this.#ensureNamespaceObjects(name);
      return;
    }
    let left = 0;
    for (const table of storage.tables()) {
      const type = types.anyVersion(table);
      if (type === undefined || !type.namespaced) continue;
      for (const object of storage.list(table, name)) {
        if (object.metadata.deletionTimestamp === undefined) this.#delete(type, object);
        if (storage.get(table, name, object.metadata.name) !== undefined) left += 1;
      }
    }
    if (left === 0 && (namespace.metadata.finalizers ?? []).length === 0) storage.remove("namespaces", "", name);
  }

  #checkDefinition(definition: KubeObject): void {
    const { storage, types } = this.#options;
    if (definition.metadata.deletionTimestamp === undefined) {
      if (!(definition.metadata.finalizers ?? []).includes(definitionFinalizer)) {
        const finalizers = [...(definition.metadata.finalizers ?? []), definitionFinalizer];
        storage.put(definitionsTable, { ...definition, metadata: { ...definition.metadata, finalizers } });
      }
      return;
    }
    const type = types.all().find((candidate) => candidate.custom?.definition === definition.metadata.name);
    if (type !== undefined) {
      for (const object of storage.list(type.table)) if (object.metadata.deletionTimestamp === undefined) this.#delete(type, object);
      if (storage.list(type.table).length > 0) return;
    }
    const crd = types.anyVersion(definitionsTable);
    if (crd !== undefined) this.#dropFinalizer(crd, definition, definitionFinalizer);
  }

  #ensureNamespaceObjects(namespace: string): void {
    const { storage, clock, caPem } = this.#options;
    const metadata = (name: string) => ({ name, namespace, uid: randomUUID(), resourceVersion: "", creationTimestamp: timestamp(clock.now()) });
    if (storage.get("serviceaccounts", namespace, "default") === undefined) {
      storage.put("serviceaccounts", { apiVersion: "v1", kind: "ServiceAccount", metadata: metadata("default") });
    }
    const published = storage.get("configmaps", namespace, rootCaConfigMap);
    if (published === undefined) {
      storage.put("configmaps", { apiVersion: "v1", kind: "ConfigMap", metadata: metadata(rootCaConfigMap), data: { "ca.crt": caPem } });
    }
  }

  #delete(type: ResourceType, object: KubeObject, propagation: "Background" | "Foreground" = "Background"): void {
    const live = this.#options.storage.get(type.table, object.metadata.namespace ?? "", object.metadata.name);
    if (live?.metadata.uid === object.metadata.uid) {
      deleteObject(
        this.#options.storage,
        type,
        live,
        { propagation: this.#hasDependents(live) ? propagation : "Background", dryRun: false },
        this.#options.clock.now(),
      );
    }
  }

  #dropFinalizer(type: ResourceType, object: KubeObject, finalizer: string): void {
    const finalizers = (object.metadata.finalizers ?? []).filter((name) => name !== finalizer);
    this.#put(type, { ...object, metadata: { ...object.metadata, finalizers } });
  }

  #put(type: ResourceType, changed: KubeObject): void {
    const { finalizers = [], ownerReferences = [], ...rest } = changed.metadata;
    const metadata: ObjectMeta = { ...rest, ...(finalizers.length === 0 ? {} : { finalizers }), ...(ownerReferences.length === 0 ? {} : { ownerReferences }) };
    const object: KubeObject = { ...changed, metadata };
    if (finishDeletion(this.#options.storage, type, object) === undefined) this.#options.storage.put(type.table, object);
  }

  #hasDependents(object: KubeObject): boolean {
    return (this.#dependents.get(object.metadata.uid)?.size ?? 0) > 0;
  }

  #dependentsOf(uid: string): Set<string> {
    const existing = this.#dependents.get(uid) ?? new Set<string>();
    this.#dependents.set(uid, existing);
    return existing;
  }

  #owner(reference: { apiVersion: string; kind: string; name: string; uid: string }, namespace: string | undefined): KubeObject | undefined {
    const [group, version] = reference.apiVersion.includes("/") ? reference.apiVersion.split("/", 2) : ["", reference.apiVersion];
    const type = this.#options.types.findKind(group ?? "", version ?? "", reference.kind);
    if (type === undefined) return undefined;
    const owner = this.#options.storage.get(type.table, type.namespaced ? (namespace ?? "") : "", reference.name);
    return owner?.metadata.uid === reference.uid ? owner : undefined;
  }

  #find(id: string): { type: ResourceType; object: KubeObject } | undefined {
    const [table = "", namespace = "", name = ""] = id.split("/");
    const type = this.#options.types.anyVersion(table);
    const object = this.#options.storage.get(table, namespace, name);
    return type === undefined || object === undefined ? undefined : { type, object };
  }
}

export const rootCaConfigMap = "kube-root-ca.crt";

function idOf(table: string, object: KubeObject): string {
  return `${table}/${object.metadata.namespace ?? ""}/${object.metadata.name}`;
}
