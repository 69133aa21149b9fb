/** Address resources: one workload or one service each, and the names under which they may be asked for (controller contract 2.2). */
import type { Service, Workload } from "@fairway/model";
import * as wire from "./gen/istio/workload/workload.ts";
import { serviceFromWire, serviceToWire } from "./service-codec.ts";
import { readMessage, requireField } from "./wire.ts";
import { workloadFromWire, workloadToWire } from "./workload-codec.ts";

export const addressTypeUrl = "type.googleapis.com/istio.workload.Address";
/** Served by control planes, subscribed by nobody here: a bare Workload. */
export const workloadTypeUrl = "type.googleapis.com/istio.workload.Workload";

export type MeshAddress = { readonly kind: "workload"; readonly workload: Workload } | { readonly kind: "service"; readonly service: Service };

/** Equal workloads give equal bytes. */
export function encodeWorkload(workload: Workload): Uint8Array {
  return wire.Address.encode({ type: { $case: "workload", value: workloadToWire(workload) } }).finish();
}

/** Equal services give equal bytes. */
export function encodeService(service: Service): Uint8Array {
  return wire.Address.encode({ type: { $case: "service", value: serviceToWire(service) } }).finish();
}

/** `name` is what it was sent under: a workload's uid is that same string then, not a second one. Throws ProtocolDecodeError and nothing else. */
export function decodeAddress(bytes: Uint8Array, name?: string): MeshAddress {
  const type = requireField("type", readMessage(wire.Address, "istio.workload.Address", bytes).type);
  return type.$case === "workload"
    ? { kind: "workload", workload: workloadFromWire(type.value, name) }
    : { kind: "service", service: serviceFromWire(type.value) };
}

/** `<network>/<ip>` for each address; the resource's name is its uid. */
export function workloadAliases({ network, addresses }: Workload): string[] {
  return addresses.map((ip) => `${network}/${ip}`);
}

/** `<network>/<vip>` for each host, `<network>/<ip>/<length>` for each range; the resource's name is `<namespace>/<hostname>`. */
export function serviceAliases({ vips, cidrVips }: Service): string[] {
  return [...vips.map(({ network, ip }) => `${network}/${ip}`), ...cidrVips.map(({ network, range }) => `${network}/${range.ip}/${range.length}`)];
}
