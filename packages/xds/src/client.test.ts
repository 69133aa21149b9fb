/** The client against servers that are wrong, hostile, slow or not there. */
import { createServer, type Socket, type Server as TcpServer } from "node:net";
import { addressTypeUrl, authorizationTypeUrl, DeltaDiscoveryResponse } from "@fairway/protocol";
import { errorCode, messageOf, silentLogger, systemClock } from "@fairway/runtime";
import { status } from "@grpc/grpc-js";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { XdsClient, type XdsConnection, type XdsObserver } from "./client.ts";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import { createXdsMeshView, type XdsMeshView } from "./mesh-view.ts";
import { ztunnelNode } from "./node.ts";
import { type ResourceSink, Subscription } from "./subscription.ts";
import { workload, workloadResource } from "./test-mesh.ts";
import { scripted } from "./test-scripted-server.ts";
import { accessTo, systemCredentials } from "./test-server.ts";

const node = ztunnelNode({ instanceIp: "10.0.0.1", podName: "zt", podNamespace: "istio-system", nodeName: "n" });
const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(60_000) });
const empty = { systemVersionInfo: "", resources: [], removedResources: [], controlPlane: undefined };

test("the first request of each type carries the node, policies are asked for first, later requests carry only the answer", async (t) => {
  const { target, requests } = await scripted(t, (stream, request) => {
    if (request.responseNonce === "") stream.write({ ...empty, typeUrl: request.typeUrl, nonce: `n-${request.typeUrl}` });
  });
  const view = connect(t, accessTo(target));
  await view.synced.until(Boolean, soon());
  await requests.length(4);
  const [first, second, ...answers] = requests.all;
  t.deepEqual([first?.typeUrl, second?.typeUrl], [authorizationTypeUrl, addressTypeUrl]);
  t.is(first?.node?.id, "ztunnel~10.0.0.1~zt.istio-system~istio-system.svc.cluster.local");
  t.deepEqual(first?.node?.metadata, { NAME: "zt", NAMESPACE: "istio-system", INSTANCE_IPS: "10.0.0.1", NODE_NAME: "n" });
  t.is(second?.node?.id, first?.node?.id);
  for (const answer of answers) {
    t.is(answer.node, undefined);
    t.is(answer.responseNonce, `n-${answer.typeUrl}`);
    t.is(answer.errorDetail, undefined);
    t.deepEqual(answer.resourceNamesSubscribe, []);
  }
});

test("on reconnecting the versions of what is held are told, refused resources excepted", async (t) => {
  let streams = 0;
  const { target, requests } = await scripted(t, (stream, request) => {
    if (request.typeUrl !== addressTypeUrl) return;
    if (request.responseNonce !== "") {
      if (streams === 1) stream.end();
      return;
    }
    streams++;
    const { name, body } = workloadResource(workload("a"));
    const any = (value: Uint8Array) => ({ typeUrl: addressTypeUrl, value });
    const rest = { aliases: [], ttl: undefined, cacheControl: undefined };
    stream.write({
      ...empty,
      typeUrl: addressTypeUrl,
      nonce: "1",
      resources: [
        { name, version: "v7", resource: any(body), ...rest },
        { name: "bad", version: "v8", resource: any(Buffer.from("bad")), ...rest },
        { name: "absent", version: "v9", resource: undefined, ...rest },
        { name: "foreign", version: "v10", resource: { typeUrl: authorizationTypeUrl, value: body }, ...rest },
      ],
    });
  });
  connect(t, accessTo(target));
  const again = await requests.find((request, index) => index > 2 && request.typeUrl === addressTypeUrl && request.node !== undefined);
  t.deepEqual(again.initialResourceVersions, new Map([[workload("a").uid as string, "v7"]]));
  const refusal = requests.all.find(({ errorDetail }) => errorDetail !== undefined);
  t.is(refusal?.errorDetail?.code, 0);
  t.deepEqual(
    refusal?.errorDetail?.message.split("; ").map((part) => part.split(": ")[0]),
    ["absent", "foreign", "bad"],
  );
});

test("a response of a type that was not asked for is acknowledged and ignored", async (t) => {
  const { target, requests } = await scripted(t, (stream, request) => {
    if (request.node !== undefined && request.typeUrl === addressTypeUrl) stream.write({ ...empty, typeUrl: "type.googleapis.com/unheard.Of", nonce: "x" });
  });
  connect(t, accessTo(target));
  const answer = await requests.find(({ responseNonce }) => responseNonce === "x");
  t.is(answer.typeUrl, "type.googleapis.com/unheard.Of");
  t.is(answer.errorDetail, undefined);
});

test("names like __proto__ and constructor are names", async (t) => {
  const { target, requests } = await scripted(t, (stream, request) => {
    if (request.node === undefined || request.typeUrl !== addressTypeUrl) return;
    const resource = { typeUrl: addressTypeUrl, value: Buffer.from("x") };
    const rest = { version: "1", resource, aliases: [], ttl: undefined, cacheControl: undefined };
    stream.write({
      ...empty,
      typeUrl: addressTypeUrl,
      nonce: "x",
      resources: [
        { name: "__proto__", ...rest },
        { name: "constructor", ...rest },
      ],
      removedResources: ["__proto__", "toString"],
    });
  });
  const view = connect(t, accessTo(target));
  const answer = await requests.find(({ responseNonce }) => responseNonce === "x");
  t.regex(answer.errorDetail?.message ?? "", /^__proto__: .*; constructor: /);
  t.is([...view.snapshot.workloads()].length, 0);
});

for (const [name, code, expected] of [
  ["UNAUTHENTICATED", status.UNAUTHENTICATED, "XDS_AUTHORIZATION_FAILED"],
  ["PERMISSION_DENIED", status.PERMISSION_DENIED, "XDS_AUTHORIZATION_FAILED"],
  ["UNIMPLEMENTED", status.UNIMPLEMENTED, "XDS_STREAM_FAILED"],
  ["INTERNAL", status.INTERNAL, "XDS_STREAM_FAILED"],
] as const) {
  test(`a stream refused with ${name} names the step and is tried again with growing pauses`, async (t) => {
    const { target } = await scripted(t, (stream) => stream.emit("error", { code, details: "no" }));
    const pauses = await waits(connect(t, accessTo(target)), 4);
    for (const { error } of pauses) t.is(errorCode(error), expected);
    t.deepEqual(
      pauses.map(({ retryInMs }) => retryInMs),
      [10, 20, 40, 80],
    );
  });
}

test("a stream that ended after it served is opened again after the shortest pause, every time", async (t) => {
  const { target } = await scripted(t, (stream, request) => {
    if (request.responseNonce !== "") stream.end();
    else stream.write({ ...empty, typeUrl: request.typeUrl, nonce: "1" });
  });
  const pauses = await waits(connect(t, accessTo(target)), 4);
  t.deepEqual(
    pauses.map(({ retryInMs }) => retryInMs),
    [10, 10, 10, 10],
  );
});

test("a server that ends every stream unserved is not asked in a tight loop", async (t) => {
  const { target } = await scripted(t, (stream) => stream.end());
  const pauses = await waits(connect(t, accessTo(target)), 3);
  t.deepEqual(
    pauses.map(({ retryInMs }) => retryInMs),
    [10, 20, 40],
  );
});

test("a port nobody listens on is a failed connect", async (t) => {
  const { target } = await tcp(t, () => undefined, { closed: true });
  const [, second] = await waits(connect(t, accessTo(target)), 2);
  t.is(errorCode(second?.error), "XDS_CONNECT_FAILED");
  t.regex(messageOf(second?.error), /ECONNREFUSED/);
});

test("a name that does not exist is a failed resolve", async (t) => {
  const [, second] = await waits(connect(t, accessTo("no-such-host.invalid:15012")), 2);
  t.is(errorCode(second?.error), "XDS_RESOLVE_FAILED");
});

test("a server of another root is a failed TLS", async (t) => {
  const { target } = await scripted(t, () => undefined);
  const access: ControlPlaneAccess = { ...accessTo(target), credentials: systemCredentials };
  const [, second] = await waits(connect(t, access), 2);
  t.is(errorCode(second?.error), "XDS_TLS_FAILED");
});

test("a token that cannot be read is a failed authorization, and the next attempt reads it again", async (t) => {
  const { target } = await scripted(t, (stream, request) => {
    if (request.responseNonce === "") stream.write({ ...empty, typeUrl: request.typeUrl, nonce: "1" });
  });
  const access = accessTo(target);
  let reads = 0;
  const view = connect(t, {
    ...access,
    metadata: async () => {
      if (++reads === 1) throw new Error("no such file");
      return access.metadata();
    },
  });
  const [first] = await waits(view, 1);
  t.is(errorCode(first?.error), "XDS_AUTHORIZATION_FAILED");
  await view.synced.until(Boolean, soon());
  t.is(reads, 2);
});

for (const [name, bytes] of [
  ["garbage", Buffer.from("\x00\xff garbage \r\n\r\n")],
  ["plain HTTP", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")],
  ["nothing at all, and closes", Buffer.alloc(0)],
] as const) {
  test(`a server that answers TLS with ${name} is a failure like any other`, async (t) => {
    const { target } = await tcp(t, (socket) => void socket.end(bytes));
    const [, second] = await waits(connect(t, accessTo(target)), 2);
    t.is(errorCode(second?.error), "XDS_TLS_FAILED");
  });
}

const encoded = Buffer.from(
  DeltaDiscoveryResponse.encode({
    ...empty,
    typeUrl: addressTypeUrl,
    nonce: "n",
    resources: [
      {
        name: "a",
        version: "1",
        aliases: [],
        ttl: undefined,
        cacheControl: undefined,
        resource: { typeUrl: addressTypeUrl, value: workloadResource(workload("a")).body },
      },
    ],
  }).finish(),
);

test("whoever counts hears of every response that was asked for, its bytes, and how each stream ended", async (t) => {
  let streams = 0;
  const { body } = workloadResource(workload("a"));
  const resource = { name: "a", version: "1", aliases: [], ttl: undefined, cacheControl: undefined, resource: { typeUrl: addressTypeUrl, value: body } };
  const { target } = await scripted(t, (stream, request) => {
    if (request.typeUrl !== addressTypeUrl) return;
    if (request.responseNonce === "") {
      stream.write({ ...empty, typeUrl: addressTypeUrl, nonce: "1", resources: [resource, resource] });
      stream.write({ ...empty, typeUrl: "type.googleapis.com/unheard.Of", nonce: "2" });
    } else if (request.responseNonce === "1") {
      streams++;
      if (streams === 1) stream.end();
      else stream.emit("error", { code: streams === 2 ? status.UNKNOWN : status.INTERNAL, details: "no" });
    }
  });
  const received: [string, number][] = [];
  const ended: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const observer: XdsObserver = {
    received: (typeUrl, bytes) => void received.push([typeUrl, bytes]),
    ended: (how) => {
      if (ended.push(how) === 3) resolve();
    },
  };
  const view = createXdsMeshView({ access: accessTo(target), node, nodeName: "n", clock: systemClock, log: silentLogger, observer });
  t.teardown(() => view[Symbol.asyncDispose]());
  await promise;
  t.deepEqual(ended.slice(0, 3), ["clean", "normal", "error"]);
  t.deepEqual(received[0], [addressTypeUrl, 2 * body.length]);
  t.true(received.every(([typeUrl]) => typeUrl === addressTypeUrl));
});

test("bytes that are no message end the stream with an error, and the next stream works", async (t) => {
  const broken = [encoded.subarray(0, 9), Buffer.from("garbage"), Buffer.alloc(64, 0xff)];
  const { target } = await scripted(
    t,
    (stream, request) => {
      if (request.node === undefined) return;
      if (request.typeUrl === authorizationTypeUrl && broken.length > 0)
        stream.write({ ...empty, typeUrl: "", nonce: "", systemVersionInfo: (broken.shift() ?? encoded).toString("base64") });
      else if (broken.length === 0) stream.write({ ...empty, typeUrl: "", nonce: "", systemVersionInfo: good(request.typeUrl) });
    },
    asBytes,
  );
  const view = connect(t, accessTo(target));
  const [first] = await waits(view, 1);
  t.is(errorCode(first?.error), "XDS_STREAM_FAILED");
  await view.synced.until(Boolean, soon());
  t.is(broken.length, 0);
});

test("a message altered in any byte is undecodable or handled, and nothing else is thrown", (t) => {
  for (let index = 0; index < encoded.length; index++) {
    for (const flip of [0x01, 0x80, 0xff]) {
      const altered = Buffer.from(encoded);
      altered[index] = (altered[index] ?? 0) ^ flip;
      let response: DeltaDiscoveryResponse;
      try {
        response = DeltaDiscoveryResponse.decode(altered);
      } catch {
        continue;
      }
      const sink: ResourceSink = { typeUrl: addressTypeUrl, apply: () => new Map() };
      t.is(new Subscription(sink).receive(response).reply.responseNonce, response.nonce);
    }
  }
  t.pass();
});

test("a subscription never throws, whatever a response holds, and answers every one", (t) => {
  const sink: ResourceSink = {
    typeUrl: "t",
    apply(resources) {
      if (resources.some(({ name }) => name === "throw")) throw new Error("a sink that fails");
      return new Map(resources.filter(({ name }) => name.startsWith("b")).map(({ name }) => [name, "bad"]));
    },
  };
  const resource = fc.record({
    name: fc.oneof(fc.constantFrom("throw", "b1", "good", "__proto__"), fc.string()),
    version: fc.string(),
    resource: fc.option(fc.record({ typeUrl: fc.constantFrom("t", "u"), value: fc.uint8Array() }), { nil: undefined }),
    aliases: fc.constant([]),
    ttl: fc.constant(undefined),
    cacheControl: fc.constant(undefined),
  });
  fc.assert(
    fc.property(fc.array(resource), fc.array(fc.string()), fc.string(), (resources, removedResources, nonce) => {
      const subscription = new Subscription(sink);
      const { reply, rejected } = subscription.receive({ ...empty, typeUrl: "t", nonce, resources, removedResources });
      t.is(reply.responseNonce, nonce);
      t.is(reply.errorDetail === undefined, rejected.size === 0);
      t.is(subscription.synced, rejected.size === 0);
      for (const name of rejected.keys())
        t.false(
          subscription
            .firstRequest({
              id: "",
              cluster: "",
              metadata: undefined,
              locality: undefined,
              userAgentName: "",
              userAgentVersionType: undefined,
              clientFeatures: [],
            })
            .initialResourceVersions.has(name),
        );
    }),
    { numRuns: 200 },
  );
});

test("closing ends the stream and every wait", async (t) => {
  const { target } = await scripted(t, () => undefined);
  const client = new XdsClient({ access: accessTo(target), node, sinks: [], clock: systemClock, log: silentLogger });
  await client[Symbol.asyncDispose]();
  t.pass();
});

function connect(t: ExecutionContext, access: ControlPlaneAccess): XdsMeshView {
  const view = createXdsMeshView({ access, node, nodeName: undefined, clock: systemClock, log: silentLogger, random: () => 0.5 });
  t.teardown(() => view[Symbol.asyncDispose]());
  return view;
}

type Waiting = Extract<XdsConnection, { kind: "waiting" }>;

/** The first `count` pauses between attempts. */
function waits(view: XdsMeshView, count: number): Promise<Waiting[]> {
  const seen: Waiting[] = [];
  return new Promise((resolve, reject) => {
    // Unlike the clock's timers this one keeps the process alive: between attempts nothing else does.
    const deadline = setTimeout(() => reject(new Error(`only ${seen.length} of ${count} pauses`)), 60_000);
    view.connection.subscribe((state) => {
      if (state.kind !== "waiting") return;
      seen.push(state);
      if (seen.length !== count) return;
      clearTimeout(deadline);
      resolve(seen);
    });
  });
}

function good(typeUrl: string): string {
  return Buffer.from(DeltaDiscoveryResponse.encode({ ...empty, typeUrl, nonce: "1" }).finish()).toString("base64");
}

/** Writes the bytes hidden in a response instead of the response. */
function asBytes({ systemVersionInfo }: DeltaDiscoveryResponse): Buffer {
  return Buffer.from(systemVersionInfo, "base64");
}

async function tcp(t: ExecutionContext, onSocket: (socket: Socket) => void, { closed = false } = {}) {
  const sockets = new Set<Socket>();
  const server: TcpServer = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  if (closed) server.close();
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { target: `127.0.0.1:${port}` };
}
