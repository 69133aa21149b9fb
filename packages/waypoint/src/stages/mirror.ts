/**
 * Copies of requests for other clusters (waypoint contract row 21): sent beside the real one, answered into the void. They never delay it,
 * never fail it, and are dropped when they cannot keep up.
 */
import type { RequestHead } from "@fairway/model";
import { type Clock, MeshError } from "@fairway/runtime";
import type { Exchange, Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";
import { MirroredBody, mirrored } from "../mirrored-body.ts";
import type { Upstreams } from "../upstreams.ts";
import { discard } from "../watched-body.ts";

export interface MirrorOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly upstreams: Pick<Upstreams, "send">;
  readonly telemetry: { mirrorDropped(): void };
}

/** Copies under way at once, of one process. */
const maxMirrors = 1_000;
const mirrorTimeoutMs = 15_000;
/** Of an answer nobody reads. */
const discardBytes = 1024 * 1024;

export function mirror(options: MirrorOptions): Stage {
  let underWay = 0;
  return (exchange, next) => {
    const { route, request } = exchange;
    const mirrors = route?.action.kind === "forward" ? route.action.mirrors : [];
    if (mirrors.length === 0 || request.upgrade !== undefined) return next();
    for (const { cluster, fraction } of mirrors) {
      if (options.random() >= fraction) continue;
      if (underWay >= maxMirrors) {
        options.telemetry.mirrorDropped();
        continue;
      }
      underWay++;
      const copy = new MirroredBody(exchange.body.length);
      if (exchange.body.length !== 0) exchange.body = mirrored(exchange.body, copy);
      // Never rejects.
      void send(options, exchange, cluster, copy).finally(() => underWay--);
    }
    return next();
  };
}

async function send({ clock, upstreams, telemetry }: MirrorOptions, exchange: Exchange, cluster: string, body: MirroredBody): Promise<void> {
  const controller = new AbortController();
  const limit = exchange.route?.action.kind === "forward" ? (exchange.route.action.timeoutMs ?? mirrorTimeoutMs) : mirrorTimeoutMs;
  using _timer = clock.schedule(limit, () => controller.abort(waypointError("WAYPOINT_UPSTREAM_TIMEOUT", "the copy of the request took too long")));
  try {
    const answer = await upstreams.send({
      cluster,
      downstream: exchange.downstream,
      version: exchange.version,
      request: { head: shadow(exchange.head), upgrade: undefined, onInform: () => undefined },
      body,
      tried: new Set(),
      signal: controller.signal,
      bodySignal: controller.signal,
    });
    discard(answer.body, discardBytes, waypointError("WAYPOINT_UPSTREAM_RESET", "nobody reads the answer to a copy"));
  } catch (thrown) {
    telemetry.mirrorDropped();
    body.cancel(MeshError.from(thrown, "WAYPOINT_INTERNAL"));
  }
}

/** `api:80` → `api-shadow:80`, as Envoy marks copies. */
function shadow(head: RequestHead): RequestHead {
  const match = /^(.*?)(:\d+)?$/.exec(head.authority);
  return { ...head, authority: `${match?.[1] ?? head.authority}-shadow${match?.[2] ?? ""}`, headers: head.headers.clone() };
}
