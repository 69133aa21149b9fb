/** Type URLs in the short words of metrics. */
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";

const words: ReadonlyMap<string, string> = new Map([
  [clusterTypeUrl, "cds"],
  [endpointTypeUrl, "eds"],
  [listenerTypeUrl, "lds"],
  [routeTypeUrl, "rds"],
]);

/** `cds`, `eds`, `lds`, `rds`; of other types the last part of the name: `address`, `authorization`. */
export function shortType(typeUrl: string): string {
  return words.get(typeUrl) ?? typeUrl.slice(typeUrl.lastIndexOf(".") + 1).toLowerCase();
}
