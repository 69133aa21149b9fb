/** CustomResourceDefinitions become resource types: checked on the way in, and defined or undefined as they are stored. */
import { ApiError, type FieldError, invalid, required } from "./api-error.ts";
import { CustomSchema } from "./custom-schema.ts";
import { arrayAt, atPath, isObject, type Json, type JsonObject, objectAt, stringAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import { type PrinterColumn, type ResourceType, type ResourceTypes, tableOf } from "./resource-types.ts";

export const definitionsTable = "customresourcedefinitions.apiextensions.k8s.io";
/** Holds a definition until its objects are gone. */
export const definitionFinalizer = "customresourcecleanup.apiextensions.k8s.io";

/** Compiling is the dearest part of a start: a spec, once checked, is the same object when it is stored. */
const compiled = new WeakMap<JsonObject, readonly ResourceType[]>();

/** Compiles what a definition defines. Throws a 422 that says what is wrong with it. */
export function typesOf(definition: KubeObject): readonly ResourceType[] {
  const spec = objectAt(definition["spec"]);
  const types = compiled.get(spec) ?? compile(definition, spec);
  compiled.set(spec, types);
  return types;
}

function compile(definition: KubeObject, spec: JsonObject): readonly ResourceType[] {
  const names = objectAt(spec["names"]);
  const group = stringAt(spec["group"]) ?? "";
  const plural = stringAt(names["plural"]) ?? "";
  const kind = stringAt(names["kind"]) ?? "";
  const versions = arrayAt(spec["versions"]).filter(isObject);
  const errors = definitionErrors(definition, group, plural, kind, versions);
  if (errors.length > 0) throw ApiError.invalid("CustomResourceDefinition", "apiextensions.k8s.io", definition.metadata.name, errors);
  return versions
    .filter((version) => version["served"] === true)
    .map((version) => {
      const subresources = objectAt(version["subresources"]);
      const scale = subresources["scale"];
      const selector = stringAt(atPath(scale, "labelSelectorPath"));
      return {
        group,
        version: stringAt(version["name"]) ?? "",
        kind,
        listKind: stringAt(names["listKind"]) ?? `${kind}List`,
        plural,
        singular: stringAt(names["singular"]) ?? kind.toLowerCase(),
        shortNames: strings(names["shortNames"]),
        categories: strings(names["categories"]),
        namespaced: spec["scope"] !== "Cluster",
        table: tableOf(group, plural),
        subresources: new Set([...(isObject(subresources["status"]) ? ["status"] : []), ...(isObject(scale) ? ["scale"] : [])]),
        generation: true,
        custom: {
          definition: definition.metadata.name,
          schema: new CustomSchema(objectAt(atPath(version, "schema", "openAPIV3Schema"))),
          columns: columnsOf(version),
          selectableFields: arrayAt(version["selectableFields"]).flatMap((field) => stringAt(atPath(field, "jsonPath"))?.replace(/^\./, "") ?? []),
          ...(isObject(scale)
            ? {
                scalePaths: {
                  spec: stringAt(scale["specReplicasPath"]) ?? ".spec.replicas",
                  status: stringAt(scale["statusReplicasPath"]) ?? ".status.replicas",
                  ...(selector === undefined ? {} : { selector }),
                },
              }
            : {}),
        },
      };
    });
}

function definitionErrors(definition: KubeObject, group: string, plural: string, kind: string, versions: readonly JsonObject[]): readonly FieldError[] {
  const errors: FieldError[] = [];
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(group) || !group.includes("."))
    errors.push(invalid("spec.group", group, "should be a domain with at least one dot"));
  if (!/^[a-z][-a-z0-9]{0,62}$/.test(plural))
    errors.push(plural === "" ? required("spec.names.plural") : invalid("spec.names.plural", plural, "must be a DNS-1035 label"));
  if (!/^[A-Z][A-Za-z0-9]{0,62}$/.test(kind))
    errors.push(kind === "" ? required("spec.names.kind") : invalid("spec.names.kind", kind, "must start with a capital letter"));
  if (definition.metadata.name !== `${plural}.${group}`)
    errors.push(invalid("metadata.name", definition.metadata.name, `must be spec.names.plural+"."+spec.group`));
  if (versions.length === 0) errors.push(required("spec.versions"));
  versions.forEach((version, index) => {
    if (!/^v[a-z0-9]{1,62}$/.test(stringAt(version["name"]) ?? ""))
      errors.push(invalid(`spec.versions[${index}].name`, version["name"], "must look like v1 or v1alpha1"));
    if (!isObject(atPath(version, "schema", "openAPIV3Schema")))
      errors.push(required(`spec.versions[${index}].schema.openAPIV3Schema`, "schemas are required"));
  });
  if (versions.filter((version) => version["storage"] === true).length !== 1) {
    errors.push(
      invalid(
        "spec.versions",
        versions.map((version) => version["name"]),
        "must have exactly one version marked as storage version",
      ),
    );
  }
  return errors;
}

function columnsOf(version: JsonObject): readonly PrinterColumn[] {
  const columns = arrayAt(version["additionalPrinterColumns"]).filter(isObject);
  if (columns.length === 0) return [{ name: "Age", type: "date", description: "", priority: 0, jsonPath: ".metadata.creationTimestamp" }];
  return columns.map((column) => ({
    name: stringAt(column["name"]) ?? "",
    type: stringAt(column["type"]) ?? "string",
    description: stringAt(column["description"]) ?? "",
    priority: typeof column["priority"] === "number" ? column["priority"] : 0,
    jsonPath: stringAt(column["jsonPath"]) ?? "",
  }));
}

/** Sets the status the reference's controllers would: names accepted, established. Changes `definition`. */
export function acceptDefinition(definition: KubeObject, now: string): void {
  const spec = objectAt(definition["spec"]);
  const versions = arrayAt(spec["versions"]).filter(isObject);
  const storage = versions.find((version) => version["storage"] === true)?.["name"];
  const old = objectAt(definition["status"]);
  const stored = new Set([...strings(old["storedVersions"]), ...(typeof storage === "string" ? [storage] : [])]);
  const condition = (type: string, reason: string, message: string): JsonObject => {
    const existing = arrayAt(old["conditions"]).find((item) => atPath(item, "type") === type);
    return isObject(existing) ? existing : { type, status: "True", reason, message, lastTransitionTime: now };
  };
  definition["status"] = {
    acceptedNames: spec["names"] ?? {},
    conditions: [
      condition("NamesAccepted", "NoConflicts", "no conflicts found"),
      condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ],
    storedVersions: [...stored],
  };
}

/** Follows a stored change of a definition. */
export function followDefinition(types: ResourceTypes, type: "ADDED" | "MODIFIED" | "DELETED", definition: KubeObject): void {
  if (type === "DELETED") types.undefine(definition.metadata.name);
  else types.define(definition.metadata.name, typesOf(definition));
}

function strings(value: Json | undefined): readonly string[] {
  return arrayAt(value).filter((item) => typeof item === "string");
}
