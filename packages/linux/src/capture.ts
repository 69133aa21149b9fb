/** What is on the wire, seen from an interface of a namespace: the proof that bytes between nodes are what they should be. */
import { type Clock, MeshError, messageOf, systemClock } from "@fairway/runtime";
import { DescriptorPoll } from "./descriptor-poll.ts";
import { inNamespace, type NetworkNamespace } from "./namespace.ts";
import { type Packet, parseFrame } from "./packet.ts";
import { AF_PACKET, bindSocket, closeDescriptor, errnoOf, getOption, interfaceIndex, openSocket, receivePacket, SOCK_RAW, setOption } from "./system-calls.ts";

const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const PACKET_STATISTICS = 6;
const PACKET_OUTGOING = 4;
const ETH_P_ALL = 0x0003;
const linkAddressBytes = 20;
const receiveBufferBytes = 64 * 1024 * 1024;
/** Larger than any frame, one that the kernel has not segmented yet included. */
const frameBytes = 256 * 1024;
/** Packets taken in one turn of the event loop. */
const packetsPerTurn = 512;

export interface CapturedPacket extends Packet {
  /** Milliseconds since the epoch, when it was read. */
  readonly at: number;
  readonly direction: "in" | "out";
}

export interface CaptureCounts {
  /** Frames the kernel gave to this capture, and frames it had no room for: then the capture proves nothing about absence. */
  readonly received: number;
  readonly dropped: number;
}

export interface Capture extends AsyncDisposable {
  readonly counts: CaptureCounts;
  close(): void;
}

/**
 * Calls `onPacket` for every TCP and UDP packet on an interface; the payload is the callee's to keep. On the loopback interface, where
 * each packet passes twice, only its arrival counts. Throws LINUX_CAPTURE_FAILED.
 */
export function capturePackets(
  namespace: NetworkNamespace | undefined,
  interfaceName: string,
  onPacket: (packet: CapturedPacket) => void,
  { clock = systemClock }: { readonly clock?: Clock } = {},
): Capture {
  let fd: number;
  try {
    fd = inNamespace(namespace, () => packetSocket(interfaceName));
  } catch (cause) {
    throw new MeshError("LINUX_CAPTURE_FAILED", `cannot capture on ${interfaceName}: ${messageOf(cause)}`, { cause, details: { errno: errnoOf(cause) } });
  }
  const frame = Buffer.alloc(frameBytes);
  const linkAddress = Buffer.alloc(linkAddressBytes);
  const onLoopback = interfaceName === "lo";
  let open = true;
  let total: CaptureCounts = { received: 0, dropped: 0 };
  const count = (): CaptureCounts => {
    if (open) total = added(total, statistics(fd));
    return total;
  };

  const take = (): boolean => {
    const length = receivePacket(fd, frame, linkAddress);
    if (length === undefined) return false;
    const direction = linkAddress.readUInt8(10) === PACKET_OUTGOING ? "out" : "in";
    const packet = parseFrame(frame.subarray(0, Math.min(length, frame.length)));
    if (packet === undefined || (onLoopback && direction === "out")) return true;
    onPacket({ ...packet, payload: Uint8Array.from(packet.payload), at: clock.now(), direction });
    return true;
  };
  const poll = new DescriptorPoll(fd, { readable: true, writable: false }, () => {
    for (let taken = 0; taken < packetsPerTurn && open; taken += 1) {
      try {
        if (!take()) return;
      } catch (thrown) {
        // A callback that throws, or an interface that went down (ENETDOWN, told once): the capture goes on.
        process.emitWarning(MeshError.from(thrown, "LINUX_CAPTURE_FAILED"));
      }
    }
  });
  const close = (): void => {
    if (!open) return;
    count();
    open = false;
    poll[Symbol.dispose]();
    closeDescriptor(fd);
  };
  return {
    get counts() {
      return count();
    },
    close,
    [Symbol.asyncDispose]: async () => close(),
  };
}

/** In a user namespace the system-wide bound stands (socket(7)); what does not fit is counted as dropped. */
function enlargeBuffer(fd: number): void {
  try {
    setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes);
  } catch (thrown) {
    if (errnoOf(thrown) !== "EPERM") throw thrown;
    setOption(fd, SOL_SOCKET, SO_RCVBUF, receiveBufferBytes);
  }
}

/** Made without a protocol, so that nothing arrives from other interfaces before the bind. */
function packetSocket(interfaceName: string): number {
  const index = interfaceIndex(interfaceName);
  if (index === 0) throw new MeshError("LINUX_INTERFACE_NOT_FOUND", `there is no interface ${interfaceName} in this network namespace`);
  const fd = openSocket(AF_PACKET, SOCK_RAW);
  try {
    enlargeBuffer(fd);
    const address = Buffer.alloc(linkAddressBytes);
    address.writeUInt16LE(AF_PACKET, 0);
    address.writeUInt16BE(ETH_P_ALL, 2);
    address.writeInt32LE(index, 4);
    bindSocket(fd, address);
    return fd;
  } catch (thrown) {
    closeDescriptor(fd);
    throw thrown;
  }
}

/** Reading the statistics resets them; dropped packets are part of the kernel's first number. */
function statistics(fd: number): CaptureCounts {
  const bytes = Buffer.alloc(8);
  getOption(fd, SOL_PACKET, PACKET_STATISTICS, bytes);
  const dropped = bytes.readUInt32LE(4);
  return { received: bytes.readUInt32LE(0) - dropped, dropped };
}

function added(a: CaptureCounts, b: CaptureCounts): CaptureCounts {
  return { received: a.received + b.received, dropped: a.dropped + b.dropped };
}
