/**
 * The writing end of a connection: frames are laid side by side into a slab, and what a turn of the event loop brought together goes out as
 * one write, which TLS cuts into full records. Slabs grow with the traffic and are used again once their bytes are gone.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { frameHeaderLength, frameTypes, writeFrameHeader } from "./frames.ts";
import { crowdedBytes, floodedBytes } from "./limits.ts";

const smallestSlab = 4 * 1024;
const largestSlab = 128 * 1024;
/** A DATA frame is not started for less room than this; a new slab is. */
const leastRoom = 2 * 1024;
const maxSpareSlabs = 3;

interface Slab {
  readonly bytes: Buffer;
  /** Writes of this slab that the transport has not finished. */
  writes: number;
}

export class Outbox {
  readonly #transport: Duplex;
  readonly #onRelieved: () => void;
  /** A socket has copied or sent a write's bytes when it is done with it; other streams may have handed the very bytes to a reader. */
  readonly #reusable: boolean;
  #slab: Slab | undefined;
  /** The slab's bytes from `#start` to `#end` are yet to be written. */
  #start = 0;
  #end = 0;
  #slabSize = smallestSlab;
  #spares: Slab[] = [];
  #inFlight = 0;
  #waiting = false;

  /** `onRelieved` is called when the outbox was crowded and no longer is. */
  constructor(transport: Duplex, onRelieved: () => void) {
    this.#transport = transport;
    this.#onRelieved = onRelieved;
    this.#reusable = transport instanceof Socket;
  }

  /** Bytes that the transport has not taken care of. */
  get unsent(): number {
    return this.#inFlight + this.#end - this.#start;
  }

  /** True when streams should keep their DATA; remembered, so that `onRelieved` follows. */
  get crowded(): boolean {
    if (this.unsent < crowdedBytes) return false;
    this.#waiting = true;
    return true;
  }

  /** True when the peer makes us answer and does not read the answers. */
  get flooded(): boolean {
    return this.unsent > floodedBytes;
  }

  /** A frame other than DATA. */
  frame(type: number, flags: number, stream: number, payload: Uint8Array): void {
    const slab = this.#room(frameHeaderLength + payload.length);
    writeFrameHeader(slab, this.#end, payload.length, type, flags, stream);
    slab.set(payload, this.#end + frameHeaderLength);
    this.#end += frameHeaderLength + payload.length;
  }

  /** Bytes that are no frame: the client's preface. */
  raw(bytes: Uint8Array): void {
    this.#room(bytes.length).set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** One DATA frame of at most `most` bytes of `chunk` from `offset` on; returns how many it took. */
  data(flags: number, stream: number, chunk: Buffer, offset: number, most: number): number {
    const wanted = Math.min(frameHeaderLength + most, largestSlab);
    let slab = this.#room(Math.min(wanted, leastRoom));
    // A turn that fills a small slab gets a larger one at once.
    if (slab.length - this.#end < wanted && slab.length < largestSlab) slab = this.#fresh(wanted);
    const length = Math.min(most, slab.length - this.#end - frameHeaderLength);
    writeFrameHeader(slab, this.#end, length, frameTypes.data, flags, stream);
    chunk.copy(slab, this.#end + frameHeaderLength, offset, offset + length);
    this.#end += frameHeaderLength + length;
    return length;
  }

  /** Hands everything gathered so far to the transport. */
  flush(): void {
    const slab = this.#slab;
    const length = this.#end - this.#start;
    if (slab === undefined || length === 0) return;
    const part = slab.bytes.subarray(this.#start, this.#end);
    this.#start = this.#end;
    if (!this.#transport.writable) return;
    this.#inFlight += length;
    slab.writes += 1;
    this.#transport.write(part, () => this.#written(slab, length));
  }

  /** Nothing was sent for a while: lets go of memory. */
  shrink(): void {
    this.#spares = [];
    this.#slabSize = smallestSlab;
    if (this.#start === this.#end) this.#slab = undefined;
    if (this.#slab === undefined) this.#start = this.#end = 0;
  }

  #written(slab: Slab, length: number): void {
    this.#inFlight -= length;
    slab.writes -= 1;
    if (slab.writes === 0 && this.#reusable) {
      if (slab !== this.#slab) this.#keep(slab);
      else if (this.#start === this.#end) this.#start = this.#end = 0;
    }
    if (this.#waiting && this.unsent < crowdedBytes / 2) {
      this.#waiting = false;
      this.#onRelieved();
    }
  }

  #keep(slab: Slab): void {
    if (this.#reusable && slab.bytes.length === this.#slabSize && this.#spares.length < maxSpareSlabs) this.#spares.push(slab);
  }

  /** A slab with `length` bytes free at `#end`. */
  #room(length: number): Buffer {
    if (this.#slab !== undefined && this.#slab.bytes.length - this.#end >= length) return this.#slab.bytes;
    return this.#fresh(length);
  }

  #fresh(length: number): Buffer {
    this.flush();
    const old = this.#slab;
    if (old !== undefined && this.#slabSize < largestSlab) {
      this.#slabSize = Math.min(largestSlab, this.#slabSize * 4);
      this.#spares = [];
    }
    if (old !== undefined && old.writes === 0) this.#keep(old);
    // The largest frame fits into the largest slab; in between a slab may be made to measure.
    const size = Math.max(this.#slabSize, length);
    const spare = size === this.#slabSize ? this.#spares.pop() : undefined;
    this.#slab = spare ?? { bytes: Buffer.allocUnsafeSlow(size), writes: 0 };
    this.#start = this.#end = 0;
    return this.#slab.bytes;
  }
}
