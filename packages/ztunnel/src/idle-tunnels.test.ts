import { once } from "node:events";
import { type ClientHttp2Session, connect as http2Connect } from "node:http2";
import { connect as tcpConnect } from "node:net";
import { createLeanEngine, createNodeHttp2Engine, type ServerTunnel, type TunnelEngine } from "@fairway/hbone";
import { parseSpiffeId } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import type { IdleTunnelLimits } from "./idle-tunnels.ts";
import { application, client, eventually, loopbackAddresses, readAll, TestMesh, type TestMeshOptions, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const signal = new AbortController().signal;
const plenty: IdleTunnelLimits = { maxIdleTunnels: 100, maxIdleTunnelsOfPeer: 100, inboundIdleMs: 600_000 };

interface Held {
  readonly session: ClientHttp2Session;
}

class Victim {
  readonly mesh: TestMesh;
  /** Names of the tunnels that were told to go, in order. */
  readonly sentAway: string[] = [];
  readonly #t: ExecutionContext;
  readonly #port: number;

  private constructor(t: ExecutionContext, mesh: TestMesh, port: number) {
    this.#t = t;
    this.mesh = mesh;
    this.#port = port;
  }

  /** Pod b, whose application echoes, with these bounds. */
  static async start(t: ExecutionContext, limits: Partial<IdleTunnelLimits>, options: Partial<TestMeshOptions> = {}): Promise<Victim> {
    const app = await application(t, at(2), (socket) => void socket.pipe(socket));
    const mesh = new TestMesh(t, {
      change: { workloads: [workload("a", at(1)), workload("b", at(2)), workload("c", at(3))] },
      config: { ...plenty, ...limits },
      ...options,
    });
    await mesh.pod("b", at(2));
    return new Victim(t, mesh, app.port);
  }

  /** A tunnel of `peer`; the victim has heard of it. */
  async hold(name: string, peer = "a"): Promise<Held> {
    const { tls, certificates } = this.mesh.parts;
    const certificate = await certificates.fetch(parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${peer}`), { signal, priority: "realtime" });
    const raw = tcpConnect({ host: at(2), port: 15_008 });
    await once(raw, "connect");
    const { socket } = await tls.connect(raw, certificate, [parseSpiffeId("spiffe://cluster.local/ns/default/sa/b")], { signal });
    const session = http2Connect("http://b", { createConnection: () => socket });
    session.on("error", () => {});
    session.once("goaway", () => this.sentAway.push(name));
    this.#t.teardown(() => {
      session.destroy();
      raw.destroy();
    });
    await once(session, "remoteSettings");
    return { session };
  }

  /** Opens a stream on a held tunnel and has a byte echoed; to end it, call what is returned. */
  async use({ session }: Held): Promise<() => Promise<void>> {
    const stream = session.request({ ":method": "CONNECT", ":authority": `${at(2)}:${this.#port}` }, { endStream: false });
    stream.on("error", () => {});
    stream.write("x");
    const [byte] = await once(stream, "data");
    this.#t.is(String(byte), "x");
    return async () => {
      stream.end();
      const lines = this.#completed();
      stream.resume();
      await once(stream, "close");
      await eventually(this.#t, () => this.#completed() > lines);
    };
  }

  /** An honest client is served. */
  async serves(): Promise<void> {
    const a = await this.mesh.pod("a", at(1), () => ({ ip: at(2), port: this.#port }));
    const socket = await client(this.#t, at(1), a.port("outbound") ?? 0);
    socket.end("honest");
    this.#t.is((await readAll(socket)).toString(), "honest");
  }

  #completed(): number {
    return this.mesh.accessLines().filter((line) => line.includes("connection complete") && line.includes('direction="inbound"')).length;
  }
}

test.serial("tunnels without a stream beyond the bound are sent away, the one idle for longest first; those with a stream and new ones never", async (t) => {
  const victim = await Victim.start(t, { maxIdleTunnels: 3 });
  const busy = await victim.hold("busy");
  const end = await victim.use(busy);
  const first = await victim.hold("first");
  for (const name of ["second", "third", "fourth"]) await victim.hold(name);
  await eventually(t, () => victim.sentAway.length === 1);
  if (!first.session.closed) await once(first.session, "close");
  await victim.hold("fifth");
  await eventually(t, () => victim.sentAway.length === 2);
  t.deepEqual(victim.sentAway, ["first", "second"]);
  // The honest client's own tunnel is one more, and the third goes for it.
  await victim.serves();
  await eventually(t, () => victim.sentAway.length === 3);
  await (await victim.use(busy))();
  await end();
  await eventually(t, () => victim.sentAway.length === 4);
  t.deepEqual(victim.sentAway, ["first", "second", "third", "fourth"], "what was used last is kept");
  t.regex(await victim.mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="idle-tunnels"\} 4\n/);
});

test.serial("a peer that holds more idle tunnels than one peer may loses its own, and nobody else's", async (t) => {
  const victim = await Victim.start(t, { maxIdleTunnels: 6, maxIdleTunnelsOfPeer: 2 });
  const honest = await victim.hold("honest", "c");
  for (const name of ["1", "2", "3", "4", "5", "6"]) await victim.hold(name);
  await eventually(t, () => victim.sentAway.length === 4);
  t.deepEqual(victim.sentAway, ["1", "2", "3", "4"]);
  await (await victim.use(honest))();
  t.regex(await victim.mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="idle-tunnels-of-peer"\} 4\n/);
});

test.serial("a tunnel without a stream is sent away after its time, counted from its last stream", async (t) => {
  const clock = new ManualClock();
  const victim = await Victim.start(t, { inboundIdleMs: 600_000 }, { clock });
  await victim.hold("unused");
  const used = await victim.hold("used");
  const busy = await victim.hold("busy");
  const end = await victim.use(busy);
  await clock.advance(400_000);
  await (await victim.use(used))();
  await clock.advance(199_999);
  await (await victim.use(busy))();
  t.deepEqual(victim.sentAway, []);
  await clock.advance(1);
  await eventually(t, () => victim.sentAway.length === 1);
  await clock.advance(400_000);
  await eventually(t, () => victim.sentAway.length === 2);
  t.deepEqual(victim.sentAway, ["unused", "used"]);
  await end();
  await clock.advance(600_000);
  await eventually(t, () => victim.sentAway.length === 3);
  t.deepEqual(victim.sentAway, ["unused", "used", "busy"]);
});

// The engines' own patience is out of the game: their clocks stand still.
for (const engine of [createLeanEngine(new ManualClock()), createNodeHttp2Engine(new ManualClock())]) {
  test.serial(`a peer that does not let go of a tunnel that was sent away is cut off (${engine.name})`, async (t) => {
    const clock = new ManualClock();
    const victim = await Victim.start(t, { inboundIdleMs: 1_000 }, { clock });
    const { mesh } = victim;
    const { promise: served, resolve } = Promise.withResolvers<ServerTunnel>();
    Object.assign(mesh.parts, {
      engine: {
        ...engine,
        serve: (...given: Parameters<TunnelEngine["serve"]>) => {
          const tunnel = engine.serve(...given);
          resolve(tunnel);
          return tunnel;
        },
      },
    });
    await mesh.pod("c", at(3));
    const { tls, certificates } = mesh.parts;
    const certificate = await certificates.fetch(parseSpiffeId("spiffe://cluster.local/ns/default/sa/a"), { signal, priority: "realtime" });
    const raw = tcpConnect({ host: at(3), port: 15_008, allowHalfOpen: true });
    await once(raw, "connect");
    t.teardown(() => raw.destroy());
    const { socket } = await tls.connect(raw, certificate, [parseSpiffeId("spiffe://cluster.local/ns/default/sa/c")], { signal });
    socket.on("error", () => {});
    // The preface, our SETTINGS and an answer to theirs; after that not a word, not even a FIN.
    socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1"), Buffer.from("000000040000000000000000040100000000", "hex")]));
    await once(socket.resume(), "data");
    const tunnel = await served;
    await clock.advance(1_000);
    await clock.advance(10_000);
    await tunnel.closed;
    t.pass();
  });
}
