/** A stream of bytes that both ends can make on their own, so that a checksum needs no second channel. */
import { createCipheriv, createHash } from "node:crypto";
import { Readable } from "node:stream";

const chunkBytes = 256 * 1024;

/** The first `bytes` bytes of the test stream: AES-128-CTR of zeroes under a fixed key. */
export function testStream(bytes: number): Readable {
  return Readable.from(chunks(bytes), { objectMode: false, highWaterMark: 4 * chunkBytes });
}

export function testStreamDigest(bytes: number): string {
  const hash = createHash("sha256");
  for (const chunk of chunks(bytes)) hash.update(chunk);
  return hash.digest("hex");
}

function* chunks(bytes: number): Generator<Buffer> {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeroes = Buffer.alloc(chunkBytes);
  for (let left = bytes; left > 0; left -= chunkBytes) yield cipher.update(left >= chunkBytes ? zeroes : zeroes.subarray(0, left));
}
