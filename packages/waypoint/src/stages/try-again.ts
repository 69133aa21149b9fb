/**
 * Attempts (waypoint contract rows 32 to 36): another endpoint, after a jittered wait, as long as nothing was answered to the client and the
 * request can be sent again as a whole. Each has its own limit of time; all are bounded by the cluster's retry breaker.
 */
import type { RetryPolicy } from "@fairway/model";
import { type Clock, MeshError } from "@fairway/runtime";
import type { Exchange, Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";
import type { Answer } from "../http-connection.ts";
import { ReplayBody } from "../replay-body.ts";
import { backoffMs, shouldRetryAnswer, shouldRetryError } from "../retry.ts";
import { discard } from "../watched-body.ts";

export interface RetryOptions {
  readonly clock: Clock;
  readonly random: () => number;
  /** A place among the retries of the cluster; undefined when all are taken. */
  readonly tryTakeRetry: (cluster: string) => (() => void) | undefined;
  readonly onRetry: (exchange: Exchange) => void;
  readonly replayBytes: number;
}

/** Bytes of an answer nobody gets that are read rather than cut off. */
const discardBytes = 64 * 1024;

type Outcome = { readonly answer: Answer } | { readonly error: unknown };

export function tryAgain(options: RetryOptions): Stage {
  return (exchange, next) => {
    const { route, body, request } = exchange;
    const policy = route?.action.kind === "forward" ? route.action.retry : undefined;
    if (policy === undefined || policy.attempts === 0) return once(exchange, options, policy, next);
    // The bytes of an upgraded connection belong to it: they are sent once, after the 101.
    const replay = body.length === 0 || request.upgrade !== undefined ? undefined : new ReplayBody(body, options.replayBytes);
    return new Attempts(exchange, options, policy, replay, next).run();
  };
}

/** The attempt that every exchange begins with. */
function once(exchange: Exchange, options: RetryOptions, policy: RetryPolicy | undefined, next: () => Promise<Answer>): Promise<Answer> {
  exchange.record.attempts = 1;
  setAttemptCount(exchange);
  return policy?.perTryTimeoutMs === undefined ? next() : onceInTime(exchange, options.clock, policy.perTryTimeoutMs, next);
}

async function onceInTime(exchange: Exchange, clock: Clock, limitMs: number, next: () => Promise<Answer>): Promise<Answer> {
  const outcome = await timed(exchange, clock, limitMs, next);
  if ("error" in outcome) throw outcome.error;
  return outcome.answer;
}

class Attempts {
  readonly #exchange: Exchange;
  readonly #options: RetryOptions;
  readonly #policy: RetryPolicy;
  readonly #replay: ReplayBody | undefined;
  readonly #next: () => Promise<Answer>;
  readonly #tried = new Set<string>();

  constructor(exchange: Exchange, options: RetryOptions, policy: RetryPolicy, replay: ReplayBody | undefined, next: () => Promise<Answer>) {
    this.#exchange = exchange;
    this.#options = options;
    this.#policy = policy;
    this.#replay = replay;
    this.#next = next;
  }

  async run(): Promise<Answer> {
    const exchange = this.#exchange;
    let release: (() => void) | undefined;
    try {
      for (let number = 1; ; number++) {
        const outcome = await this.#attempt(number);
        release?.();
        release = undefined;
        if (!this.#failed(outcome)) return this.#settle(outcome);
        if (number > this.#policy.attempts) {
          exchange.record.flags.add("URX");
          return this.#settle(outcome);
        }
        if (this.#replay?.replayable === false || exchange.signal.aborted) return this.#settle(outcome);
        release = this.#options.tryTakeRetry(exchange.backend?.cluster ?? "");
        if (release === undefined) return this.#settle(outcome);
        if ("answer" in outcome)
          discard(outcome.answer.body, discardBytes, waypointError("WAYPOINT_UPSTREAM_RESET", "the answer is not used: the request is tried again"));
        this.#options.onRetry(exchange);
        await this.#options.clock.sleep(backoffMs(this.#policy, number, this.#options.random), { signal: exchange.signal });
      }
    } finally {
      release?.();
    }
  }

  async #attempt(number: number): Promise<Outcome> {
    const exchange = this.#exchange;
    exchange.record.attempts = number;
    exchange.record.flags.clear();
    if (this.#replay !== undefined) exchange.body = this.#replay.attempt();
    exchange.attempt = { number, signal: exchange.signal, tried: this.#tried };
    setAttemptCount(exchange);
    return timed(exchange, this.#options.clock, this.#policy.perTryTimeoutMs, this.#next);
  }

  #failed(outcome: Outcome): boolean {
    return "answer" in outcome ? shouldRetryAnswer(this.#policy, this.#exchange.head, outcome.answer) : shouldRetryError(this.#policy, outcome.error);
  }

  #settle(outcome: Outcome): Answer {
    if ("answer" in outcome) {
      this.#replay?.settle();
      return outcome.answer;
    }
    this.#replay?.cancel(MeshError.from(outcome.error, "WAYPOINT_INTERNAL"));
    throw outcome.error;
  }
}

/** The limit is for the answer's head; after it the exchange's own limit holds. */
async function timed(exchange: Exchange, clock: Clock, afterMs: number | undefined, next: () => Promise<Answer>): Promise<Outcome> {
  if (afterMs === undefined) return settled(next);
  const controller = new AbortController();
  using _timer = clock.schedule(afterMs, () => controller.abort(waypointError("WAYPOINT_PER_TRY_TIMEOUT", `the attempt took longer than ${afterMs} ms`)));
  exchange.attempt = { ...exchange.attempt, signal: AbortSignal.any([exchange.signal, controller.signal]) };
  return await settled(next);
}

async function settled(next: () => Promise<Answer>): Promise<Outcome> {
  try {
    return { answer: await next() };
  } catch (error) {
    return { error };
  }
}

/** The headers are this exchange's own since they were sanitised, and those of the attempt before are written. */
function setAttemptCount({ head, attempt }: Exchange): void {
  head.headers.set("x-envoy-attempt-count", String(attempt.number));
}
