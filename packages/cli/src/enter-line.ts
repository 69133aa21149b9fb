/** How the reader reaches the cluster's API. */
import { enterWords } from "@fairway/local-cluster";

/** A line for the reader to run first: without root the cluster's API is in a network of its own. Empty where it is not. */
export function enterLine(pid: number): string {
  const words = enterWords(pid);
  return words.length === 0 ? "" : `  ${[...words, "$SHELL"].join(" ")}\n`;
}
