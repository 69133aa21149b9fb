/** What crosses between the nodes, as a packet capture sees it. */
import type { CapturedPacket } from "@fairway/linux";
import type { Cluster } from "@fairway/local-cluster";

export interface WireReport {
  /** TCP packets between the pods that are watched. */
  readonly packets: number;
  /** Those with port 15008 at one end, and the bytes they carried. */
  readonly tunnelPackets: number;
  readonly tunnelBytes: number;
  /** Packets between those pods on any other port that carried bytes. */
  readonly otherPackets: number;
  /** Packets, of anybody, in which the marker could be read. */
  readonly readable: number;
  /** Frames that the capture had no room for: above 0, absence proves nothing. */
  readonly dropped: number;
}

const tunnelPort = 15_008;

/** Captures on the underlay while `during` runs. `marker` is text that the application sends and receives. */
export async function watchWire(cluster: Cluster, podAddresses: ReadonlySet<string>, marker: string, during: () => Promise<void>): Promise<WireReport> {
  const report = { packets: 0, tunnelPackets: 0, tunnelBytes: 0, otherPackets: 0, readable: 0, dropped: 0 };
  const needle = Buffer.from(marker);
  const onPacket = ({ protocol, source, destination, payload }: CapturedPacket): void => {
    if (Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).includes(needle)) report.readable++;
    if (protocol !== "tcp" || !podAddresses.has(source.ip) || !podAddresses.has(destination.ip)) return;
    report.packets++;
    if (source.port === tunnelPort || destination.port === tunnelPort) {
      report.tunnelPackets++;
      report.tunnelBytes += payload.byteLength;
    } else if (payload.byteLength > 0) {
      report.otherPackets++;
    }
  };
  const capture = cluster.capture("underlay", onPacket);
  try {
    await during();
    // Packets still in the ring when the last answer arrived are read before the capture ends.
    await new Promise((resolve) => setTimeout(resolve, settleMs));
  } finally {
    report.dropped = capture.counts.dropped;
    await capture[Symbol.asyncDispose]();
  }
  return report;
}

const settleMs = 200;
