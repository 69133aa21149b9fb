/**
 * Every write of an object goes through here: decode, default, admit, validate, count generations, keep track of managers, store.
 * All of it is synchronous, so a read-modify-write is one step.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "@fairway/runtime";
import { admitNamespace, admitObject } from "./admission.ts";
import { ApiError } from "./api-error.ts";
import type { ClusterIps } from "./cluster-ips.ts";
import { applyDefaults } from "./defaults.ts";
import { finishDeletion } from "./deletion.ts";
import { cloneJson, isObject, type JsonObject, sameJson } from "./json.ts";
import { type KubeObject, parseObject } from "./kube-object.ts";
import { type Manager, type ManagerEntry, managersAfterEdit, trackUpdate, writeManagers } from "./managed-fields.ts";
import { mergeSchemaOf } from "./merge-schema.ts";
import { applyFields } from "./patch/apply.ts";
import { decodeJson } from "./request-body.ts";
import { apiVersionOf, type ResourceType } from "./resource-types.ts";
import { checkShape } from "./shape-check.ts";
import type { Storage } from "./storage.ts";
import { validateObject } from "./validation.ts";

export type FieldValidation = "Ignore" | "Warn" | "Strict";

export interface WriteOptions {
  readonly fieldManager: string;
  /** "", "status", "scale", … */
  readonly subresource: string;
  readonly dryRun: boolean;
  readonly fieldValidation: FieldValidation;
  /** Told to the client in a Warning header. */
  readonly warn: (message: string) => void;
}

export interface WriterOptions {
  readonly storage: Storage;
  readonly ips: ClusterIps;
  readonly clock: Clock;
  readonly suffix: () => string;
}

/** Types whose objects may arrive with a status. */
const statusOnCreate: ReadonlySet<string> = new Set(["nodes", "events"]);

export class ObjectWriter {
  readonly #storage: Storage;
  readonly #ips: ClusterIps;
  readonly #clock: Clock;
  readonly #suffix: () => string;

  constructor({ storage, ips, clock, suffix }: WriterOptions) {
    this.#storage = storage;
    this.#ips = ips;
    this.#clock = clock;
    this.#suffix = suffix;
  }

  create(type: ResourceType, namespace: string, body: unknown, options: WriteOptions): KubeObject {
    return this.#create(type, namespace, this.#decoded(type, body, options), options, undefined);
  }

  /** Replaces the object by the body, as PUT does. */
  update(type: ResourceType, namespace: string, name: string, body: unknown, options: WriteOptions): KubeObject {
    return this.change(type, namespace, name, () => this.#decoded(type, body, options), options);
  }

  /** Stores what `edit` makes of the live object. `edit` returns a whole object and must not change its argument. */
  change(type: ResourceType, namespace: string, name: string, edit: (live: KubeObject) => KubeObject, options: WriteOptions): KubeObject {
    const live = this.#live(type, namespace, name);
    return this.#store(type, live, edit(live), options, undefined);
  }

  /** Changes the object by a patch function over its JSON form in the version of `type`. */
  patch(type: ResourceType, namespace: string, name: string, patch: (live: JsonObject) => unknown, options: WriteOptions): KubeObject {
    const edit = (live: KubeObject): KubeObject => this.#decoded(type, cloneJson(patch(inVersion(live, type)) as JsonObject), options);
    return this.change(type, namespace, name, edit, options);
  }

  /** Server-side apply; creates the object when there is none. */
  apply(
    type: ResourceType,
    namespace: string,
    name: string,
    body: unknown,
    options: WriteOptions & { readonly force: boolean },
  ): { object: KubeObject; created: boolean } {
    const wished = this.#decoded(type, body, options);
    if (wished.metadata.managedFields !== undefined && wished.metadata.managedFields.length > 0)
      throw ApiError.badRequest("metadata.managedFields must be nil");
    if (wished.metadata.name !== "" && wished.metadata.name !== name)
      throw ApiError.badRequest(`name in URL (${name}) does not match name in object (${wished.metadata.name.slice(0, 253)})`);
    const stored = this.#storage.get(type.table, type.namespaced ? namespace : "", name);
    if (stored === undefined && options.subresource !== "") throw ApiError.notFound(type, name);
    if (stored === undefined && wished.metadata.uid !== "") throw ApiError.conflict(type, name, "uid mismatch: the object does not exist");
    const live = stored === undefined ? undefined : inVersion(stored, type);
    const { uid, resourceVersion, creationTimestamp: _created, managedFields: _managed, ...metadata } = wished.metadata;
    const { object, managers } = applyFields({
      live,
      wished: { ...wished, metadata: { ...metadata, name } },
      managers: managersAfterEdit(live?.metadata.managedFields, undefined),
      manager: this.#manager(type, options, "Apply"),
      force: options.force,
      lastApplied: options.fieldManager === "kubectl" ? lastAppliedOf(live) : undefined,
      schema: mergeSchemaOf(type),
      time: this.#now(),
    });
    const next = this.#decoded(type, cloneJson(object), options);
    if (stored === undefined) return { object: this.#create(type, namespace, next, options, managers), created: true };
    const checked = { ...next, metadata: { ...next.metadata, resourceVersion, ...(uid === "" ? {} : { uid }) } };
    return { object: this.#store(type, stored, checked, options, managers), created: false };
  }

  #create(type: ResourceType, namespace: string, object: KubeObject, options: WriteOptions, applied: readonly ManagerEntry[] | undefined): KubeObject {
    const { metadata } = object;
    if (metadata.resourceVersion !== "") throw ApiError.badRequest("resourceVersion should not be set on objects to be created");
    if (type.namespaced && metadata.namespace !== undefined && metadata.namespace !== namespace) throw namespaceMismatch(metadata.namespace, namespace);
    if (metadata.name === "" && metadata.generateName !== undefined) metadata.name = `${metadata.generateName.slice(0, 58)}${this.#suffix()}`;
    if (type.namespaced) metadata.namespace = namespace;
    else delete metadata.namespace;
    metadata.uid = randomUUID();
    metadata.creationTimestamp = this.#now();
    delete metadata.deletionTimestamp;
    delete metadata.deletionGracePeriodSeconds;
    delete metadata.generation;
    if (type.generation) metadata.generation = 1;
    if (type.subresources.has("status") && !statusOnCreate.has(type.table)) delete object["status"];
    applyDefaults(object, type);
    admitNamespace(this.#storage, type, namespace, metadata.name);
    // A name that exists is reported before what else may be wrong, so that "create if absent" works.
    if (metadata.name !== "" && this.#storage.get(type.table, metadata.namespace ?? "", metadata.name) !== undefined) {
      throw ApiError.alreadyExists(type, metadata.name);
    }
    // What admission adds belongs to nobody: an apply that does not name it must not remove it.
    const managers = applied ?? this.#tracked(type, undefined, cloneJson(object), [], options);
    admitObject(object, undefined, type, this.#admission());
    validateObject(object, type, undefined);
    this.#setManagers(object, managers);
    return options.dryRun ? object : this.#storage.put(type.table, object);
  }

  #store(type: ResourceType, stored: KubeObject, object: KubeObject, options: WriteOptions, applied: readonly ManagerEntry[] | undefined): KubeObject {
    const live = inVersion(stored, type);
    const { metadata } = object;
    const { name } = live.metadata;
    if (metadata.name !== "" && metadata.name !== name)
      throw ApiError.badRequest(`the name of the object (${metadata.name.slice(0, 253)}) does not match the name on the URL (${name})`);
    if (metadata.namespace !== undefined && metadata.namespace !== (live.metadata.namespace ?? ""))
      throw namespaceMismatch(metadata.namespace, live.metadata.namespace ?? "");
    if (metadata.uid !== "" && metadata.uid !== live.metadata.uid) {
      throw ApiError.conflict(type, name, `Precondition failed: UID in precondition: ${metadata.uid.slice(0, 64)}, UID in object meta: ${live.metadata.uid}`);
    }
    if (metadata.resourceVersion !== "" && metadata.resourceVersion !== live.metadata.resourceVersion) throw ApiError.staleVersion(type, name);
    const next = this.#merged(type, live, object, options.subresource);
    applyDefaults(next, type);
    admitObject(next, live, type, this.#admission());
    validateObject(next, type, live);
    if (type.generation && desiredStateChanged(type, live, next)) next.metadata.generation = (live.metadata.generation ?? 0) + 1;
    const base = managersAfterEdit(live.metadata.managedFields, metadata.managedFields);
    this.#setManagers(next, applied ?? this.#tracked(type, live, next, base, options));
    if (sameJson(next, live)) return live;
    if (options.dryRun) return next;
    return finishDeletion(this.#storage, type, next) ?? this.#storage.put(type.table, next);
  }

  /** The parts of the object this request may change, over the live ones. */
  #merged(type: ResourceType, live: KubeObject, object: KubeObject, subresource: string): KubeObject {
    const fixed = {
      name: live.metadata.name,
      uid: live.metadata.uid,
      resourceVersion: live.metadata.resourceVersion,
      creationTimestamp: live.metadata.creationTimestamp,
    };
    const { labels, annotations, finalizers, ownerReferences } = subresource === "status" && type.custom !== undefined ? live.metadata : object.metadata;
    const deleting = live.metadata.deletionTimestamp !== undefined;
    const metadata = {
      ...(live.metadata.generateName === undefined ? {} : { generateName: live.metadata.generateName }),
      ...fixed,
      ...(live.metadata.namespace === undefined ? {} : { namespace: live.metadata.namespace }),
      ...(live.metadata.generation === undefined ? {} : { generation: live.metadata.generation }),
      ...(live.metadata.deletionTimestamp === undefined ? {} : { deletionTimestamp: live.metadata.deletionTimestamp }),
      ...(live.metadata.deletionGracePeriodSeconds === undefined ? {} : { deletionGracePeriodSeconds: live.metadata.deletionGracePeriodSeconds }),
      ...nonEmpty("labels", labels),
      ...nonEmpty("annotations", annotations),
      ...nonEmpty("finalizers", subresource === "status" ? live.metadata.finalizers : finalizers),
      ...nonEmpty("ownerReferences", subresource === "status" ? live.metadata.ownerReferences : ownerReferences),
    };
    const added = (metadata.finalizers ?? []).filter((finalizer) => !(live.metadata.finalizers ?? []).includes(finalizer));
    if (deleting && added.length > 0) {
      throw ApiError.invalid(type.kind, type.group, live.metadata.name, [
        {
          kind: "FieldValueForbidden",
          field: "metadata.finalizers",
          detail: `Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
        },
      ]);
    }
    const { apiVersion, kind } = live;
    if (subresource === "status") {
      const { status: _old, ...rest } = cloneJson(live);
      return { ...rest, apiVersion, kind, metadata, ...(object["status"] === undefined ? {} : { status: object["status"] }) };
    }
    if (!type.subresources.has("status")) return { ...object, apiVersion, kind, metadata };
    // Only the status subresource changes the status.
    const { status: _ignored, ...rest } = object;
    return { ...rest, apiVersion, kind, metadata, ...(live["status"] === undefined ? {} : { status: cloneJson(live["status"]) }) };
  }

  #decoded(type: ResourceType, body: unknown, { fieldValidation, warn }: WriteOptions): KubeObject {
    const object = parseObject(body, { apiVersion: apiVersionOf(type), kind: type.kind });
    const unknown = type.custom === undefined ? checkShape(object, type.kind) : type.custom.schema.prune(object);
    if (unknown.length === 0 || fieldValidation === "Ignore") return object;
    const messages = unknown.slice(0, 20).map((path) => `unknown field ${JSON.stringify(path)}`);
    if (fieldValidation === "Strict") {
      throw ApiError.badRequest(
        `${type.kind} in version ${JSON.stringify(type.version)} cannot be handled as a ${type.kind}: strict decoding error: ${messages.join(", ")}`,
      );
    }
    for (const message of messages) warn(message);
    return object;
  }

  #live(type: ResourceType, namespace: string, name: string): KubeObject {
    const live = this.#storage.get(type.table, type.namespaced ? namespace : "", name);
    if (live === undefined) throw ApiError.notFound(type, name);
    return live;
  }

  #tracked(
    type: ResourceType,
    before: KubeObject | undefined,
    after: KubeObject,
    base: readonly ManagerEntry[],
    options: WriteOptions,
  ): readonly ManagerEntry[] {
    return trackUpdate({ before, after, base, manager: this.#manager(type, options, "Update"), schema: mergeSchemaOf(type), time: this.#now() });
  }

  #manager(type: ResourceType, { fieldManager, subresource }: WriteOptions, operation: "Apply" | "Update"): Manager {
    return { name: fieldManager, operation, subresource, apiVersion: apiVersionOf(type) };
  }

  #setManagers(object: KubeObject, managers: readonly ManagerEntry[]): void {
    const written = writeManagers(managers);
    if (written.length === 0) delete object.metadata.managedFields;
    else object.metadata.managedFields = written;
  }

  #admission() {
    return { storage: this.#storage, ips: this.#ips, now: this.#now(), suffix: this.#suffix };
  }

  #now(): string {
    return timestamp(this.#clock.now());
  }
}

/** What kubectl's client-side apply last sent, from its annotation; nothing when that cannot be read. */
function lastAppliedOf(live: KubeObject | undefined): JsonObject | undefined {
  const text = live?.metadata.annotations?.["kubectl.kubernetes.io/last-applied-configuration"];
  if (text === undefined) return undefined;
  try {
    const value = decodeJson(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** RFC 3339 in whole seconds, as metadata has it. */
export function timestamp(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** The object as a client of this version sees it: versions of one CRD differ only in name (conversion None). */
export function inVersion(object: KubeObject, type: ResourceType): KubeObject {
  const apiVersion = apiVersionOf(type);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}

function desiredStateChanged(type: ResourceType, live: KubeObject, next: KubeObject): boolean {
  const { metadata: _metadata, status: oldStatus, ...before } = live;
  const { metadata: _nextMetadata, status: newStatus, ...after } = next;
  return !sameJson(before, after) || (!type.subresources.has("status") && !sameJson(oldStatus, newStatus));
}

function nonEmpty<K extends string, V extends object>(key: K, value: V | undefined): { [key in K]?: V } {
  return value === undefined || Object.keys(value).length === 0 ? {} : ({ [key]: value } as { [key in K]: V });
}

function namespaceMismatch(given: string, expected: string): ApiError {
  return ApiError.badRequest(`the namespace of the provided object does not match the namespace sent on the request (${given.slice(0, 63)}, ${expected})`);
}
