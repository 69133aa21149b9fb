/** By which names proxyless gRPC clients ask: `<host>:<port>` for listeners and routes, `outbound|<port>||<host>` for clusters and endpoints. */
import { isPort } from "@fairway/model";

/** A port of a Service. */
export interface ServicePortName {
  /** `<namespace>/<name>` of the Service. */
  readonly service: string;
  readonly port: number;
}

const longestName = 512;

/** `api:80`, `api.shop:80`, `api.shop.svc:80` or the whole hostname; a short name is one of the client's `namespace`. */
export function readListenerName(name: string, { namespace, clusterDomain }: { namespace: string; clusterDomain: string }): ServicePortName | undefined {
  if (name.length > longestName) return undefined;
  const at = name.lastIndexOf(":");
  const port = readPort(name.slice(at + 1));
  if (at < 0 || port === undefined) return undefined;
  const host = name.slice(0, at);
  const suffix = [`.svc.${clusterDomain}`, ".svc"].find((end) => host.endsWith(end)) ?? "";
  const parts = host.slice(0, host.length - suffix.length).split(".");
  const [service, its = suffix === "" ? namespace : "", ...more] = parts;
  return service === undefined || service === "" || its === "" || more.length > 0 ? undefined : { service: `${its}/${service}`, port };
}

export function readClusterName(name: string, clusterDomain: string): ServicePortName | undefined {
  const [direction, port, subset, host, ...more] = name.slice(0, longestName).split("|");
  if (direction !== "outbound" || subset !== "" || host?.endsWith(`.svc.${clusterDomain}`) !== true || more.length > 0) return undefined;
  return readListenerName(`${host}:${port ?? ""}`, { namespace: "", clusterDomain });
}

function readPort(text: string): number | undefined {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : 0;
  return port > 0 && isPort(port) ? port : undefined;
}
