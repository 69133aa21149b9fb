/** What the demo claims, each line measured: what was observed, beside what has to be. */
import pc from "picocolors";
import { table } from "../output.ts";

export interface Observation {
  readonly stage: string;
  readonly claim: string;
  /** What was measured, in words and numbers. */
  readonly observed: string;
  readonly holds: boolean;
}

/** Collects observations; a claim that cannot be measured is one that does not hold. */
export class Observations {
  readonly #all: Observation[] = [];
  readonly #onObservation: (observation: Observation) => void;

  constructor(onObservation: (observation: Observation) => void) {
    this.#onObservation = onObservation;
  }

  async observe(stage: string, claim: string, measure: () => Promise<{ observed: string; holds: boolean }>): Promise<void> {
    const measured = await measure().catch((thrown: unknown) => ({
      observed: `could not be measured: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      holds: false,
    }));
    const observation = { stage, claim, ...measured };
    this.#all.push(observation);
    this.#onObservation(observation);
  }

  get all(): readonly Observation[] {
    return this.#all;
  }

  /** True when there is at least one observation and every one holds. */
  get allHold(): boolean {
    return this.#all.length > 0 && this.#all.every((observation) => observation.holds);
  }

  toTable(): string {
    const mark = (holds: boolean): string => (holds ? pc.green("✔") : pc.red("✘"));
    return table(
      ["", "stage", "claim", "observed"],
      this.#all.map(({ stage, claim, observed, holds }) => [mark(holds), stage, claim, observed]),
    );
  }
}
