/** A container's environment, from its spec and the objects it refers to. Pure: it fails by exception with what the event will say. */
import { MeshError } from "@fairway/runtime";
import type { ConfigMap, Container, EnvVar, Pod, Secret } from "../resources.ts";
import { expandVariables } from "./expansion.ts";
import { podField, resourceField } from "./pod-field.ts";

export interface EnvironmentSources {
  readonly pod: Pod;
  /** Addresses known to the kubelet before the API has them. */
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
  readonly configMap: (name: string) => ConfigMap | undefined;
  readonly secret: (name: string) => Secret | undefined;
  /** What the image itself sets, and what every container gets. */
  readonly base: Readonly<Record<string, string>>;
}

/** Throws LOCAL_CLUSTER_CONTAINER_CONFIG when a required object or key is absent. */
export function containerEnvironment(container: Container, sources: EnvironmentSources): Record<string, string> {
  const environment: Record<string, string> = { ...sources.base };
  for (const { prefix = "", configMapRef, secretRef } of container.envFrom ?? []) {
    const data =
      configMapRef === undefined
        ? secretRef === undefined
          ? {}
          : decoded(required(sources.secret(secretRef.name), "secret", secretRef))
        : (required(sources.configMap(configMapRef.name), "configmap", configMapRef)?.data ?? {});
    for (const [key, value] of Object.entries(data)) environment[`${prefix}${key}`] = value;
  }
  for (const variable of container.env ?? []) {
    const value = variableValue(variable, container, sources, environment);
    if (value !== undefined) environment[variable.name] = value;
  }
  return environment;
}

/** `$(NAME)` in command and args sees the finished environment. */
export function expandArguments(words: readonly string[] | undefined, environment: Readonly<Record<string, string>>): string[] | undefined {
  return words?.map((word) => expandVariables(word, environment));
}

function variableValue(variable: EnvVar, container: Container, sources: EnvironmentSources, sofar: Readonly<Record<string, string>>): string | undefined {
  const { valueFrom } = variable;
  if (valueFrom === undefined) return expandVariables(variable.value ?? "", sofar);
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
  if (fieldRef !== undefined) return podField(fieldRef.fieldPath, sources.pod, sources);
  if (resourceFieldRef !== undefined) return resourceField(resourceFieldRef, container, sources.pod);
  if (configMapKeyRef !== undefined) {
    return keyed(required(sources.configMap(configMapKeyRef.name), "configmap", configMapKeyRef)?.data, "configmap", configMapKeyRef);
  }
  if (secretKeyRef !== undefined) {
    const secret = required(sources.secret(secretKeyRef.name), "secret", secretKeyRef);
    return keyed(secret === undefined ? undefined : decoded(secret), "secret", secretKeyRef);
  }
  return "";
}

function required<T>(object: T | undefined, kind: string, { name, optional }: { name: string; optional?: boolean }): T | undefined {
  if (object === undefined && optional !== true) throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `${kind} "${name}" not found`);
  return object;
}

function keyed(
  data: Readonly<Record<string, string>> | undefined,
  kind: string,
  { name, key, optional }: { name: string; key: string; optional?: boolean },
): string | undefined {
  const value = data?.[key];
  if (value === undefined && optional !== true) throw new MeshError("LOCAL_CLUSTER_CONTAINER_CONFIG", `couldn't find key ${key} in ${kind} ${name}`);
  return value;
}

function decoded(secret: Secret | undefined): Record<string, string> {
  return Object.fromEntries(Object.entries(secret?.data ?? {}).map(([key, value]) => [key, Buffer.from(value, "base64").toString("utf8")]));
}
