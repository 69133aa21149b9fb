/** The frames of HTTP/2 (RFC 9113 section 4 and 6): their types, flags and settings, and how their bytes are written. */

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const frameFlags = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const settingIds = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export type Setting = readonly [id: number, value: number];

/** What a client's connection starts with (RFC 9113 3.4). */
export const clientPreface: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const frameHeaderLength = 9;
/** Values before any SETTINGS (RFC 9113 6.5.2). */
export const defaultWindow = 65_535;
export const defaultFrameSize = 16_384;
export const maxFrameSize = 16_777_215;
export const maxWindow = 2_147_483_647;
export const maxStreamId = 2_147_483_647;
export const pingLength = 8;
const settingLength = 6;

export function writeFrameHeader(into: Buffer, at: number, length: number, type: number, flags: number, stream: number): void {
  into[at] = length >>> 16;
  into[at + 1] = length >>> 8;
  into[at + 2] = length;
  into[at + 3] = type;
  into[at + 4] = flags;
  into[at + 5] = stream >>> 24;
  into[at + 6] = stream >>> 16;
  into[at + 7] = stream >>> 8;
  into[at + 8] = stream;
}

export function readUint32(from: Uint8Array, at: number): number {
  return (((from[at] ?? 0) << 24) | ((from[at + 1] ?? 0) << 16) | ((from[at + 2] ?? 0) << 8) | (from[at + 3] ?? 0)) >>> 0;
}

/** The low 31 bits: stream identifiers and window increments, whose top bit is reserved and ignored. */
export function readUint31(from: Uint8Array, at: number): number {
  return readUint32(from, at) & 0x7fff_ffff;
}

export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

export function settingsPayload(settings: readonly Setting[]): Buffer {
  const payload = Buffer.allocUnsafe(settings.length * settingLength);
  for (const [index, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, index * settingLength);
    payload.writeUInt32BE(value, index * settingLength + 2);
  }
  return payload;
}

/** `payload` is whole entries; the reader saw to that. */
export function parseSettings(payload: Buffer): Setting[] {
  const settings: Setting[] = [];
  for (let at = 0; at + settingLength <= payload.length; at += settingLength) settings.push([payload.readUInt16BE(at), payload.readUInt32BE(at + 2)]);
  return settings;
}

export function isWholeSettings(length: number): boolean {
  return length % settingLength === 0;
}

export function settingsLength(entries: number): number {
  return entries * settingLength;
}
