/** The codecs between peers that others wrote: node:http, ws, gRPC for Node, curl. */
import { execFile, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { promisify } from "node:util";
import {
  type Client,
  credentials,
  Server as GrpcServer,
  Metadata,
  makeGenericClientConstructor,
  ServerCredentials,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import { WebSocket, WebSocketServer } from "ws";
import type { HttpVersion } from "./http-connection.ts";
import { forward } from "./test-forwarder.ts";

const run = promisify(execFile);

async function listen(t: ExecutionContext, server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** A listener that forwards to `port`. */
async function proxy(t: ExecutionContext, { from, to, port }: { from: HttpVersion; to: HttpVersion; port: number }): Promise<number> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (transport) => {
    t.teardown(() => transport.destroy());
    forward({
      from,
      to,
      transport,
      dial: async () => {
        const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
        await once(socket, "connect");
        t.teardown(() => socket.destroy());
        return socket;
      },
    });
  });
  return listen(t, server);
}

for (const from of ["http1", "http2"] as const) {
  for (const to of ["http1", "http2"] as const) {
    test(`curl over ${from} to node:${to === "http1" ? "http" : "http2"} asks, uploads, and asks for heads`, async (t) => {
      if (spawnSync("curl", ["--version"]).status !== 0) {
        t.log("SKIPPED: curl is not installed");
        t.pass();
        return;
      }
      const server = to === "http1" ? createHttpServer() : createHttp2Server();
      server.on("request", (request: import("node:http").IncomingMessage, response: import("node:http").ServerResponse) => {
        response.setHeader("x-method", request.method ?? "");
        if (request.method === "POST" || request.method === "PUT") request.pipe(response);
        else response.end("hello");
      });
      const port = await proxy(t, { from, to, port: await listen(t, server as unknown as Server) });
      const url = `http://127.0.0.1:${port}`;
      const version = from === "http1" ? "--http1.1" : "--http2-prior-knowledge";
      const curl = async (...args: string[]): Promise<string> => (await run("curl", ["-sS", "--max-time", "20", version, ...args], { maxBuffer: 4e7 })).stdout;
      // Asked twice on one connection of HTTP/2 without TLS, curl 7.88 reports a framing error whoever serves; so it is asked for two only over HTTP/1.
      t.is(await curl(...(from === "http1" ? [`${url}/a`, `${url}/b`] : [`${url}/a`])), from === "http1" ? "hellohello" : "hello");
      t.regex(await curl("-I", url), /x-method: HEAD/);
      const big = "0123456789abcdef".repeat(100_000);
      const upload = run("curl", ["-sS", "--max-time", "20", version, "-H", "Expect: 100-continue", "--data-binary", "@-", url], { maxBuffer: 4e7 });
      upload.child.stdin?.end(big);
      t.is((await upload).stdout, big);
    });
  }
}

test("ws talks WebSocket with ws, text and large binary, and closes with its code", async (t) => {
  const sockets = new WebSocketServer({ noServer: true });
  const http = createHttpServer();
  http.on("upgrade", (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (peer) => {
      peer.on("message", (data, binary) => peer.send(data, { binary }));
      peer.on("close", () => undefined);
    });
  });
  const port = await proxy(t, { from: "http1", to: "http1", port: await listen(t, http) });
  const client = new WebSocket(`ws://127.0.0.1:${port}/chat`);
  await once(client, "open");
  for (const message of [Buffer.from("hello"), Buffer.alloc(1_000_000, 7)]) {
    client.send(message);
    const [echoed] = (await once(client, "message")) as [Buffer];
    t.true(echoed.equals(message));
  }
  client.close(4_001, "done");
  const [code] = (await once(client, "close")) as [number];
  t.is(code, 4_001);
});

const bytes = { serialize: (value: Buffer): Buffer => value, deserialize: (value: Buffer): Buffer => value };
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: bytes.serialize,
  requestDeserialize: bytes.deserialize,
  responseSerialize: bytes.serialize,
  responseDeserialize: bytes.deserialize,
});
const echo: ServiceDefinition = {
  Unary: method("Unary", false, false),
  Down: method("Down", false, true),
  Up: method("Up", true, false),
  Both: method("Both", true, true),
  Fail: method("Fail", false, false),
};

test("gRPC for Node calls gRPC for Node, unary and streaming of every kind, with metadata, trailers and statuses", async (t) => {
  const server = new GrpcServer();
  server.addService(echo, {
    Unary: (call: import("@grpc/grpc-js").ServerUnaryCall<Buffer, Buffer>, done: import("@grpc/grpc-js").sendUnaryData<Buffer>) => {
      const trailers = new Metadata();
      trailers.set("x-trailer", String(call.metadata.get("x-asked")[0]));
      done(null, call.request, trailers);
    },
    Down: (call: import("@grpc/grpc-js").ServerWritableStream<Buffer, Buffer>) => {
      for (let number = 0; number < 100; number += 1) call.write(Buffer.concat([call.request, Buffer.from([number])]));
      call.end();
    },
    Up: (call: import("@grpc/grpc-js").ServerReadableStream<Buffer, Buffer>, done: import("@grpc/grpc-js").sendUnaryData<Buffer>) => {
      let total = 0;
      call.on("data", (data: Buffer) => {
        total += data.length;
      });
      call.on("end", () => done(null, Buffer.from(String(total))));
    },
    Both: (call: import("@grpc/grpc-js").ServerDuplexStream<Buffer, Buffer>) => {
      call.on("data", (data: Buffer) => call.write(data));
      call.on("end", () => call.end());
    },
    Fail: (_call: unknown, done: import("@grpc/grpc-js").sendUnaryData<Buffer>) => done({ code: status.FAILED_PRECONDITION, details: "nicht möglich" }),
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))),
  );
  t.teardown(() => server.forceShutdown());
  const through = await proxy(t, { from: "http2", to: "http2", port });
  const client: Client = new (makeGenericClientConstructor(echo, "Echo"))(`127.0.0.1:${through}`, credentials.createInsecure());
  t.teardown(() => client.close());

  const metadata = new Metadata();
  metadata.set("x-asked", "yes");
  const large = Buffer.alloc(300_000, 3);
  const value = Promise.withResolvers<Buffer | undefined>();
  const trailer = Promise.withResolvers<unknown>();
  client
    .makeUnaryRequest("/test.Echo/Unary", bytes.serialize, bytes.deserialize, large, metadata, (error, answer) =>
      error === null ? value.resolve(answer) : value.reject(error),
    )
    .on("status", ({ metadata: trailers }) => trailer.resolve(trailers.get("x-trailer")[0]));
  t.true((await value.promise)?.equals(large));
  t.is(await trailer.promise, "yes");

  const down = client.makeServerStreamRequest("/test.Echo/Down", bytes.serialize, bytes.deserialize, Buffer.from("x"));
  let answers = 0;
  for await (const _ of down) answers += 1;
  t.is(answers, 100);

  const total = await new Promise<Buffer | undefined>((resolve, reject) => {
    const up = client.makeClientStreamRequest("/test.Echo/Up", bytes.serialize, bytes.deserialize, (error, value) =>
      error === null ? resolve(value) : reject(error),
    );
    for (let number = 0; number < 100; number += 1) up.write(Buffer.alloc(1_000));
    up.end();
  });
  t.is(total?.toString(), "100000");

  const both = client.makeBidiStreamRequest("/test.Echo/Both", bytes.serialize, bytes.deserialize);
  for (const text of ["one", "two"]) {
    both.write(Buffer.from(text));
    const [data] = (await once(both, "data")) as [Buffer];
    t.is(data.toString(), text);
  }
  both.end();
  await once(both.resume(), "end");

  const failure = await new Promise<{ code?: number; details?: string } | null>((resolve) =>
    client.makeUnaryRequest("/test.Echo/Fail", bytes.serialize, bytes.deserialize, Buffer.alloc(0), (error) => resolve(error)),
  );
  t.like(failure, { code: status.FAILED_PRECONDITION, details: "nicht möglich" });
});
