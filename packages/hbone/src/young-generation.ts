/** The one setting of V8 that decides what a byte through a proxy costs. */
import { setFlagsFromString } from "node:v8";

/** Of the young generation in use when a collection is scheduled between two turns of the event loop; V8's own is 80. */
const defaultPercent = 5;

/**
 * Collects young objects early. Call once, first thing in a process that carries traffic, before worker threads start.
 *
 * A proxy makes few objects and many buffers, and V8 frees the buffers of young objects only when it collects those objects. By its own
 * measure, which leaves the buffers out, it does so too rarely; the memory behind the buffers then forces full collections, several a second
 * (docs/performance.md has the figures).
 */
export function collectYoungObjectsEarly(percent: number = defaultPercent): void {
  setFlagsFromString(`--minor-gc-task-trigger=${percent}`);
}
