/** Waiting for what the cluster will show. */
import { MeshError, systemClock } from "@fairway/runtime";

const readyTimeoutMs = 60_000;
const pollMs = 100;

/** Waits until `ask` has an answer, asking every 100 ms; throws naming what was awaited. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>, { timeoutMs = readyTimeoutMs }: { timeoutMs?: number } = {}): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  while (Date.now() < deadline) {
    const value = await ask().catch((thrown: unknown) => {
      last = thrown;
      return undefined;
    });
    if (value !== undefined) return value;
    await systemClock.sleep(pollMs, { signal: AbortSignal.timeout(timeoutMs) });
  }
  throw new MeshError("CLI_TIMEOUT", `${what} did not happen within ${timeoutMs / 1000} s`, { cause: last });
}
