/** Cluster IPs of services: allocated from one range per family, found taken by looking at the stored services. */
import { isIPv4, isIPv6 } from "node:net";
import { ApiError, type FieldError, invalid } from "./api-error.ts";
import { arrayAt, isObject, type JsonObject, objectAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { Storage } from "./storage.ts";

/** 10.96.0.0/16 without the first addresses, which are given on request only (10.96.0.1 is the API, 10.96.0.10 is DNS). */
const v4Prefix = "10.96.";
const v4First = 0x0100;
const v4Last = 0xfffe;
/** fd00:10:96::/112, likewise. */
const v6Prefix = "fd00:10:96::";
const v6First = 0x0100;
const v6Last = 0xfffe;

type Family = "IPv4" | "IPv6";

export class ClusterIps {
  readonly #storage: Storage;
  readonly #next: Record<Family, number> = { IPv4: v4First, IPv6: v6First };

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** Completes clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy. Changes `service`. Throws 422 on what cannot be. */
  assign(service: KubeObject, live: KubeObject | undefined): void {
    const spec = objectAt(service["spec"]);
    if (spec["type"] === "ExternalName") {
      for (const key of ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]) delete spec[key];
      return;
    }
    const before = objectAt(live?.["spec"]);
    for (const key of ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]) {
      const unset = spec[key] === undefined || spec[key] === "" || (Array.isArray(spec[key]) && spec[key].length === 0);
      if (unset && before[key] !== undefined) spec[key] = before[key];
    }
    const errors = problems(spec, before);
    if (errors.length > 0) throw ApiError.invalid("Service", "", service.metadata.name, errors);
    const families = familiesOf(spec);
    spec["ipFamilies"] = [...families];
    spec["ipFamilyPolicy"] ??= families.length > 1 ? "RequireDualStack" : "SingleStack";
    const requested = [...arrayAt(spec["clusterIPs"])];
    if (requested.length === 0 && typeof spec["clusterIP"] === "string" && spec["clusterIP"] !== "") requested.push(spec["clusterIP"]);
    if (requested[0] === "None") {
      spec["clusterIP"] = "None";
      spec["clusterIPs"] = ["None"];
      return;
    }
    const taken = this.#taken(service);
    const ips = families.map((family, index) => {
      const wish = requested[index];
      if (typeof wish !== "string" || wish === "") return this.#allocate(family, taken);
      if (taken.has(wish))
        throw ApiError.invalid("Service", "", service.metadata.name, [
          invalid("spec.clusterIPs", wish, "failed to allocate IP: provided IP is already allocated"),
        ]);
      return wish;
    });
    spec["clusterIP"] = ips[0] ?? "";
    spec["clusterIPs"] = ips;
  }

  #taken(except: KubeObject): ReadonlySet<string> {
    const taken = new Set<string>();
    for (const service of this.#storage.list("services")) {
      if (service.metadata.name === except.metadata.name && service.metadata.namespace === except.metadata.namespace) continue;
      for (const ip of arrayAt(objectAt(service["spec"])["clusterIPs"])) if (typeof ip === "string") taken.add(ip);
    }
    return taken;
  }

  #allocate(family: Family, taken: ReadonlySet<string>): string {
    const [first, last] = family === "IPv4" ? [v4First, v4Last] : [v6First, v6Last];
    for (let tried = first; tried <= last; tried += 1) {
      const candidate = this.#next[family];
      this.#next[family] = candidate >= last ? first : candidate + 1;
      const ip = family === "IPv4" ? `${v4Prefix}${candidate >> 8}.${candidate & 0xff}` : `${v6Prefix}${candidate.toString(16)}`;
      if (!taken.has(ip)) return ip;
    }
    throw new ApiError(500, "InternalError", `failed to allocate a serviceIP: the ${family} range is full`);
  }
}

function familiesOf(spec: JsonObject): readonly Family[] {
  const named = arrayAt(spec["ipFamilies"]).filter((family): family is Family => family === "IPv4" || family === "IPv6");
  const addressed = [...arrayAt(spec["clusterIPs"]), spec["clusterIP"]].find((ip) => typeof ip === "string" && (isIPv4(ip) || isIPv6(ip)));
  const first = named[0] ?? (typeof addressed === "string" && isIPv6(addressed) ? "IPv6" : "IPv4");
  const dual =
    spec["ipFamilyPolicy"] === "PreferDualStack" || spec["ipFamilyPolicy"] === "RequireDualStack" || (spec["ipFamilyPolicy"] === undefined && named.length > 1);
  return dual ? [first, first === "IPv4" ? "IPv6" : "IPv4"] : [first];
}

function problems(spec: JsonObject, before: JsonObject): readonly FieldError[] {
  const errors: FieldError[] = [];
  const old = before["clusterIP"];
  if (typeof old === "string" && old !== "" && before["type"] !== "ExternalName" && spec["clusterIP"] !== old) {
    errors.push(invalid("spec.clusterIP", spec["clusterIP"], "field is immutable"));
  }
  const policy = spec["ipFamilyPolicy"];
  if (policy !== undefined && !["SingleStack", "PreferDualStack", "RequireDualStack"].includes(String(policy))) {
    errors.push({
      kind: "FieldValueNotSupported",
      field: "spec.ipFamilyPolicy",
      detail: 'Unsupported value: supported values: "PreferDualStack", "RequireDualStack", "SingleStack"',
    });
  }
  for (const ip of [spec["clusterIP"], ...arrayAt(spec["clusterIPs"])]) {
    if (typeof ip !== "string" || ip === "" || ip === "None") continue;
    const inRange = (isIPv4(ip) && ip.startsWith(v4Prefix)) || (isIPv6(ip) && ip.toLowerCase().startsWith(v6Prefix));
    if (!inRange) errors.push(invalid("spec.clusterIPs", ip, "the provided IP is not in the valid range: 10.96.0.0/16 or fd00:10:96::/112"));
  }
  if (arrayAt(spec["ipFamilies"]).some((family) => isObject(family) || (family !== "IPv4" && family !== "IPv6"))) {
    errors.push(invalid("spec.ipFamilies", spec["ipFamilies"], "supported values: IPv4, IPv6"));
  }
  return errors;
}
