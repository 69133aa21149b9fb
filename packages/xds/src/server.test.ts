/** The server against clients that are wrong, hostile or gone. */
import { connect, createServer, type Socket } from "node:net";
import { AggregatedDiscoveryServiceService, addressTypeUrl, authorizationTypeUrl, DeltaDiscoveryRequest, DeltaDiscoveryResponse } from "@fairway/protocol";
import { silentLogger, systemClock, Watched } from "@fairway/runtime";
import { Client, type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import { MutableResourceSource } from "./resource-source.ts";
import { createXdsServer, type XdsServerOptions } from "./server.ts";
import { accessTo, listen } from "./test-server.ts";

const { path } = AggregatedDiscoveryServiceService.deltaAggregatedResources;
const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(60_000) });
const request: DeltaDiscoveryRequest = {
  node: { id: "ztunnel~1~a.b~b.svc", cluster: "", metadata: {}, locality: undefined, userAgentName: "", userAgentVersionType: undefined, clientFeatures: [] },
  typeUrl: authorizationTypeUrl,
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: new Map(),
  responseNonce: "",
  errorDetail: undefined,
};
const bytes = (message: DeltaDiscoveryRequest): Buffer => Buffer.from(DeltaDiscoveryRequest.encode(message).finish());

test("bytes that are no request end that stream and no other", async (t) => {
  const { open } = await start(t);
  const good = open();
  good.write(bytes(request));
  t.is((await good.next()).typeUrl, authorizationTypeUrl);
  for (const garbage of [Buffer.from("garbage"), Buffer.alloc(64, 0xff), bytes(request).subarray(0, 20)]) {
    const bad = open();
    bad.write(garbage);
    t.not((await bad.ended).code, status.OK);
    const late = open();
    late.write(bytes(request));
    await late.next();
    late.write(garbage);
    t.not((await late.ended).code, status.OK);
  }
  good.write(bytes({ ...request, node: undefined, typeUrl: addressTypeUrl }));
  good.write(bytes({ ...request, node: undefined, responseNonce: "1" }));
  t.is((await good.next()).typeUrl, addressTypeUrl);
});

test("a first request without a node, or with an endless one, is refused", async (t) => {
  const { open } = await start(t);
  const without = open();
  without.write(bytes({ ...request, node: undefined }));
  t.is((await without.ended).code, status.INVALID_ARGUMENT);
  const endless = open();
  endless.write(
    bytes({
      ...request,
      node: { id: "x".repeat(5_000), cluster: "", metadata: {}, locality: undefined, userAgentName: "", userAgentVersionType: undefined, clientFeatures: [] },
    }),
  );
  t.is((await endless.ended).code, status.INVALID_ARGUMENT);
});

test("a client that says nothing is cut off", async (t) => {
  const { open } = await start(t, { limits: { authorizationTimeoutMs: 50 } });
  t.is((await open().ended).code, status.DEADLINE_EXCEEDED);
});

test("whatever authorization throws, the client hears only that it failed", async (t) => {
  const { open } = await start(t, { authorize: () => Promise.reject(new Error("the token of bob expired")) });
  const stream = open();
  stream.write(bytes(request));
  const { code, details } = await stream.ended;
  t.is(code, status.UNAUTHENTICATED);
  t.is(details, "authentication failure");
});

test("requests that come while authorization runs are served after it, in order", async (t) => {
  const { open, addresses } = await start(t, { authorize: () => new Promise((resolve) => setImmediate(() => resolve(peer))) });
  addresses.update({ set: [{ name: "w", body: Buffer.from("w") }] });
  const stream = open();
  stream.write(bytes(request));
  stream.write(bytes({ ...request, node: undefined, typeUrl: addressTypeUrl }));
  const first = await stream.next();
  t.is(first.typeUrl, authorizationTypeUrl);
  stream.write(bytes({ ...request, node: undefined, responseNonce: first.nonce }));
  const second = await stream.next();
  t.deepEqual(
    second.resources.map(({ name }) => name),
    ["w"],
  );
});

test("a type that is not served gets no answer and harms nothing", async (t) => {
  const { open } = await start(t);
  const stream = open();
  for (let index = 0; index < 20; index++) stream.write(bytes({ ...request, typeUrl: `type.googleapis.com/nobody.Knows${index}` }));
  stream.write(bytes(request));
  t.is((await stream.next()).typeUrl, authorizationTypeUrl);
});

test("a client that left is forgotten, however it left", async (t) => {
  const { open, server, target } = await start(t);
  const relay = await relayTo(t, target);
  const [polite, hasty, dead] = [open(), open(), open(relay.target)];
  for (const stream of [polite, hasty, dead]) {
    stream.write(bytes(request));
    await stream.next();
  }
  await server.clients.until(({ size }) => size === 3, soon());
  polite.end();
  await server.clients.until(({ size }) => size === 2, soon());
  hasty.cancel();
  await server.clients.until(({ size }) => size === 1, soon());
  relay.reset();
  await server.clients.until(({ size }) => size === 0, soon());
  t.pass();
});

test("closing the server ends every stream as unavailable, also those it is still deciding about", async (t) => {
  const { open, server } = await start(t, {
    authorize: ({ node }, { signal }) =>
      node.id === "slow" ? new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))) : Promise.resolve(peer),
  });
  const undecided = open();
  undecided.write(
    bytes({
      ...request,
      node: { id: "slow", cluster: "", metadata: {}, locality: undefined, userAgentName: "", userAgentVersionType: undefined, clientFeatures: [] },
    }),
  );
  const silent = open();
  const stream = open();
  stream.write(bytes(request));
  await stream.next();
  await server[Symbol.asyncDispose]();
  for (const { ended } of [stream, undecided, silent]) t.is((await ended).code, status.UNAVAILABLE);
  const late = open();
  t.is((await late.ended).code, status.UNAVAILABLE);
});

const peer = { identity: { namespace: "istio-system", serviceAccount: "ztunnel" }, node: undefined, scope: { kind: "node" } } as const;

/** A server, and clients of it that write bytes as they are. */
async function start(t: ExecutionContext, options: Partial<XdsServerOptions> = {}) {
  const policies = new MutableResourceSource(authorizationTypeUrl);
  const addresses = new MutableResourceSource(addressTypeUrl);
  const server = createXdsServer({
    openScope: () => ({ sources: [policies, addresses], [Symbol.dispose]: () => undefined }),
    authorize: async () => peer,
    clock: systemClock,
    log: silentLogger,
    ready: new Watched(true),
    ...options,
  });
  const listening = await listen(server.service);
  t.teardown(async () => {
    listening.stop();
    await server[Symbol.asyncDispose]();
  });
  const { credentials } = await accessTo(listening.target).credentials();
  const open = (target: string = listening.target) => {
    const client = new Client(target, credentials, { "grpc.use_local_subchannel_pool": 1 });
    t.teardown(() => client.close());
    const stream: ClientDuplexStream<Buffer, DeltaDiscoveryResponse> = client.makeBidiStreamRequest(
      path,
      (data: Buffer) => data,
      (data: Buffer) => DeltaDiscoveryResponse.decode(data),
    );
    const received: DeltaDiscoveryResponse[] = [];
    let wake: () => void = () => undefined;
    stream.on("data", (response: DeltaDiscoveryResponse) => {
      received.push(response);
      wake();
    });
    const ended = new Promise<{ code: status; details: string }>((resolve) => {
      stream.on("error", (error: ServiceError) => resolve({ code: error.code, details: error.details }));
      stream.on("end", () => resolve({ code: status.OK, details: "" }));
    });
    return {
      ended,
      write: (data: Buffer) => stream.write(data),
      end: () => stream.end(),
      cancel: () => stream.cancel(),
      async next(): Promise<DeltaDiscoveryResponse> {
        for (;;) {
          const response = received.shift();
          if (response !== undefined) return response;
          await new Promise<void>((resolve, reject) => {
            wake = resolve;
            void ended.then(({ code }) => reject(new Error(`the stream ended with ${status[code]}`)));
          });
        }
      },
    };
  };
  return { server, addresses, policies, open, target: listening.target };
}

/** A TCP relay whose connections can be reset as if the client's machine had died. */
async function relayTo(t: ExecutionContext, target: string) {
  const sockets: Socket[] = [];
  const relay = createServer((near) => {
    const far = connect(Number(target.split(":")[1]), "127.0.0.1");
    sockets.push(near, far);
    for (const socket of [near, far]) socket.on("error", () => undefined);
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
  const address = relay.address();
  const reset = (): void => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  t.teardown(() => {
    relay.close();
    reset();
  });
  return { target: `127.0.0.1:${address !== null && typeof address === "object" ? address.port : 0}`, reset };
}
