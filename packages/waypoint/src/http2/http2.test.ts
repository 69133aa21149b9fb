import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http2, { type ClientHttp2Session, type ClientHttp2Stream, constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { textBody } from "../body.ts";
import { endpointPools } from "../endpoint-pool.ts";
import { defaultHttpLimits, type HttpLimits, type IncomingRequest } from "../http-connection.ts";
import { connectHttp2 } from "./client.ts";
import { serveHttp2 } from "./server.ts";

/** A client of node:http2, our server, our client and a server of node:http2, in a row. */
interface Chain {
  readonly client: ClientHttp2Session;
  readonly refusals: { readonly status: number; readonly detail: string }[];
  readonly failures: unknown[];
}

interface ChainOptions {
  readonly limits?: Partial<HttpLimits>;
  readonly onStream?: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;
  readonly onRequest?: (request: IncomingRequest) => void;
}

function chain(t: ExecutionContext, { limits: some = {}, onStream, onRequest }: ChainOptions): Chain {
  const limits = { ...defaultHttpLimits, ...some };
  const [clientEnd, serverEnd] = duplexPair();
  const refusals: Chain["refusals"] = [];
  const failures: unknown[] = [];
  const pool = endpointPools({ clock: systemClock, connect: { http1: connectHttp2, http2: connectHttp2 } })({
    version: "http2",
    limits,
    dial: async () => {
      const [near, far] = duplexPair();
      const server = http2.performServerHandshake(far, { settings: { enableConnectProtocol: true } });
      server.on("error", () => undefined);
      server.on("stream", (stream, headers) => {
        stream.on("error", () => undefined);
        onStream?.(stream, headers);
      });
      return near;
    },
  });
  const forward = async (request: IncomingRequest): Promise<void> => {
    const gone = new AbortController();
    request.onDone = ({ error }) => error && gone.abort(error);
    try {
      const { head, body, upgrade } = request;
      request.respond(await pool.send({ head, body, upgrade, onInform: (status, headers) => request.inform(status, headers) }, { signal: gone.signal }));
    } catch (thrown) {
      failures.push(thrown);
      request.respond({ status: 503, headers: new HeaderFields(), body: textBody("failed") });
    }
  };
  serveHttp2(serverEnd, { limits, onRequest: onRequest ?? ((request) => void forward(request)), onRefused: (refusal) => refusals.push(refusal) });
  const client = http2.connect("http://api.shop", { createConnection: () => clientEnd });
  client.on("error", () => undefined);
  t.teardown(() => {
    client.destroy();
    pool.destroy(new Error("the test is over"));
  });
  return { client, refusals, failures };
}

interface Seen {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly trailers: IncomingHttpHeaders;
  readonly informed: readonly number[];
  readonly code: number;
  readonly ended: boolean;
}

function see(stream: ClientHttp2Stream): Promise<Seen> {
  return new Promise((resolve) => {
    let [headers, trailers]: IncomingHttpHeaders[] = [{}, {}];
    const informed: number[] = [];
    const chunks: Buffer[] = [];
    let failed = false;
    stream.on("headers", (more) => informed.push(Number(more[":status"])));
    stream.on("response", (answer) => {
      headers = answer;
    });
    stream.on("trailers", (last) => {
      trailers = last;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", () => {
      failed = true;
    });
    stream.on("close", () => {
      const code = stream.rstCode ?? 0;
      resolve({
        status: Number(headers?.[":status"]),
        headers: headers ?? {},
        body: Buffer.concat(chunks),
        trailers: trailers ?? {},
        informed,
        code,
        ended: !failed && code === 0,
      });
    });
  });
}

test("a gRPC call keeps its trailers, and an answer that is nothing but trailers stays one", async (t) => {
  const { client } = chain(t, {
    onStream: (stream, headers) => {
      if (headers[":path"] === "/s/only")
        return stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "5" }, { endStream: true });
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-more": "yes" }));
      stream.pipe(stream);
    },
  });
  const call = client.request({ ":method": "POST", ":path": "/s/m", "content-type": "application/grpc", te: "trailers" });
  call.write("ping");
  call.end("pong");
  const answer = await see(call);
  t.like(answer, { status: 200, ended: true });
  t.is(answer.body.toString(), "pingpong");
  t.like(answer.trailers, { "grpc-status": "0", "x-more": "yes" });
  const only = await see(client.request({ ":method": "POST", ":path": "/s/only", "content-type": "application/grpc" }, { endStream: true }));
  t.is(only.headers["grpc-status"], "5");
  t.is(only.body.length, 0);
});

test("trailers of the request arrive too, and informational answers are passed on", async (t) => {
  let seen: IncomingHttpHeaders | undefined;
  const { client } = chain(t, {
    onStream: (stream) => {
      stream.additionalHeaders({ ":status": 103, link: "</style.css>" });
      stream.on("trailers", (trailers) => {
        seen = trailers;
      });
      stream.resume();
      stream.on("end", () => stream.respond({ ":status": 204 }, { endStream: true }));
    },
  });
  const call = client.request({ ":method": "POST", ":path": "/" }, { waitForTrailers: true });
  call.on("wantTrailers", () => call.sendTrailers({ "x-sum": "42" }));
  call.end("body");
  t.like(await see(call), { status: 204, informed: [103], ended: true });
  t.is(seen?.["x-sum"], "42");
});

test("20 MB go both ways whole, while neither side gathers what the other does not read", async (t) => {
  const { client } = chain(t, {
    onStream: (stream) => {
      stream.respond({ ":status": 200 });
      stream.pipe(stream);
    },
  });
  const sent = createHash("sha256");
  const received = createHash("sha256");
  const call = client.request({ ":method": "POST", ":path": "/" });
  call.on("data", (chunk: Buffer) => received.update(chunk));
  const block = randomBytes(1024 * 1024);
  for (let index = 0; index < 20; index++) {
    sent.update(block);
    if (!call.write(block)) await once(call, "drain");
  }
  call.end();
  await once(call, "close");
  t.is(received.digest("hex"), sent.digest("hex"));
});

test("an answer that breaks off upstream never looks complete", async (t) => {
  const { client } = chain(t, {
    onStream: (stream, headers) => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.write("part of it");
      setTimeout(() => (headers[":path"] === "/session" ? stream.session?.destroy() : stream.close(constants.NGHTTP2_CANCEL)), 20);
    },
  });
  for (const path of ["/stream", "/session"]) {
    const answer = await see(client.request({ ":path": path }));
    t.is(answer.body.toString(), "part of it", path);
    t.is(answer.code, constants.NGHTTP2_INTERNAL_ERROR, path);
  }
});

test("a client that gives up ends its request upstream, and nothing else on the connection", async (t) => {
  const upstream: ServerHttp2Stream[] = [];
  const { client } = chain(t, {
    onStream: (stream, headers) => {
      if (headers[":path"] === "/other") return void stream.respond({ ":status": 200 }, { endStream: true });
      upstream.push(stream);
    },
  });
  const call = client.request({ ":path": "/" });
  while (upstream.length === 0) await systemClock.sleep(5, { signal: AbortSignal.timeout(5_000) });
  const [stream] = upstream;
  const closed = stream === undefined ? undefined : once(stream, "close");
  call.close(constants.NGHTTP2_CANCEL);
  await closed;
  t.is(stream?.rstCode, constants.NGHTTP2_CANCEL);
  t.like(await see(client.request({ ":path": "/other" })), { status: 200 });
});

test("an answer before the end of the request is delivered whole, then the rest of the request is not wanted", async (t) => {
  const { client } = chain(t, {
    onStream: (stream) => {
      stream.respond({ ":status": 413, "content-length": "7" });
      stream.end("too big");
    },
  });
  const call = client.request({ ":method": "POST", ":path": "/" });
  call.write("the beginning");
  const answer = await see(call);
  t.is(answer.status, 413);
  t.is(answer.body.toString(), "too big");
  t.is(answer.code, constants.NGHTTP2_NO_ERROR);
});

test("a stream that the endpoint refuses is reported as never looked at", async (t) => {
  const { client, failures } = chain(t, { onStream: (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM) });
  t.like(await see(client.request({ ":path": "/" })), { status: 503 });
  t.like(failures[0], { code: "WAYPOINT_UPSTREAM_RESET", details: { refused: true, sent: false } });
});

test("WebSocket over HTTP/2 is an upgrade, whose bytes flow both ways", async (t) => {
  const { client } = chain(t, {
    onStream: (stream, headers) => {
      stream.respond({ ":status": headers[":protocol"] === "websocket" ? 200 : 400 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({}));
      stream.pipe(stream);
    },
  });
  await once(client, "remoteSettings");
  const call = client.request({ ":method": "CONNECT", ":protocol": "websocket", ":path": "/live", ":scheme": "http", ":authority": "api.shop" });
  call.write("frame");
  const [chunk] = (await once(call, "data")) as [Buffer];
  t.is(chunk.toString(), "frame");
  call.end();
  await once(call, "close");
  t.is(call.rstCode, 0);
});

test("requests without one meaning, or beyond the limits, are refused by status and named", async (t) => {
  const { client, refusals } = chain(t, { limits: { maxHeaderCount: 20, maxRequestTargetBytes: 100 }, onRequest: () => t.fail() });
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`x-${index}`, "1"]));
  const cases: readonly (readonly [number, http2.OutgoingHttpHeaders])[] = [
    [431, { ":path": "/", ...many }],
    [414, { ":path": `/${"a".repeat(200)}` }],
    [400, { ":path": "/a#b" }],
    [400, { ":path": "/", ":authority": "host:99999" }],
    [400, { ":path": "/", ":authority": "a", host: "b" }],
    [417, { ":path": "/", expect: "miracles" }],
    [405, { ":method": "CONNECT", ":authority": "db:5432" }],
  ];
  for (const [status, headers] of cases) t.is((await see(client.request(headers, { endStream: true }))).status, status, JSON.stringify(headers).slice(0, 60));
  t.deepEqual(
    refusals.map(({ status }) => status),
    cases.map(([status]) => status),
  );
});

test("crumbs of a cookie arrive as one field, and connection fields and foreign te do not arrive", async (t) => {
  let seen: IncomingRequest | undefined;
  const { client } = chain(t, {
    onRequest: (request) => {
      seen = request;
      request.respond({ status: 200, headers: HeaderFields.of({ "set-cookie": ["a=1", "b=2"], connection: "close" }), body: textBody("") });
    },
  });
  const answer = await see(
    client.request([":method", "GET", ":scheme", "http", ":authority", "api.shop", ":path", "/", "cookie", "a=1", "cookie", "b=2", "te", "trailers"]),
  );
  t.is(seen?.head.headers.get("cookie"), "a=1; b=2");
  t.is(seen?.head.headers.get("te"), "trailers");
  t.deepEqual(answer.headers["set-cookie"], ["a=1", "b=2"]);
  t.is(answer.headers["connection"], undefined);
});

test("a body other than announced is not passed on as complete", async (t) => {
  const { client } = chain(t, {
    onStream: (stream) => {
      stream.respond({ ":status": 200, "content-length": "100" }, { waitForTrailers: true });
      stream.write("short");
      setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), 10);
    },
  });
  t.not((await see(client.request({ ":path": "/" }))).code, 0);
});
