/** What a visitor does over WebSocket and gRPC. */
import { Client, type ClientDuplexStream, type ClientReadableStream, credentials, type Metadata } from "@grpc/grpc-js";
import { WebSocket } from "ws";
import { ordersService } from "./orders-service.ts";

const callTimeoutMs = 15_000;

/** Messages one after the other, each compared with what comes back. */
export function chat(url: string, count: number): Promise<{ returned: number; error?: string }> {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, { handshakeTimeout: callTimeoutMs });
    const timer = setTimeout(() => socket.terminate(), callTimeoutMs);
    let returned = 0;
    let error: string | undefined;
    socket.on("open", () => socket.send("message 0"));
    socket.on("message", (message) => {
      if (String(message) !== `message ${returned}`) error = `message ${returned} came back as ${JSON.stringify(String(message).slice(0, 80))}`;
      returned++;
      if (returned === count || error !== undefined) socket.close();
      else socket.send(`message ${returned}`);
    });
    socket.on("error", (thrown) => {
      error = thrown.message;
    });
    socket.on("close", () => {
      clearTimeout(timer);
      resolve({ returned, ...(error === undefined ? {} : { error }) });
    });
  });
}

/** Unary calls, counted by the version that answered. `xds:///…` targets are resolved by the mesh's control plane, without a proxy. */
export async function placeOrders(target: string, count: number): Promise<{ versions: Record<string, number>; peers: readonly string[]; error?: string }> {
  const client = await clientOf(target);
  const { Place } = ordersService;
  if (Place === undefined) throw new Error("shop.Orders has no Place");
  const versions: Record<string, number> = {};
  const peers = new Set<string>();
  let error: string | undefined;
  for (let index = 0; index < count && error === undefined; index++) {
    await new Promise<void>((resolve) => {
      const call = client.makeUnaryRequest<object, { version: string }>(
        Place.path,
        Place.requestSerialize,
        Place.responseDeserialize,
        { index },
        { deadline: Date.now() + callTimeoutMs },
        (failure, answer) => {
          peers.add(call.getPeer());
          if (failure !== null) error = failure.message;
          else if (answer !== undefined) versions[answer.version] = (versions[answer.version] ?? 0) + 1;
          resolve();
        },
      );
    });
  }
  client.close();
  return { versions, peers: [...peers], ...(error === undefined ? {} : { error }) };
}

/** The server streams `count` events; then both sides stream `count` messages. */
export async function stream(target: string, count: number): Promise<{ watched: number; talked: number; trailers: readonly string[]; error?: string }> {
  const client = await clientOf(target);
  const { Watch, Talk } = ordersService;
  if (Watch === undefined || Talk === undefined) throw new Error("shop.Orders does not stream");
  const options = { deadline: Date.now() + callTimeoutMs };
  const watching = client.makeServerStreamRequest<object, object>(Watch.path, Watch.requestSerialize, Watch.responseDeserialize, { events: count }, options);
  const watched = await collect(watching);
  const talking = client.makeBidiStreamRequest<object, object>(Talk.path, Talk.requestSerialize, Talk.responseDeserialize, options);
  const talk = collect(talking);
  for (let index = 0; index < count; index++) talking.write({ index });
  talking.end();
  const talked = await talk;
  client.close();
  const error = watched.error ?? talked.error;
  return { watched: watched.messages, talked: talked.messages, trailers: [watched.trailer, talked.trailer], ...(error === undefined ? {} : { error }) };
}

async function clientOf(target: string): Promise<Client> {
  if (target.startsWith("xds:")) (await import("@grpc/grpc-js-xds")).register();
  return new Client(target, credentials.createInsecure());
}

function collect(call: ClientReadableStream<object> | ClientDuplexStream<object, object>): Promise<{ messages: number; trailer: string; error?: string }> {
  return new Promise((resolve) => {
    let messages = 0;
    let error: string | undefined;
    call.on("data", () => {
      messages++;
    });
    call.on("error", (failure: Error) => {
      error = failure.message;
    });
    call.on("status", ({ metadata }: { metadata: Metadata }) => {
      resolve({ messages, trailer: String(metadata.get("x-version")[0] ?? ""), ...(error === undefined ? {} : { error }) });
    });
  });
}
