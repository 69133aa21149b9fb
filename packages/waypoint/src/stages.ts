/** The way of a request: every step in its order, and nothing else decides the order. docs/request.md has each step's error exit. */
import type { PathNormalization, RequestVerdict, WaypointConfig } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { Exchange, Stage } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import type { Answer } from "./http-connection.ts";
import { answerHere } from "./stages/answer-here.ts";
import { authenticate } from "./stages/authenticate.ts";
import { authorize } from "./stages/authorize.ts";
import { changeHeaders } from "./stages/change-headers.ts";
import { forward } from "./stages/forward.ts";
import { govern } from "./stages/govern.ts";
import { mirror } from "./stages/mirror.ts";
import { normalise } from "./stages/normalise.ts";
import { observe } from "./stages/observe.ts";
import { rescue } from "./stages/rescue.ts";
import { route } from "./stages/route.ts";
import { sanitise } from "./stages/sanitise.ts";
import { timeout } from "./stages/timeout.ts";
import { trace } from "./stages/trace.ts";
import { tryAgain } from "./stages/try-again.ts";
import type { RequestTelemetry } from "./telemetry.ts";
import type { TokenVerifier } from "./token-verifier.ts";
import type { Tracer } from "./tracer.ts";
import type { Upstreams } from "./upstreams.ts";

export interface StageParts {
  readonly clock: Clock;
  /** Returns 0..1. */
  readonly random: () => number;
  readonly newRequestId: () => string;
  readonly pathNormalization: PathNormalization;
  readonly trustedHops: number;
  readonly replayBytes: number;
  readonly config: () => WaypointConfig;
  readonly telemetry: RequestTelemetry;
  readonly tracer: Tracer;
  readonly tokens: TokenVerifier;
  readonly upstreams: Upstreams;
  readonly onObserved: (exchange: Exchange, observed: RequestVerdict["observed"]) => void;
}

export function requestStages(parts: StageParts): readonly Stage[] {
  const { clock, upstreams } = parts;
  return [
    observe(parts.telemetry),
    trace(parts.tracer),
    rescue(),
    govern(parts),
    normalise(parts),
    sanitise(parts),
    authenticate(parts.tokens),
    authorize(parts),
    route({ ...parts, routeTable: (name) => parts.config().routeTables.get(name) }),
    changeHeaders(),
    answerHere(),
    mirror(parts),
    timeout(parts),
    tryAgain({ ...parts, tryTakeRetry: (cluster) => upstreams.tryTakeRetry(cluster), onRetry: (exchange) => parts.telemetry.retried(exchange) }),
    forward({ upstreams, now: () => clock.monotonic() }),
  ];
}

/** Runs the stages; a stage may run the rest more than once. Rejects with whatever no stage rescued. */
export function runStages(stages: readonly Stage[], exchange: Exchange): Promise<Answer> {
  const run = (index: number): Promise<Answer> => {
    const stage = stages[index];
    if (stage === undefined) throw waypointError("WAYPOINT_INTERNAL", "the last stage passed the request on");
    return stage(exchange, () => run(index + 1));
  };
  return run(0);
}
