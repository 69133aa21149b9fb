/** Peers that write what no peer should, and peers that write too much of it: malformed requests, broken frames, floods. */
import type { Duplex } from "node:stream";
import type { ServerTunnel } from "../engine.ts";
import { authority, type Behaviour, echo, errorCodes, type Serve, stillServes } from "./hostile-peer.ts";
import { connectHeaders, data, flags, frame, frameTypes, headerBlock, rstStream, settings, uint32 } from "./raw-peer.ts";
import { until } from "./tunnel-compliance.ts";

export function malformed(behaviour: Behaviour, serve: Serve): void {
  const refused: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    [
      "a GET",
      [
        [":method", "GET"],
        [":scheme", "http"],
        [":authority", authority],
        [":path", "/"],
      ],
    ],
    [
      "an authority without a port",
      [
        [":method", "CONNECT"],
        [":authority", "10.0.0.1"],
      ],
    ],
    [
      "an authority that is a scoped address",
      [
        [":method", "CONNECT"],
        [":authority", "[fe80::1%eth0]:80"],
      ],
    ],
  ];
  const reset: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    [
      "an authority with a path",
      [
        [":method", "CONNECT"],
        [":authority", "10.0.0.1:80/admin"],
      ],
    ],
    ["no :authority", [[":method", "CONNECT"]]],
    ["no :method", [[":authority", authority]]],
    [
      "two :method",
      [
        [":method", "CONNECT"],
        [":method", "CONNECT"],
        [":authority", authority],
      ],
    ],
    [
      "two :authority",
      [
        [":method", "CONNECT"],
        [":authority", authority],
        [":authority", "10.0.0.2:80"],
      ],
    ],
    [
      ":path and :scheme on a CONNECT",
      [
        [":method", "CONNECT"],
        [":scheme", "https"],
        [":authority", authority],
        [":path", "/"],
      ],
    ],
    [
      "an unknown pseudo-header",
      [
        [":method", "CONNECT"],
        [":authority", authority],
        [":evil", "1"],
      ],
    ],
    [
      "a pseudo-header after a field",
      [
        [":method", "CONNECT"],
        ["baggage", "a=b"],
        [":authority", authority],
      ],
    ],
    [
      "an upper-case field name",
      [
        [":method", "CONNECT"],
        [":authority", authority],
        ["Baggage", "a=b"],
      ],
    ],
    [
      "a connection-specific field",
      [
        [":method", "CONNECT"],
        [":authority", authority],
        ["connection", "close"],
      ],
    ],
    [
      "a response's status",
      [
        [":method", "CONNECT"],
        [":authority", authority],
        [":status", "200"],
      ],
    ],
  ];
  for (const [what, fields] of refused) {
    behaviour(`${what} is answered 400 and never asked of anybody`, async (t) => {
      const { peer, exchanges, refusals, tunnel } = await serve((exchange) => void echo(exchange));
      peer.send(frame(frameTypes.headers, flags.endHeaders, 1, headerBlock(fields)));
      const { payload, flags: bits } = await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 1);
      // 0x8c is `:status 400` of the static table.
      t.is(payload[0], 0x8c);
      t.not(bits & flags.endStream, 0);
      t.deepEqual(exchanges, []);
      t.deepEqual(
        refusals.map(({ code }) => code),
        ["HBONE_BAD_REQUEST"],
        "and who serves hears why",
      );
      await stillServes(t, peer, 3);
      tunnel.destroy();
    });
  }
  for (const [what, fields] of reset) {
    behaviour(`${what} resets the stream with PROTOCOL_ERROR and nothing else`, async (t) => {
      const { peer, exchanges, tunnel } = await serve((exchange) => void echo(exchange));
      peer.send(frame(frameTypes.headers, flags.endHeaders, 1, headerBlock(fields)));
      const { payload } = await peer.receive(({ type, stream }) => type === frameTypes.rstStream && stream === 1);
      t.is(payload.readUInt32BE(0), errorCodes.protocolError);
      t.deepEqual(exchanges, []);
      await stillServes(t, peer, 3);
      tunnel.destroy();
    });
  }

  const fatal: readonly (readonly [string, Buffer])[] = [
    ["bytes that are no frames", Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\nand then some more bytes")],
    ["a frame longer than allowed", frame(frameTypes.data, 0, 1, Buffer.alloc(16), 2 * 1024 * 1024)],
    ["a SETTINGS frame of a wrong length", frame(frameTypes.settings, 0, 0, Buffer.alloc(5))],
    ["HEADERS on stream 0", connectHeaders(0, authority)],
    ["HEADERS on an even stream", connectHeaders(2, authority)],
    ["a header block that is no HPACK", frame(frameTypes.headers, flags.endHeaders, 1, Buffer.alloc(8, 0xff))],
    ["CONTINUATION out of the blue", frame(frameTypes.continuation, flags.endHeaders, 1, Buffer.alloc(1))],
    ["PUSH_PROMISE from a client", frame(frameTypes.pushPromise, flags.endHeaders, 1, uint32(2))],
    ["DATA with more padding than payload", Buffer.concat([connectHeaders(1, authority), frame(frameTypes.data, flags.padded, 1, Buffer.from([200, 1]))])],
    ["a connection window above 2^31-1", frame(frameTypes.windowUpdate, 0, 0, uint32(2 ** 31 - 1))],
    ["a window update of nothing", frame(frameTypes.windowUpdate, 0, 0, uint32(0))],
  ];
  for (const [what, bytes] of fatal) {
    behaviour(`${what} ends the tunnel`, async (t) => {
      const { peer, tunnel } = await serve((exchange) => void echo(exchange));
      await peer.receive(({ type }) => type === frameTypes.settings);
      peer.send(bytes);
      await tunnel.closed;
      await peer.closed();
      t.is(tunnel.streams, 0);
    });
  }

  behaviour("a connection that ends within a frame ends the tunnel", async (t) => {
    const { peer, tunnel } = await serve();
    peer.send(connectHeaders(1, authority).subarray(0, 12));
    peer.end();
    await tunnel.closed;
    t.is(tunnel.streams, 0);
  });

  behaviour("frames of unknown type and unknown settings are ignored", async (t) => {
    const { peer, tunnel } = await serve((exchange) => void echo(exchange));
    peer.send(frame(0xfa, 0xff, 1, Buffer.alloc(32)), settings([[0xf000, 7]]), frame(frameTypes.priority, 0, 1, Buffer.alloc(5, 1)));
    await stillServes(t, peer, 1);
    tunnel.destroy();
  });

  behaviour("hostile values of known headers are dropped, and __proto__ is only a name", async (t) => {
    const { peer, exchanges, tunnel } = await serve((exchange) => void echo(exchange));
    const fields = [
      ["__proto__", "polluted"],
      ["constructor", "x"],
      ["forwarded", 'for="'],
      ["traceparent", ""],
      ["baggage", "k8s.pod.name=\u00e9"],
    ] as const;
    peer.send(connectHeaders(1, authority, fields));
    await until(() => exchanges.length === 1);
    t.deepEqual(exchanges[0]?.request, { authority, baggage: undefined, forwarded: 'for="', traceparent: undefined, forwardedNetwork: undefined });
    t.is(Reflect.get({}, "polluted"), undefined);
    tunnel.destroy();
  });

  behaviour("repeated baggage headers are joined", async (t) => {
    const { peer, exchanges, tunnel } = await serve();
    peer.send(
      connectHeaders(1, authority, [
        ["baggage", "a=1"],
        ["baggage", "b=2"],
      ]),
    );
    await until(() => exchanges.length === 1);
    t.is(exchanges[0]?.request.baggage?.replaceAll(" ", ""), "a=1,b=2");
    tunnel.destroy();
  });
}

export function floods(behaviour: Behaviour, alone: Behaviour, serve: Serve, serveDeaf: () => Promise<{ transport: Duplex; tunnel: ServerTunnel }>): void {
  behaviour("a client that opens and resets streams without end loses its tunnel", async (t) => {
    const { peer, tunnel, exchanges } = await serve((exchange) => void exchange.cancelled);
    const most = 100_000;
    for (let stream = 1; stream < 2 * most && !peer.ended; stream += 200) {
      const burst: Buffer[] = [];
      for (let id = stream; id < stream + 200; id += 2) burst.push(connectHeaders(id, authority), rstStream(id, errorCodes.cancel));
      peer.send(...burst);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await tunnel.closed;
    t.true(exchanges.length < most / 4, `${exchanges.length} streams were accepted`);
    t.is(tunnel.streams, 0);
  });

  behaviour("5,000 connections that end well, one after the other in bursts, leave the tunnel alive", async (t) => {
    const { peer, tunnel } = await serve((exchange) => void echo(exchange));
    let stream = 1;
    for (let burst = 0; burst < 50; burst++) {
      const first = stream;
      for (; stream < first + 200; stream += 2) peer.send(connectHeaders(stream, authority), data(stream, "x", flags.endStream));
      for (let id = first; id < stream; id += 2) await peer.receiveAll(id);
      peer.frames.length = 0;
    }
    await stillServes(t, peer, stream);
    tunnel.destroy();
  });

  behaviour("5,000 applications that hang up at once do not cost the others their tunnel", async (t) => {
    const { peer, tunnel } = await serve((exchange) => void echo(exchange));
    let stream = 1;
    for (let burst = 0; burst < 100; burst++) {
      const first = stream;
      for (; stream < first + 100; stream += 2) peer.send(connectHeaders(stream, authority), data(stream, "x"));
      await peer.receive(({ type, stream: id }) => type === frameTypes.data && id === stream - 2);
      for (let id = first; id < stream; id += 2) peer.send(rstStream(id, errorCodes.cancel));
      peer.frames.length = 0;
    }
    await until(() => tunnel.streams === 0);
    await stillServes(t, peer, stream);
    tunnel.destroy();
  });

  behaviour("CONTINUATION without end ends the tunnel", async (t) => {
    const { peer, tunnel, exchanges } = await serve();
    const block = headerBlock([
      [":method", "CONNECT"],
      [":authority", authority],
    ]);
    peer.send(frame(frameTypes.headers, 0, 1, block));
    const filler = headerBlock([["x", "y"]]);
    for (let count = 0; count < 10_000 && !peer.ended; count++) {
      peer.send(frame(frameTypes.continuation, 0, 1, filler));
      if (count % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await tunnel.closed;
    t.deepEqual(exchanges, []);
  });

  behaviour("headers that are too many or too large never become a CONNECT", async (t) => {
    const { peer, exchanges, tunnel } = await serve();
    const crumbs = Array.from({ length: 4_000 }, (): readonly [string, string] => ["cookie", "a=b"]);
    peer.send(connectHeaders(1, authority, crumbs));
    const large = frame(
      frameTypes.headers,
      flags.endHeaders,
      3,
      headerBlock([
        [":method", "CONNECT"],
        [":authority", authority],
        ["x", "y".repeat(100_000)],
      ]),
    );
    peer.send(large);
    await until(() => peer.ended || peer.frames.some(({ type, stream }) => type === frameTypes.rstStream && stream === 3));
    t.deepEqual(exchanges, []);
    tunnel.destroy();
  });

  for (const [what, bytes] of [
    ["SETTINGS", settings([[3, 100]])],
    ["PING", frame(frameTypes.ping, 0, 0, Buffer.alloc(8))],
  ] as const) {
    alone(`${what} without end, with nobody reading the answers, does not pile up`, async (t) => {
      const { transport, tunnel } = await serveDeaf();
      const before = process.memoryUsage().rss;
      const burst = Buffer.concat(Array.from({ length: 1_000 }, () => bytes));
      for (let count = 0; count < 200 && transport.writable; count++) {
        transport.write(burst);
        await new Promise((resolve) => setImmediate(resolve));
      }
      const grown = process.memoryUsage().rss - before;
      t.true(grown < 64 * 1024 * 1024, `memory grew by ${grown} bytes`);
      tunnel.destroy();
      transport.destroy();
    });
  }
}
