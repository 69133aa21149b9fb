/** The three small servers of a proxy (ztunnel contract 9.3): administration on localhost, metrics and readiness for the cluster. */
import { type AdminHandler, type AdminResponse, type AdminServer, metricsRoutes, readinessRoutes, serveAdmin } from "./admin.ts";
import { messageOf } from "./error.ts";
import type { LogFilter } from "./log.ts";
import type { MetricSource } from "./metrics.ts";
import { type ProfiledThreads, profileRoutes } from "./profile-routes.ts";
import type { Readiness } from "./readiness.ts";

export interface ProxyAdminOptions {
  /** What the index page calls it. */
  readonly name: string;
  readonly ports: { readonly admin: number; readonly metrics: number; readonly readiness: number };
  readonly ipv6: boolean;
  readonly metrics: MetricSource;
  readonly readiness: Readiness;
  readonly logFilter: LogFilter;
  /** The filter was changed. */
  readonly onLogFilter: () => void;
  readonly dump: () => Promise<unknown>;
  /** Starts a graceful shutdown. */
  readonly quit: () => void;
  readonly profiles: ProfiledThreads;
}

/** Listens on all three; throws RUNTIME_LISTEN_FAILED with none left open. */
export async function serveProxyAdmin(options: ProxyAdminOptions): Promise<AsyncDisposable> {
  const { ports, ipv6, metrics, readiness } = options;
  const routes = adminRoutes(options);
  const wildcard = ipv6 ? "::" : "0.0.0.0";
  await using opening = new AsyncDisposableStack();
  const open = async (host: string, port: number, handlers: ReadonlyMap<string, AdminHandler>): Promise<AdminServer> =>
    opening.use(await serveAdmin({ host, port }, handlers));
  await open("127.0.0.1", ports.admin, routes);
  if (ipv6) await open("::1", ports.admin, routes);
  await open(wildcard, ports.metrics, metricsRoutes(metrics));
  await open(wildcard, ports.readiness, readinessRoutes(readiness));
  return opening.move();
}

/** The routes of port 15000. */
function adminRoutes({ name, logFilter, onLogFilter, dump, quit, profiles }: ProxyAdminOptions): Map<string, AdminHandler> {
  const routes = new Map<string, AdminHandler>([
    ["/config_dump", async () => ({ contentType: "application/json", body: `${JSON.stringify(await dump(), undefined, 2)}\n` })],
    ["/logging", postOnly(({ url }) => changeLogging(logFilter, onLogFilter, url.searchParams))],
    [
      "/quitquitquit",
      postOnly(() => {
        quit();
        return { body: "shutdown now\n" };
      }),
    ],
    ...profileRoutes(profiles),
  ]);
  routes.set("/", () => ({ contentType: "text/html; charset=utf-8", body: index(name, [...routes.keys()]) }));
  return routes;
}

/** `?level=` adds to the filter, `?reset=` goes back to that of the start first; nothing shows it. */
function changeLogging(filter: LogFilter, onChange: () => void, parameters: URLSearchParams): AdminResponse {
  const level = parameters.get("level");
  const before = filter.toString();
  if (parameters.has("reset")) filter.reset();
  try {
    if (level !== null) filter.apply(level);
  } catch (thrown) {
    filter.replace(before);
    return { status: 400, body: `${messageOf(thrown)}\n` };
  }
  onChange();
  return { body: `current log level is ${filter}\n` };
}

function postOnly(handler: AdminHandler): AdminHandler {
  return (request) => (request.method === "POST" ? handler(request) : { status: 405, body: "method not allowed\n" });
}

function index(name: string, paths: readonly string[]): string {
  const links = paths.filter((path) => path !== "/").map((path) => `<li><a href="${path}">${path}</a></li>`);
  return `<!doctype html><title>${name}</title><h1>${name}</h1><ul>${links.join("")}</ul>\n`;
}
