/** scale, token, binding, eviction and finalize: subresources with bodies of their own kind. */
import type { Clock } from "@fairway/runtime";
import { ApiError, invalid, required } from "./api-error.ts";
import { deleteObject, parseDeleteOptions } from "./deletion.ts";
import { neededBody, type ResourceExchange, sendJson } from "./exchange.ts";
import { arrayAt, atPath, cloneJson, isObject, type Json, type JsonObject, numberAt, objectAt, stringAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import { type ObjectWriter, timestamp } from "./object-writer.ts";
import { jsonPatch } from "./patch/json-patch.ts";
import { mergePatch } from "./patch/merge-patch.ts";
import { mediaType } from "./request-body.ts";
import type { TokenIssuer } from "./service-account-token.ts";
import type { Storage } from "./storage.ts";
import { writeOptions } from "./write-handlers.ts";

/** The lifetimes TokenRequest grants, in seconds, as in the reference. */
const minTokenSeconds = 600;
const maxTokenSeconds = 2 ** 32;
const defaultTokenSeconds = 3600;

export interface SubresourceHandlersOptions {
  readonly storage: Storage;
  readonly writer: ObjectWriter;
  readonly issuer: TokenIssuer;
  readonly audience: string;
  readonly clock: Clock;
}

export class SubresourceHandlers {
  readonly #options: SubresourceHandlersOptions;

  constructor(options: SubresourceHandlersOptions) {
    this.#options = options;
  }

  /** `scale` of workloads and of custom types that declare it. */
  async scale(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    const live = this.#live(exchange);
    const paths = scalePaths(exchange);
    if (info.verb === "get") {
      sendJson(exchange, 200, scaleOf(live, paths));
      return;
    }
    if (info.verb !== "update" && info.verb !== "patch") throw ApiError.methodNotAllowed(info.verb);
    const body = await neededBody(exchange);
    const format = mediaType(exchange.request.headers["content-type"]);
    const edit = (current: KubeObject): KubeObject => {
      const scale = scaleOf(current, paths);
      const next = info.verb === "update" ? body : format === "application/json-patch+json" ? jsonPatch(scale, body) : mergePatch(scale, body);
      const version = stringAt(atPath(next, "metadata", "resourceVersion")) ?? "";
      if (version !== "" && version !== current.metadata.resourceVersion) throw ApiError.staleVersion(type, info.name);
      const replicas = numberAt(atPath(next, "spec", "replicas")) ?? 0;
      if (!Number.isSafeInteger(replicas) || replicas < 0)
        throw ApiError.invalid("Scale", "autoscaling", info.name, [invalid("spec.replicas", replicas, "must be greater than or equal to 0")]);
      const changed = cloneJson(current);
      setPath(changed, paths.spec, replicas);
      return changed;
    };
    // The main resource's rules apply: replicas are spec.
    const stored = this.#options.writer.change(type, info.namespace, info.name, edit, { ...writeOptions(exchange), subresource: "scale" });
    sendJson(exchange, 200, scaleOf(stored, paths));
  }

  /** `serviceaccounts/token`: a token for the account, bound to a pod when the request says so. */
  async token(exchange: ResourceExchange): Promise<void> {
    const { storage, issuer, audience, clock } = this.#options;
    const { info } = exchange;
    const account = this.#live(exchange);
    const request = await neededBody(exchange);
    if (!isObject(request)) throw ApiError.badRequest("the body must be a TokenRequest");
    const spec = objectAt(request["spec"]);
    const audiences = arrayAt(spec["audiences"]).filter((item) => typeof item === "string");
    const seconds = spec["expirationSeconds"] ?? defaultTokenSeconds;
    if (typeof seconds !== "number" || seconds < minTokenSeconds || seconds > maxTokenSeconds) {
      throw ApiError.invalid("TokenRequest", "authentication.k8s.io", "", [
        invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes or more than 2^32 seconds"),
      ]);
    }
    const reference = spec["boundObjectRef"];
    const pod = isObject(reference) ? this.#boundPod(reference, account) : undefined;
    const nodeName = stringAt(atPath(pod, "spec", "nodeName")) ?? "";
    const node = storage.get("nodes", "", nodeName);
    const granted = audiences.length === 0 ? [audience] : audiences;
    const { token, expiresAtMs } = issuer.issue(
      {
        namespace: info.namespace,
        serviceAccount: { name: account.metadata.name, uid: account.metadata.uid },
        ...(pod === undefined ? {} : { pod: { name: pod.metadata.name, uid: pod.metadata.uid } }),
        ...(node === undefined ? {} : { node: { name: nodeName, uid: node.metadata.uid } }),
      },
      granted,
      Math.floor(seconds),
    );
    sendJson(exchange, 201, {
      kind: "TokenRequest",
      apiVersion: "authentication.k8s.io/v1",
      metadata: { name: info.name, namespace: info.namespace, creationTimestamp: timestamp(clock.now()) },
      spec: { ...spec, audiences: granted, expirationSeconds: seconds },
      status: { token, expirationTimestamp: timestamp(expiresAtMs) },
    });
  }

  /** `pods/binding`: what a scheduler posts. */
  async binding(exchange: ResourceExchange): Promise<void> {
    const { type, info } = exchange;
    const body = await neededBody(exchange);
    const node = stringAt(atPath(body, "target", "name")) ?? "";
    if (node === "") throw ApiError.invalid("Binding", "", info.name, [required("target.name")]);
    const pod = this.#live(exchange);
    if (stringAt(atPath(pod, "spec", "nodeName")) !== undefined)
      throw ApiError.conflict(type, info.name, `pod ${info.name} is already assigned to node ${JSON.stringify(atPath(pod, "spec", "nodeName"))}`);
    if (pod.metadata.deletionTimestamp !== undefined)
      throw ApiError.conflict(type, info.name, `pod ${info.name} is being deleted, cannot be assigned to a host`);
    const now = timestamp(this.#options.clock.now());
    const scheduled = { type: "PodScheduled", status: "True", lastProbeTime: null, lastTransitionTime: now };
    const conditions = arrayAt(atPath(pod, "status", "conditions")).filter((condition) => atPath(condition, "type") !== "PodScheduled");
    this.#options.storage.put(type.table, {
      ...pod,
      spec: { ...objectAt(pod["spec"]), nodeName: node },
      status: { ...objectAt(pod["status"]), conditions: [...conditions, scheduled] },
    });
    sendJson(exchange, 201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" });
  }

  /** `pods/eviction`: a delete that a disruption budget could refuse; budgets are stored here, not enforced. */
  async eviction(exchange: ResourceExchange): Promise<void> {
    const body = await neededBody(exchange);
    const options = parseDeleteOptions(isObject(body) ? body["deleteOptions"] : undefined, exchange.info.query);
    deleteObject(this.#options.storage, exchange.type, this.#live(exchange), options, this.#options.clock.now());
    sendJson(exchange, 201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" });
  }

  /** `namespaces/finalize`: accepted; the server itself finalizes namespaces when they are empty. */
  async finalize(exchange: ResourceExchange): Promise<void> {
    await neededBody(exchange);
    sendJson(exchange, 200, this.#live(exchange));
  }

  #boundPod(reference: JsonObject, account: KubeObject): KubeObject {
    const name = stringAt(reference["name"]) ?? "";
    if (reference["kind"] !== "Pod") throw ApiError.badRequest("spec.boundObjectRef.kind must be Pod");
    const pod = this.#options.storage.get("pods", account.metadata.namespace ?? "", name);
    if (pod === undefined) throw ApiError.notFound({ group: "", plural: "pods" }, name);
    const uid = stringAt(reference["uid"]) ?? "";
    if (uid !== "" && uid !== pod.metadata.uid) {
      throw ApiError.conflict(
        { group: "", plural: "pods" },
        name,
        `the UID in the bound object reference (${uid.slice(0, 64)}) does not match the UID in record. The object might have been deleted and then recreated`,
      );
    }
    if (atPath(pod, "spec", "serviceAccountName") !== account.metadata.name) {
      throw ApiError.badRequest(
        `cannot bind token for serviceaccount ${JSON.stringify(account.metadata.name)} to pod running with different serviceaccount name.`,
      );
    }
    return pod;
  }

  #live({ type, info }: ResourceExchange): KubeObject {
    const live = this.#options.storage.get(type.table, info.namespace, info.name);
    if (live === undefined) throw ApiError.notFound(type, info.name);
    return live;
  }
}

interface ScalePaths {
  readonly spec: readonly string[];
  readonly status: readonly string[];
  readonly selector: readonly string[] | undefined;
}

function scalePaths({ type }: ResourceExchange): ScalePaths {
  const custom = type.custom?.scalePaths;
  const path = (text: string): readonly string[] => text.replace(/^\./, "").split(".");
  if (custom === undefined) return { spec: ["spec", "replicas"], status: ["status", "replicas"], selector: undefined };
  return { spec: path(custom.spec), status: path(custom.status), selector: custom.selector === undefined ? undefined : path(custom.selector) };
}

function scaleOf(object: KubeObject, paths: ScalePaths): JsonObject {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const labels = objectAt(atPath(object, "spec", "selector", "matchLabels"));
  const selector =
    paths.selector === undefined
      ? Object.entries(labels)
          .map(([key, value]) => `${key}=${String(value)}`)
          .join(",")
      : (stringAt(atPath(object, ...paths.selector)) ?? "");
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), uid, resourceVersion, creationTimestamp },
    spec: { replicas: numberAt(atPath(object, ...paths.spec)) ?? 0 },
    status: { replicas: numberAt(atPath(object, ...paths.status)) ?? 0, ...(selector === "" ? {} : { selector }) },
  };
}

function setPath(target: JsonObject, path: readonly string[], value: Json): void {
  let current = target;
  for (const step of path.slice(0, -1)) {
    const child = objectAt(current[step]);
    current[step] = child;
    current = child;
  }
  const last = path.at(-1);
  if (last !== undefined) current[last] = value;
}
