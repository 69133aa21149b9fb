import { once } from "node:events";
import { createServer } from "node:http";
import { connect as tcpConnect } from "node:net";
import {
  type Client,
  credentials,
  Server as GrpcServer,
  Metadata,
  makeGenericClientConstructor,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import { WebSocket, WebSocketServer } from "ws";
import { apiConfig, application, endpoint, forwardTo, loopbackAddresses, routeTo, TestWaypoint, workload } from "./test-waypoint.ts";

const at = loopbackAddresses();
const bytes = { serialize: (value: Buffer): Buffer => value, deserialize: (value: Buffer): Buffer => value };
const codec = {
  requestSerialize: bytes.serialize,
  requestDeserialize: bytes.deserialize,
  responseSerialize: bytes.serialize,
  responseDeserialize: bytes.deserialize,
};
const service: ServiceDefinition = {
  Unary: { path: "/shop.Api/Unary", requestStream: false, responseStream: false, ...codec },
  Chat: { path: "/shop.Api/Chat", requestStream: true, responseStream: true, ...codec },
  Slow: { path: "/shop.Api/Slow", requestStream: false, responseStream: false, ...codec },
};

async function grpcThrough(t: ExecutionContext, timeoutMs?: number): Promise<{ client: Client; waypoint: TestWaypoint; deadlines: unknown[] }> {
  const deadlines: unknown[] = [];
  const server = new GrpcServer();
  server.addService(service, {
    Unary: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
      deadlines.push(call.getDeadline());
      if (call.request.toString() === "fail") return done({ code: status.FAILED_PRECONDITION, details: "not now, 100% sure" });
      const trailers = new Metadata();
      trailers.set("x-trailer", "kept");
      done(null, call.request, trailers);
    },
    Chat: (call: ServerDuplexStream<Buffer, Buffer>) => {
      call.on("data", (chunk: Buffer) => call.write(chunk));
      call.on("end", () => call.end());
    },
    Slow: () => undefined,
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`${at(2)}:0`, ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))),
  );
  t.teardown(() => server.forceShutdown());
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), port)], routes: [routeTo(forwardTo("api", { timeoutMs }))] }),
  });
  await waypoint.workload("b", at(2), { port });
  const captured = await waypoint.captured("a", `${at(200)}:80`);
  const Made = makeGenericClientConstructor(service, "Api");
  const client = new Made(`127.0.0.1:${captured}`, credentials.createInsecure());
  t.teardown(() => client.close());
  return { client, waypoint, deadlines };
}

function unary(client: Client, path: string, message: string, options = {}): Promise<{ body: string; trailers: Metadata }> {
  return new Promise((resolve, reject) => {
    let body = "";
    const call = client.makeUnaryRequest(path, bytes.serialize, bytes.deserialize, Buffer.from(message), new Metadata(), options, (error, answer) => {
      if (error !== null) reject(error);
      body = String(answer);
    });
    call.on("status", ({ code, metadata }) => {
      if (code === status.OK) resolve({ body, trailers: metadata });
    });
  });
}

test.serial("gRPC goes through with its trailers, its errors, and both directions at once", async (t) => {
  const { client } = await grpcThrough(t);
  const { body, trailers } = await unary(client, "/shop.Api/Unary", "hello");
  t.is(body, "hello");
  t.deepEqual(trailers.get("x-trailer"), ["kept"]);
  await t.throwsAsync(unary(client, "/shop.Api/Unary", "fail"), { message: /FAILED_PRECONDITION: not now, 100% sure/ });
  const chat = client.makeBidiStreamRequest("/shop.Api/Chat", bytes.serialize, bytes.deserialize, new Metadata());
  for (const word of ["one", "two", "three"]) {
    chat.write(Buffer.from(word));
    const [echoed] = await once(chat, "data");
    t.is(String(echoed), word);
  }
  chat.end();
  await once(chat.resume(), "end");
});

test.serial("a call's deadline is told to the endpoint, and the route's limit is a deadline too", async (t) => {
  const { client, deadlines } = await grpcThrough(t, 3_000);
  await unary(client, "/shop.Api/Unary", "x", { deadline: Date.now() + 60_000 });
  t.true(Number(deadlines[0]) < Date.now() + 4_000);
  await t.throwsAsync(unary(client, "/shop.Api/Slow", "x"), { message: /DEADLINE_EXCEEDED.*upstream request timeout/ });
});

test.serial("a WebSocket goes through: text, bytes, ping and close codes", async (t) => {
  const http = createServer();
  const server = new WebSocketServer({ server: http });
  server.on("connection", (socket, request) => {
    socket.send(`hello ${request.url}`);
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  t.teardown(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  const app = await application(t, at(2), (socket) => void http.emit("connection", socket));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)], routes: [routeTo(forwardTo("api", { timeoutMs: 2_000 }))] }),
  });
  await waypoint.workload("b", at(2), app);
  const captured = await waypoint.captured("a", `${at(200)}:80`);
  const socket = new WebSocket(`ws://127.0.0.1:${captured}/chat`);
  const [greeting] = await once(socket, "message");
  t.is(String(greeting), "hello /chat");
  // Longer than the route's limit, which is for the handshake's like and not for what follows it.
  await new Promise((resolve) => setTimeout(resolve, 2_300));
  const big = Buffer.alloc(300_000, 7);
  socket.send(big);
  const [echoed] = await once(socket, "message");
  t.true(big.equals(echoed as Buffer));
  socket.ping();
  await once(socket, "pong");
  socket.close(4_001, "bye");
  const [code] = await once(socket, "close");
  t.is(code, 4_001);
});

test.serial("a large body streams both ways without being held", async (t) => {
  const http = createServer((request, response) => request.pipe(response));
  t.teardown(() => http.closeAllConnections());
  const app = await application(t, at(2), (socket) => void http.emit("connection", socket));
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }),
  });
  await waypoint.workload("b", at(2), app);
  const captured = await waypoint.captured("a", `${at(200)}:80`);
  const size = 20 * 1024 * 1024;
  const answer = await fetch(`http://127.0.0.1:${captured}/`, { method: "POST", body: Buffer.alloc(size, 1) });
  let received = 0;
  for await (const chunk of answer.body ?? []) received += chunk.length;
  t.is(received, size);
});

test.serial("an answer before the end of the upload reaches the client", async (t) => {
  const http = createServer((request, response) => {
    response.statusCode = 413;
    response.end("too much");
    request.destroy();
  });
  http.on("request", (request) => request.on("error", () => undefined));
  t.teardown(() => http.closeAllConnections());
  const app = await application(t, at(2), (socket) => {
    socket.once("data", () => socket.write("HTTP/1.1 413 Too Large\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much"));
  });
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)] }),
  });
  await waypoint.workload("b", at(2), app);
  const socket = tcpConnect(await waypoint.captured("a", `${at(200)}:80`), "127.0.0.1");
  t.teardown(() => socket.destroy());
  socket.on("error", () => undefined);
  socket.write("POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 1000000\r\n\r\nfirst bytes");
  const [head] = await once(socket, "data");
  t.regex(String(head), /^HTTP\/1\.1 413 /);
});
