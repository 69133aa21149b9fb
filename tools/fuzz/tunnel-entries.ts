/** Decoders of the tunnel, and both engines with a peer that says anything. */
import { duplexPair } from "node:stream";
import { connectHeaders, data, flags, frame, preface, rstStream, settings, status200, uint32 } from "../../packages/hbone/dist/compliance/raw-peer.js";
import { parseAuthority, parseBaggage, parseForwarded, parseTraceparent } from "../../packages/hbone/dist/connect-request.js";
import type { TunnelEngine } from "../../packages/hbone/dist/engine.js";
import { FrameReader } from "../../packages/hbone/dist/lean/frame-reader.js";
import { HpackDecoder } from "../../packages/hbone/dist/lean/hpack/decoder.js";
import { createLeanEngine } from "../../packages/hbone/dist/lean/index.js";
import { createNodeHttp2Engine } from "../../packages/hbone/dist/node-http2-engine.js";
import { defaultClientSettings, defaultServerSettings } from "../../packages/hbone/dist/settings.js";
import { ManualClock } from "../../packages/runtime/dist/index.js";
import { type FuzzEntry, latin1, text } from "./entry.ts";

const authority = "10.0.0.1:80";
const forever = new AbortController().signal;
const ignore = (): void => {};
const session = Buffer.concat([
  connectHeaders(1, authority),
  data(1, "bytes"),
  frame(8, 0, 1, uint32(100)),
  frame(6, 0, 0, Buffer.alloc(8)),
  data(1, "", flags.endStream),
]);
const interrupted = Buffer.concat([
  connectHeaders(1, authority, [["baggage", "k8s.pod.name=a"]]),
  rstStream(1, 8),
  connectHeaders(3, authority),
  settings([[4, 10]]),
]);
const answers = Buffer.concat([settings(), frame(4, 1, 0), status200(1), data(1, "bytes"), data(1, "", flags.endStream), frame(7, 0, 0, Buffer.alloc(8))]);

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function feedServer(engine: TunnelEngine, bytes: Buffer): Promise<void> {
  const [client, server] = duplexPair();
  client.on("error", ignore).resume();
  const tunnel = engine.serve(server, defaultServerSettings, (exchange) => {
    const [app, near] = duplexPair();
    app.on("error", ignore).pipe(app);
    void exchange.accept({}).pipe(near, { signal: forever });
  });
  client.write(Buffer.concat([preface, settings(), bytes]));
  await turns(4);
  client.destroy();
  tunnel.destroy();
  await tunnel.closed;
  if (tunnel.streams !== 0) throw new Error("a stream outlived its tunnel");
}

async function feedClient(engine: TunnelEngine, bytes: Buffer): Promise<void> {
  const [client, server] = duplexPair();
  server.on("error", ignore).resume();
  server.write(bytes);
  const gone = new AbortController();
  const connecting = engine.connect(client, defaultClientSettings, { signal: gone.signal }).catch(() => undefined);
  await turns(3);
  gone.abort(new Error("enough"));
  const tunnel = await connecting;
  const streams = [1, 2].map(async () => {
    const { stream } = (await tunnel?.open({ authority }, { signal: forever })) ?? {};
    const [app, near] = duplexPair();
    app.on("error", ignore).resume().end("bytes");
    await stream?.pipe(near, { signal: forever });
  });
  const settled = Promise.allSettled(streams);
  server.write(bytes);
  await turns(4);
  server.destroy();
  tunnel?.destroy();
  await settled;
}

const engines: readonly TunnelEngine[] = [createLeanEngine(new ManualClock()), createNodeHttp2Engine(new ManualClock())];
const reader = { onDataStart: ignore, onData: ignore, onDataEnd: ignore, onHeaders: ignore, onReset: ignore, onSettings: ignore, onSettingsAck: ignore };

export const tunnelEntries: readonly FuzzEntry[] = [
  {
    name: "hbone-frames",
    samples: [Buffer.concat([preface, settings(), session]), Buffer.concat([preface, settings(), interrupted])],
    run: (bytes) =>
      new FrameReader(
        { ...reader, onPing: ignore, onGoaway: ignore, onWindowUpdate: ignore, onIgnored: ignore, onStreamFault: ignore },
        {
          preface: true,
          maxFrameSize: defaultServerSettings.frameSize,
          maxBlockBytes: 2 * defaultServerSettings.maxHeaderBytes,
        },
      ).feed(bytes),
  },
  {
    name: "hpack",
    samples: [
      connectHeaders(1, authority).subarray(9),
      Buffer.from([0x88]),
      Buffer.from([0x3f, 0xe1, 0x1f, 0x82]),
      Buffer.from("418cf1e3c2e5f23a6ba0ab90f4ff", "hex"),
    ],
    run: (bytes) => {
      const decoder = new HpackDecoder({ maxListBytes: 16_384, maxFields: 64 });
      decoder.decode(bytes);
      decoder.decode(bytes);
    },
  },
  ...engines.flatMap((engine): FuzzEntry[] => [
    { name: `${engine.name}-server`, samples: [session, interrupted], run: (bytes) => feedServer(engine, bytes) },
    { name: `${engine.name}-client`, samples: [answers, status200(1)], run: (bytes) => feedClient(engine, bytes) },
  ]),
  { name: "connect-authority", samples: [authority, "[fd00::1]:15008", "web.default.svc.cluster.local:80"], run: text(parseAuthority) },
  { name: "baggage", samples: ["k8s.namespace.name=default,k8s.pod.name=a,service.version=v1"], run: text(parseBaggage) },
  { name: "forwarded", samples: ['for=10.0.0.1;host="a:80";proto=http', 'for="[fd00::1]"'], run: latin1(parseForwarded) },
  { name: "traceparent", samples: ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], run: text(parseTraceparent) },
];
