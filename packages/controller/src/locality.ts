/** Where a node is: reduced to what matters, so that a node's heartbeat recomputes no workload. */
import type { Node } from "@fairway/kube";
import type { Locality } from "@fairway/model";
import { label } from "./labels.ts";

/** Undefined when the node says nothing about it (controller contract 2.4). */
export function nodeLocality({ metadata: { labels = {} } }: Node): Locality | undefined {
  const region = labels[label.region] ?? "";
  const zone = labels[label.zone] ?? "";
  const subzone = labels[label.subzone] ?? "";
  return region === "" && zone === "" && subzone === "" ? undefined : { region, zone, subzone };
}
