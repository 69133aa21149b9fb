/**
 * What the node agent connects to from inside a pod to see that the pod is captured, and ztunnel, which alone can be the one to answer,
 * recognises: it closes such a connection at once and carries it nowhere.
 */

export interface CaptureProbeDestination {
  readonly ip: string;
  readonly port: number;
}

/**
 * Addresses that exist nowhere (RFC 5737 TEST-NET-1, RFC 3849), in the form that the model writes addresses in. One for each family: a pod
 * of one family has no route to the other.
 */
export const captureProbeDestinations: readonly CaptureProbeDestination[] = [
  { ip: "192.0.2.1", port: 15_001 },
  { ip: "2001:db8::1", port: 15_001 },
];

/** Whether a captured connection is the node agent's question. */
export function isCaptureProbe({ ip, port }: CaptureProbeDestination): boolean {
  return captureProbeDestinations.some((destination) => destination.ip === ip && destination.port === port);
}
