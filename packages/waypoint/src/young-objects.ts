/** How much the threads that carry traffic make before they collect it (docs/performance.md has the figures). */
import type { ResourceLimits } from "node:worker_threads";
import { collectYoungObjectsEarly } from "@fairway/hbone";

/**
 * V8 makes the semi-space a third of it, 4 MB. Left alone it grows to 16 MB with small requests, and then bodies, whose bytes V8 does not count
 * there, force a full collection every 10 MB.
 */
export const trafficThreadMemory: ResourceLimits = { maxYoungGenerationSizeMb: 12 };
/** Of the semi-space: 1 MB is 7 MB of a body, and the objects of about 100 requests. Less costs requests, more costs bodies. */
const collectAtPercent = 25;

/** Call once, before the threads start. */
export function boundYoungObjects(): void {
  collectYoungObjectsEarly(collectAtPercent);
}
