/** Received bytes that nobody took yet. Small pieces are copied together, so that many of them cost little more than their bytes. */

/** Smaller pieces are copied; larger ones stay views, each of which holds at most a chunk of the transport. */
const smallPiece = 4 * 1024;
const smallestBlock = 256;
const largestBlock = 16 * 1024;
const nothing: readonly Buffer[] = [];

export class ByteQueue {
  #pieces: Buffer[] | undefined;
  #bytes = 0;
  /** The block that small pieces are copied to: the last piece is its used part. */
  #block: Buffer | undefined;
  #used = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** `compact` when it may be long before somebody takes the piece. */
  push(piece: Buffer, compact: boolean): void {
    this.#pieces ??= [];
    this.#bytes += piece.length;
    if (compact && piece.length < smallPiece) {
      this.#copy(this.#pieces, piece);
      return;
    }
    this.#block = undefined;
    this.#pieces.push(piece);
  }

  /** Everything, in order; the queue is empty after it. */
  take(): readonly Buffer[] {
    const pieces = this.#pieces ?? nothing;
    this.#pieces = undefined;
    this.#block = undefined;
    this.#bytes = 0;
    return pieces;
  }

  #copy(pieces: Buffer[], piece: Buffer): void {
    let from = 0;
    while (from < piece.length) {
      if (this.#block === undefined || this.#used === this.#block.length) {
        // Grows with what is queued, so that the blocks' unused ends stay a small part of it.
        this.#block = Buffer.allocUnsafeSlow(Math.max(smallestBlock, Math.min(largestBlock, this.#bytes)));
        this.#used = 0;
        pieces.push(this.#block.subarray(0, 0));
      }
      const length = Math.min(piece.length - from, this.#block.length - this.#used);
      piece.copy(this.#block, this.#used, from, from + length);
      this.#used += length;
      from += length;
      pieces[pieces.length - 1] = this.#block.subarray(0, this.#used);
    }
  }
}
