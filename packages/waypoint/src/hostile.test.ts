import { once } from "node:events";
import { type Socket, connect as tcpConnect } from "node:net";
import { connect as tlsConnect } from "node:tls";
import test, { type ExecutionContext } from "ava";
import { apiConfig, application, endpoint, eventually, forwardTo, loopbackAddresses, routeTo, TestWaypoint, workload } from "./test-waypoint.ts";

const at = loopbackAddresses();

/** A waypoint in front of an application that answers whatever it is told to. */
async function before(t: ExecutionContext, serve: (socket: Socket) => void, timeoutMs?: number): Promise<TestWaypoint> {
  const app = await application(t, at(2), serve);
  const waypoint = await TestWaypoint.start(t, {
    ip: at(1),
    mesh: { workloads: [workload("b", at(2))] },
    config: apiConfig({ vip: at(200), endpoints: [endpoint("b", at(2), app.port)], routes: [routeTo(forwardTo("api", { timeoutMs }))] }),
    proxy: { maxPendingHandshakes: 8, halfClosedMs: 100 },
  });
  await waypoint.workload("b", at(2), app);
  return waypoint;
}

const good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const answering =
  (text: string) =>
  (socket: Socket): void =>
    void socket.on("data", () => socket.write(text));

async function stillServes(t: ExecutionContext, waypoint: TestWaypoint): Promise<void> {
  t.like(await waypoint.request("honest", `${at(200)}:80`, "/"), { status: 200, body: "ok" });
}

for (const [name, bytes] of [
  ["garbage", Buffer.from([0, 1, 2, 3, 255, 254])],
  ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\nhost: b\r\n\r\n")],
] as const) {
  test.serial(`${name} on 15008 is closed and harmless`, async (t) => {
    const waypoint = await before(t, answering(good));
    const socket = tcpConnect({ host: at(1), port: 15_008 });
    socket.on("error", () => undefined);
    socket.end(bytes);
    await once(socket.resume(), "close");
    await stillServes(t, waypoint);
  });
}

test.serial("TLS without a client certificate is refused", async (t) => {
  const waypoint = await before(t, answering(good));
  const socket = tlsConnect({ host: at(1), port: 15_008, ALPNProtocols: ["h2"], rejectUnauthorized: false, servername: "" });
  const ended = await Promise.race([once(socket, "error").then(([error]) => String(error.code)), once(socket, "close").then(() => "closed")]);
  t.regex(ended, /CERTIFICATE_REQUIRED|ECONNRESET|closed/);
  await stillServes(t, waypoint);
});

test.serial("clients that open connections and say nothing keep nobody out", async (t) => {
  const waypoint = await before(t, answering(good));
  const silent = Array.from({ length: 20 }, () => tcpConnect({ host: at(1), port: 15_008 }).on("error", () => undefined));
  t.teardown(() => {
    for (const socket of silent) socket.destroy();
  });
  await Promise.all(silent.map((socket) => Promise.race([once(socket, "connect"), once(socket, "close")])));
  await stillServes(t, waypoint);
});

for (const [name, answer, expected] of [
  ["garbage", "\u0000\u0001 nonsense\r\n\r\n", { status: 502 }],
  ["two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", { status: 502 }],
] as const) {
  test.serial(`an upstream that answers ${name} is a 502 and nobody else's business`, async (t) => {
    let first = true;
    const waypoint = await before(t, (socket) => {
      socket.on("data", () => {
        socket.write(first ? answer : good);
        first = false;
      });
    });
    t.like(await waypoint.request("a", `${at(200)}:80`, "/"), expected);
    await stillServes(t, waypoint);
  });
}

test.serial("an upstream that closes before it answers is a 503, one that never answers a 504", async (t) => {
  let behaviour: (socket: Socket) => void = (socket) => void socket.end();
  const waypoint = await before(t, (socket) => void socket.on("data", () => behaviour(socket)), 5_000);
  t.like(await waypoint.request("a", `${at(200)}:80`, "/"), {
    status: 503,
    body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
  });
  behaviour = () => undefined;
  t.like(await waypoint.request("a", `${at(200)}:80`, "/"), { status: 504, body: "upstream request timeout" });
  behaviour = (socket) => void socket.write(good);
  await stillServes(t, waypoint);
});

test.serial("a kept connection that the upstream closes costs no request that may be sent again, and repeats none that may not", async (t) => {
  const seen: string[] = [];
  // Every connection answers once, and ends when it is asked a second time.
  const waypoint = await before(t, (socket) => {
    let asked = 0;
    socket.on("data", (bytes: Buffer) => {
      seen.push(bytes.toString("latin1", 0, bytes.indexOf(" ")));
      if (++asked === 1) socket.write(good);
      else socket.end();
    });
  });
  const ask = (method: string): ReturnType<TestWaypoint["request"]> => waypoint.request("a", `${at(200)}:80`, "/", { method });
  t.is((await ask("GET")).status, 200);
  t.is((await ask("GET")).status, 200);
  t.deepEqual(seen, ["GET", "GET", "GET"]);
  t.is((await ask("POST")).status, 503);
  t.deepEqual(seen, ["GET", "GET", "GET", "POST"]);
});

test.serial("an answer that breaks off never looks complete", async (t) => {
  let first = true;
  const waypoint = await before(t, (socket) => {
    socket.on("data", () => {
      if (first) socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
      else socket.write(good);
      first = false;
    });
  });
  await t.throwsAsync(waypoint.request("a", `${at(200)}:80`, "/"));
  await stillServes(t, waypoint);
});

test.serial("a client that leaves frees what its request held, upstream too", async (t) => {
  let hold = true;
  let closed = 0;
  const waypoint = await before(t, (socket) => {
    socket.once("close", () => closed++);
    socket.once("end", () => socket.end());
    socket.on("data", () => {
      if (!hold) socket.write(good);
    });
  });
  const client = tcpConnect(await waypoint.captured("a", `${at(200)}:80`), "127.0.0.1");
  client.on("error", () => undefined);
  client.write("GET / HTTP/1.1\r\nhost: api\r\n\r\n");
  await eventually(t, () => [...waypoint.proxy.clusters()].some(({ breakers }) => breakers.taken("requests") === 1));
  client.destroy();
  await eventually(t, () => [...waypoint.proxy.clusters()].every(({ breakers }) => breakers.taken("requests") === 0 && breakers.taken("connections") === 0));
  await eventually(t, () => closed === 1);
  t.is(waypoint.proxy.active, 0);
  hold = false;
  await stillServes(t, waypoint);
});

test.serial("an answer that takes longer than its route allows is broken off, never completed", async (t) => {
  const waypoint = await before(
    t,
    (socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        const timer = setInterval(() => socket.write("1\r\nx\r\n"), 10);
        socket.once("close", () => clearInterval(timer));
      });
    },
    3_000,
  );
  await t.throwsAsync(waypoint.request("a", `${at(200)}:80`, "/"));
  await eventually(t, () => [...waypoint.proxy.clusters()].every(({ breakers }) => breakers.taken("requests") === 0 && breakers.taken("connections") === 0));
});

test.serial("a client that leaves in the middle of an answer ends it upstream", async (t) => {
  let closed = 0;
  const waypoint = await before(t, (socket) => {
    const timer = setInterval(() => socket.write(`400\r\n${"x".repeat(1024)}\r\n`), 5);
    socket.once("close", () => {
      clearInterval(timer);
      closed++;
    });
    socket.once("end", () => socket.destroy());
    socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"));
  });
  const client = tcpConnect(await waypoint.captured("a", `${at(200)}:80`), "127.0.0.1");
  client.on("error", () => undefined);
  client.write("GET / HTTP/1.1\r\nhost: api\r\n\r\n");
  await once(client, "data");
  client.destroy();
  await eventually(t, () => [...waypoint.proxy.clusters()].every(({ breakers }) => breakers.taken("requests") === 0 && breakers.taken("connections") === 0));
  await eventually(t, () => closed === 1);
});

for (const [name, request] of [
  ["two lengths", "POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"],
  ["a length and chunks", "POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
  ["two hosts", "GET / HTTP/1.1\r\nhost: api\r\nhost: admin\r\n\r\n"],
  ["a bare line feed", "GET / HTTP/1.1\nhost: api\n\n"],
] as const) {
  test.serial(`a request with ${name} reaches nobody and is answered 400`, async (t) => {
    let asked = 0;
    const waypoint = await before(t, (socket) => {
      socket.on("data", () => {
        asked++;
        socket.write(good);
      });
    });
    const client = tcpConnect(await waypoint.captured("a", `${at(200)}:80`), "127.0.0.1");
    t.teardown(() => client.destroy());
    client.on("error", () => undefined);
    client.write(request);
    const [answer] = await once(client, "data");
    t.regex(String(answer), /^HTTP\/1\.1 400 /);
    t.is(asked, 0);
    await stillServes(t, waypoint);
  });
}

test.serial("after the drain begins no tunnel is taken, and the requests under way finish", async (t) => {
  let release: (() => void) | undefined;
  const waypoint = await before(t, (socket) => {
    socket.on("data", () => {
      release = () => void socket.write(good);
    });
  });
  const underWay = waypoint.request("a", `${at(200)}:80`, "/");
  await eventually(t, () => release !== undefined);
  const drained = waypoint.proxy.drain({ signal: new AbortController().signal });
  await t.throwsAsync(waypoint.connect("late", `${at(200)}:80`));
  release?.();
  t.is((await underWay).body, "ok");
  await drained;
  t.is(waypoint.proxy.active, 0);
});
