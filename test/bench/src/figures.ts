/** What was measured, by name and arm, repetition by repetition. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** All repetitions, by arm. */
  readonly samples: ReadonlyMap<string, readonly number[]>;
}

export class Figures {
  readonly #figures = new Map<string, { readonly name: string; readonly unit: string; readonly samples: Map<string, number[]> }>();

  record(name: string, unit: string, arm: string, value: number): void {
    const figure = this.#figures.get(name) ?? { name, unit, samples: new Map<string, number[]>() };
    this.#figures.set(name, figure);
    figure.samples.set(arm, [...(figure.samples.get(arm) ?? []), value]);
  }

  all(): readonly Figure[] {
    return [...this.#figures.values()];
  }
}
