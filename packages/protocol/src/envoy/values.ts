/** The small messages that many resources share: any, duration, address, range, metadata and the source of other resources. */

import type { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import { type Cidr, isPort, parseCidr, parseIp, type SocketAddress } from "@fairway/model";
import * as address from "../gen/resources/envoy/config/core/v3/address.ts";
import { DataSource, type Metadata } from "../gen/resources/envoy/config/core/v3/base.ts";
import { AggregatedConfigSource, ApiVersion, ConfigSource } from "../gen/resources/envoy/config/core/v3/config_source.ts";
import type { Any } from "../gen/resources/google/protobuf/any.ts";
import { Duration } from "../gen/resources/google/protobuf/duration.ts";
import { readMessage } from "../wire.ts";
import type { Place } from "./place.ts";

interface MessageType<T> {
  readonly $type: string;
  encode(message: T): BinaryWriter;
  decode(input: BinaryReader | Uint8Array): T;
}

const typeUrlPrefix = "type.googleapis.com/";
/** What Envoy's duration holds at most (10,000 years); everything below is exact in milliseconds. */
const maxDurationSeconds = 315_576_000_000;

export function typeUrlOf({ $type }: { readonly $type: string }): string {
  return `${typeUrlPrefix}${$type}`;
}

export function pack<T>(type: MessageType<T>, message: T): Any {
  return { typeUrl: typeUrlOf(type), value: type.encode(message).finish() };
}

/** `any` is known to be of that type. */
export function unpack<T>(type: MessageType<T>, any: Any): T {
  return readMessage(type, type.$type, any.value);
}

export function isPacked({ $type }: { readonly $type: string }, any: Any): boolean {
  return any.typeUrl === `${typeUrlPrefix}${$type}`;
}

export function durationToWire(milliseconds: number): Duration {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds, nanos: Math.round((milliseconds - seconds * 1000) * 1e6) };
}

export function durationFromWire(place: Place, { seconds, nanos, ...rest }: Duration): number {
  place.refuseRest(Duration, rest);
  if (seconds < 0 || seconds > maxDurationSeconds || nanos < 0 || nanos > 999_999_999) throw place.invalid(`${seconds} s ${nanos} ns is not a duration`);
  return seconds * 1000 + nanos / 1e6;
}

/** The model has no limit where Envoy has 0. */
export function timeoutToWire(milliseconds: number | undefined): Duration {
  return durationToWire(milliseconds ?? 0);
}

export function timeoutFromWire(place: Place, duration: Duration): number | undefined {
  const milliseconds = durationFromWire(place, duration);
  return milliseconds === 0 ? undefined : milliseconds;
}

export function socketAddressToWire({ ip, port }: SocketAddress): address.Address {
  return address.Address.fromPartial({
    address: { $case: "socketAddress", value: { address: ip, portSpecifier: { $case: "portValue", value: port } } },
  });
}

/** Port 0 is refused unless it must be 0. */
export function socketAddressFromWire(place: Place, message: address.SocketAddress, portIsZero = false): SocketAddress {
  const { address: ip, portSpecifier, ...rest } = message;
  place.refuseRest(address.SocketAddress, rest);
  if (portSpecifier?.$case === "namedPort") throw place.at("named_port").unsupported();
  const port = portSpecifier?.value ?? 0;
  if (portIsZero ? port !== 0 : !isPort(port)) throw place.at("port_value").invalid(`${port} is not ${portIsZero ? "0" : "a port"}`);
  return { ip: place.at("address").parse(() => parseIp(ip)), port };
}

export function cidrToWire({ ip, length }: Cidr): address.CidrRange {
  return { addressPrefix: ip, prefixLen: length };
}

export function cidrFromWire(place: Place, { addressPrefix, prefixLen, ...rest }: address.CidrRange): Cidr {
  place.refuseRest(address.CidrRange, rest);
  return place.parse(() => parseCidr(`${addressPrefix}/${prefixLen ?? 0}`));
}

/** Other resources come over the same stream. */
export const adsSource: ConfigSource = ConfigSource.fromPartial({
  configSourceSpecifier: { $case: "ads", value: {} },
  resourceApiVersion: ApiVersion.V3,
});

export function checkAdsSource(place: Place, source: ConfigSource | undefined): void {
  const { configSourceSpecifier, resourceApiVersion, ...rest } = place.required(source);
  place.refuseRest(ConfigSource, rest, { initialFetchTimeout: "how long to wait for a resource is the xDS client's matter" });
  if (configSourceSpecifier?.$case !== "ads") throw place.refuse("config_source_specifier", configSourceSpecifier);
  place.at("ads").refuseRest(AggregatedConfigSource, configSourceSpecifier.value);
  if (resourceApiVersion !== ApiVersion.V3 && resourceApiVersion !== ApiVersion.AUTO) throw place.at("resource_api_version").unknownEnum(resourceApiVersion);
}

export function inlineText(text: string): DataSource {
  return DataSource.fromPartial({ specifier: { $case: "inlineString", value: text } });
}

export function inlineTextFromWire(place: Place, { specifier, ...rest }: DataSource): string {
  place.refuseRest(DataSource, rest);
  if (specifier?.$case !== "inlineString") throw place.refuse("specifier", specifier);
  return specifier.value;
}

/** Envoy's common key for what the mesh knows about a resource. */
const meshMetadata = "istio";

export function metadataToWire(entries: Readonly<Record<string, Readonly<Record<string, unknown>>>>): Metadata {
  return { filterMetadata: new Map(Object.entries(entries)), typedFilterMetadata: new Map() };
}

export function meshMetadataToWire(values: Readonly<Record<string, unknown>>): Metadata {
  return metadataToWire({ [meshMetadata]: values });
}

/** What the mesh says about a resource; other metadata belongs to other readers. */
export function meshMetadataFromWire(metadata: Metadata | undefined): Readonly<Record<string, unknown>> {
  return metadata?.filterMetadata.get(meshMetadata) ?? {};
}

export function textOf(place: Place, values: Readonly<Record<string, unknown>>, key: string): string {
  const value = values[key];
  if (typeof value !== "string") throw place.at(`metadata.${meshMetadata}.${key}`).invalid("not a text");
  return value;
}
