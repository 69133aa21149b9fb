/** The routes under /debug/pprof (ztunnel contract 9.3). `thread` says of which thread: 0 is the main thread, 1 the first of the others, and the default. */
import type { AdminHandler, AdminResponse } from "./admin.ts";
import { errorCode, messageOf } from "./error.ts";
import type { ProfileRequest } from "./profile.ts";

export interface ProfiledThreads {
  /** Without the main one. */
  readonly count: () => number;
  /** Takes a profile on thread `thread`, 0 for the main one. */
  readonly take: (thread: number, request: ProfileRequest) => Promise<string>;
}

export function profileRoutes({ count, take }: ProfiledThreads): Map<string, AdminHandler> {
  const on = async (url: URL, request: ProfileRequest | undefined, misuse: string): Promise<AdminResponse> => {
    const thread = wholeNumber(url.searchParams.get("thread"), { fallback: Math.min(1, count()), least: 0, most: count() });
    if (thread === undefined) return { status: 400, body: `thread is 0 to ${count()}\n` };
    if (request === undefined) return { status: 400, body: `${misuse}\n` };
    try {
      const body = await take(thread, request);
      return request.kind === "heap-switch" ? { body: `heap profiling is ${request.on ? "on" : "off"}\n` } : { contentType: "application/json", body };
    } catch (thrown) {
      return { status: errorCode(thrown) === "RUNTIME_PROFILE_BUSY" ? 409 : 500, body: `${messageOf(thrown)}\n` };
    }
  };
  return new Map<string, AdminHandler>([
    [
      "/debug/pprof/profile",
      ({ url }) => {
        const seconds = wholeNumber(url.searchParams.get("seconds"), { fallback: 10, least: 1, most: 300 });
        const frequency = wholeNumber(url.searchParams.get("frequency"), { fallback: 100, least: 1, most: 1000 });
        const request = seconds === undefined || frequency === undefined ? undefined : ({ kind: "cpu", seconds, frequency } as const);
        return on(url, request, "seconds is 1 to 300, frequency 1 to 1000");
      },
    ],
    ["/debug/pprof/heap", ({ url }) => on(url, { kind: "heap" }, "")],
    [
      "/debug/pprof/heap/profiling",
      ({ url }) => {
        const wanted = url.searchParams.get("activate");
        return on(url, wanted === "true" || wanted === "false" ? { kind: "heap-switch", on: wanted === "true" } : undefined, "activate is true or false");
      },
    ],
  ]);
}

function wholeNumber(text: string | null, { fallback, least, most }: { fallback: number; least: number; most: number }): number | undefined {
  if (text === null) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  return value >= least && value <= most ? value : undefined;
}
