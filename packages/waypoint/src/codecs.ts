/** HTTP as this package speaks it, put together: both versions on both sides, and the first bytes told apart. */
import type { Clock } from "@fairway/runtime";
import { detectProtocol } from "./detect.ts";
import { endpointPools } from "./endpoint-pool.ts";
import { connectHttp1 } from "./http1/client-connection.ts";
import { serveHttp1 } from "./http1/server-connection.ts";
import { connectHttp2 } from "./http2/client.ts";
import { serveHttp2 } from "./http2/server.ts";
import type { Codecs } from "./waypoint-proxy.ts";

/**
 * How long a client of a port whose protocol is not declared may stay silent before its connection is taken for a protocol in which the server
 * speaks first. Such protocols wait this long at each connection; declaring them as TCP spares that.
 */
const silenceMs = 2_000;

export function createCodecs(clock: Clock): Codecs {
  return {
    serve: { http1: serveHttp1, http2: serveHttp2 },
    openConnections: endpointPools({ clock, connect: { http1: connectHttp1, http2: connectHttp2 } }),
    async detect(transport, expectHttp, { signal }) {
      const protocol = await detectProtocol(transport, { timeoutMs: silenceMs, signal, clock });
      // Where HTTP is declared, other bytes are a bad request and silence is an idle client.
      return { protocol: expectHttp && protocol === "tcp" ? "http1" : protocol, transport };
    },
  };
}
