/** What the parts of a soak know of one another. */

/** Of the application in the second pod; nobody listens on the last one. */
export const ports = { echo: 8_000, source: 8_001, reset: 8_002, denied: 8_003, nobody: 8_004 } as const;
/** Where the program under test finds its control plane. */
export const discoveryPort = 15_010;

export interface ChurnCounts {
  connections: number;
  /** Echoes that came back whole, and those that did not: a pod was away, or a policy changed. */
  whole: number;
  broken: number;
  /** An echo that came back otherwise than it went: never. */
  wrong: number;
}
