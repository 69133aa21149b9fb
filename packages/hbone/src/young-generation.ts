/**
 * When V8 collects young objects: the one thing that decides what a byte through a proxy costs (docs/performance.md has the figures).
 *
 * A proxy makes few objects and many buffers, and V8 frees the buffers of young objects only when it collects those objects. By its own
 * measure, which leaves the buffers out, it does so too rarely; the memory behind the buffers then forces full collections, several a second.
 */
import { setFlagsFromString } from "node:v8";

/** Of buffers, between two collections: fewer bytes cost bulk up to a tenth more, and V8 alone lets the full collections come first. */
const bytesPerCollection = 4 * 1024 * 1024;

/** Since the last collection. A heap belongs to a thread, and so does this count: each thread has a module of its own. */
let bytes = 0;

/**
 * Collects young objects whenever so much of them is in use, in percent; V8's own is 80. Low enough for bulk, it is many collections for
 * everything else. Call once, before worker threads start.
 */
export function collectYoungObjectsEarly(percent: number): void {
  setFlagsFromString(`--minor-gc-task-trigger=${percent}`);
}

/**
 * Collects young objects by the bytes that were moved, in every worker thread started from now on. A main thread that carries traffic itself is
 * started with `--expose-gc` instead. Either wants a semi-space of a few megabytes, or the objects of small requests fill the cache.
 */
export function collectYoungObjectsByBytes(): void {
  setFlagsFromString("--expose-gc");
}

/** A buffer of that length came in. Every copy calls it for what it reads. */
export function noteBuffer(length: number): void {
  bytes += length;
  if (bytes < bytesPerCollection) return;
  bytes = 0;
  globalThis.gc?.({ type: "minor" });
}
