/** One table for every pair of versions: what a client sends and reads through a proxy that only passes on. */
import { createHash, type Hash } from "node:crypto";
import { HeaderFields } from "@fairway/model";
import test from "ava";
import { type Body, type BodySink, emptyBody, textBody } from "./body.ts";
import type { Answer, ClientConnection, Delivery, HttpVersion, IncomingRequest } from "./http-connection.ts";
import { application, ask, client, collect, type Forwarder, forward, ScriptedBody, until } from "./test-forwarder.ts";

const signal = new AbortController().signal;
const megabyte = 1024 * 1024;

interface Way {
  readonly connection: ClientConnection;
  readonly forwarder: Forwarder;
}

function way(from: HttpVersion, to: HttpVersion, onRequest: (request: IncomingRequest) => void): Way {
  const forwarder = forward({ from, to, dial: () => application(to, onRequest) });
  return { connection: client(from, forwarder.transport), forwarder };
}

function respond(request: IncomingRequest, status: number, body: Body = emptyBody, headers: Record<string, string | readonly string[]> = {}): void {
  request.respond({ status, headers: HeaderFields.of(headers), body });
}

/** Reads a body in steps, and keeps how much the other end was ahead at most. */
class SlowReader implements BodySink {
  bytes = 0;
  ahead = 0;
  outcome: "whole" | Error | undefined;
  onReady: (() => void) | undefined;
  readonly hash: Hash = createHash("sha1");
  readonly #written: () => number;
  readonly #onOver: () => void;
  #sincePause = 0;

  constructor(written: () => number, onOver: () => void = () => undefined) {
    this.#written = written;
    this.#onOver = onOver;
  }

  write(bytes: Uint8Array): boolean {
    this.bytes += bytes.length;
    this.#sincePause += bytes.length;
    this.hash.update(bytes);
    if (this.#sincePause < megabyte) return true;
    this.#sincePause = 0;
    // Long enough for a source without back-pressure to run far ahead.
    let turns = 30;
    const wait = (): void => {
      this.ahead = Math.max(this.ahead, this.#written() - this.bytes);
      turns -= 1;
      if (turns > 0) setImmediate(wait);
      else this.onReady?.();
    };
    setImmediate(wait);
    return false;
  }

  end(): void {
    this.outcome = "whole";
    this.#onOver();
  }

  fail(error: Error): void {
    this.outcome = error;
  }
}

/** Many bytes, as fast as they are taken. */
class LargeBody implements Body {
  readonly length: number | undefined;
  written = 0;
  readonly hash: Hash = createHash("sha1");
  readonly #total: number;
  /** The last piece waits for it. */
  readonly #before: Promise<void> | undefined;
  #released = false;
  #cancelled = false;

  constructor(total: number, declared: boolean, before?: Promise<void>) {
    this.#total = total;
    this.#before = before;
    this.length = declared ? total : undefined;
  }

  flowInto(sink: BodySink): void {
    const go = (): void => {
      while (!this.#cancelled && this.written < this.#total) {
        const chunk = Buffer.alloc(Math.min(50_000, this.#total - this.written), this.written % 251);
        if (this.written + chunk.length === this.#total && this.#before !== undefined && !this.#released) {
          this.#before.then(() => {
            this.#released = true;
            go();
          }, go);
          return;
        }
        this.hash.update(chunk);
        this.written += chunk.length;
        if (!sink.write(chunk)) return;
      }
      if (!this.#cancelled) sink.end(undefined);
      this.#cancelled = true;
    };
    sink.onReady = go;
    go();
  }

  cancel(): void {
    this.#cancelled = true;
  }
}

for (const from of ["http1", "http2"] as const) {
  for (const to of ["http1", "http2"] as const) {
    const title = (text: string): string => `${from} to ${to}: ${text}`;

    test(title("method, authority, path and fields arrive as they were, in order and not joined"), async (t) => {
      const seen: IncomingRequest[] = [];
      const { connection } = way(from, to, (request) => {
        seen.push(request);
        respond(request, 207, textBody("hello"), { "set-cookie": ["a=1", "b=2"], "x-latin": "\xe9", "x-empty": "" });
      });
      const headers = { accept: ["a", "b"], "x-a": "1, 2", cookie: "a=1; b=2", "x-latin": "\xe9", "x-empty": "" };
      const answer = await connection.send(ask({ method: "PROPFIND", path: "/a%20b;c?d=e&f=\\", headers }), { signal });
      const { method, authority, path, headers: fields } = seen[0]?.head ?? ask().head;
      t.deepEqual([method, authority, path], ["PROPFIND", "api.shop", "/a%20b;c?d=e&f=\\"]);
      t.deepEqual([...fields.flat].sort(), [...HeaderFields.of(headers).flat].sort());
      t.deepEqual(fields.getAll("accept"), ["a", "b"]);
      t.deepEqual([answer.status, answer.headers.getAll("set-cookie"), answer.headers.get("x-latin")], [207, ["a=1", "b=2"], "\xe9"]);
      const body = collect(answer.body);
      await body.over;
      t.deepEqual([body.text, body.outcome], ["hello", "whole"]);
    });

    test(title("bodies arrive whole, with a length or without, or empty"), async (t) => {
      const { connection, forwarder } = way(from, to, (request) => respond(request, 200, request.body));
      for (const [body, text] of [
        [textBody("hello"), "hello"],
        [emptyBody, ""],
        [chunks(["he", "", "llo"]), "hello"],
        [chunks([]), ""],
      ] as const) {
        const answer = await connection.send(ask({ method: "POST", body }), { signal });
        const seen = collect(answer.body);
        await seen.over;
        t.deepEqual([seen.text, seen.outcome], [text, "whole"]);
      }
      await until(() => forwarder.deliveries.length === 4);
      t.deepEqual(
        forwarder.deliveries.map(({ bytesReceived, bytesSent, error }) => [bytesReceived, bytesSent, error]),
        [
          [5, 5, undefined],
          [0, 0, undefined],
          [5, 5, undefined],
          [0, 0, undefined],
        ],
      );
    });

    test(title("one connection upstream serves one request after another"), async (t) => {
      const { connection, forwarder } = way(from, to, (request) => respond(request, 200, textBody(request.head.path)));
      for (let number = 0; number < 20; number += 1) {
        const answer = await connection.send(ask({ path: `/${number}` }), { signal });
        const body = collect(answer.body);
        await body.over;
        t.is(body.text, `/${number}`);
        await until(() => connection.usable);
      }
      t.is(forwarder.dialled, 1);
    });

    test(title("answers without a body have none"), async (t) => {
      const { connection } = way(from, to, (request) => {
        const status = Number(request.head.path.slice(1));
        respond(request, status, emptyBody, request.head.method === "HEAD" ? { "content-length": "5" } : {});
      });
      for (const [method, status] of [
        ["HEAD", 200],
        ["GET", 204],
        ["GET", 304],
        ["GET", 200],
      ] as const) {
        const answer = await connection.send(ask({ method, path: `/${status}` }), { signal });
        const body = collect(answer.body);
        await body.over;
        t.deepEqual([answer.status, body.text, body.outcome], [status, "", "whole"]);
        if (method === "HEAD") t.is(answer.headers.get("content-length"), "5");
        await until(() => connection.usable);
      }
    });

    test(title("trailers arrive both ways"), async (t) => {
      let received: readonly string[] | undefined;
      const { connection } = way(from, to, async (request) => {
        const body = new ScriptedBody();
        const asked = collect(request.body);
        respond(request, 200, body, { trailer: "grpc-status" });
        await asked.over;
        received = asked.trailers;
        body.write("hello");
        body.end(HeaderFields.of({ "grpc-status": "0", "grpc-message": "fine" }));
      });
      const body = chunks(["hello"], HeaderFields.of({ "x-sum": "1" }));
      const answer = await connection.send(ask({ method: "POST", headers: { te: "trailers" }, body }), { signal });
      const seen = collect(answer.body);
      await seen.over;
      t.deepEqual([seen.text, seen.trailers], ["hello", ["grpc-status", "0", "grpc-message", "fine"]]);
      t.deepEqual(received, ["x-sum", "1"]);
    });

    test(title("informational answers are passed on before the answer"), async (t) => {
      const informed: [number, string | undefined][] = [];
      const { connection } = way(from, to, (request) => {
        request.inform(103, HeaderFields.of({ link: "</a>" }));
        request.inform(103, HeaderFields.of({ link: "</b>" }));
        setImmediate(() => respond(request, 200));
      });
      await connection.send(ask({ onInform: (status, headers) => informed.push([status, headers.get("link")]) }), { signal });
      t.deepEqual(informed, [
        [103, "</a>"],
        [103, "</b>"],
      ]);
    });

    test(title("both directions flow at once"), async (t) => {
      const { connection } = way(from, to, (request) => respond(request, 200, request.body));
      const body = new ScriptedBody();
      body.write("one");
      const answer = await connection.send(ask({ method: "POST", body }), { signal });
      const seen = collect(answer.body);
      await until(() => seen.text === "one");
      body.write("two");
      await until(() => seen.text === "onetwo");
      body.end();
      await seen.over;
      t.is(seen.outcome, "whole");
    });

    const megabytes = from === to ? 50 : 20;
    for (const declared of from === "http1" && to === "http1" ? [true, false] : [false]) {
      test.serial(
        title(`${megabytes} MB ${declared ? "of a known length" : "without a length"} go both ways whole, and a slow reader holds the sender`),
        async (t) => {
          const total = megabytes * megabyte;
          const uploaded = Promise.withResolvers<void>();
          // An answer that ends first would end the request as well.
          const down = new LargeBody(total, declared, uploaded.promise);
          const up = new LargeBody(total, declared);
          let upload: SlowReader | undefined;
          const { connection } = way(from, to, (request) => {
            upload = new SlowReader(() => up.written, uploaded.resolve);
            request.body.flowInto(upload);
            respond(request, 200, down);
          });
          const answer = await connection.send(ask({ method: "POST", body: up }), { signal });
          const download = new SlowReader(() => down.written);
          answer.body.flowInto(download);
          await until(() => download.outcome !== undefined && upload?.outcome !== undefined);
          t.deepEqual([download.outcome, upload?.outcome], ["whole", "whole"]);
          t.deepEqual([download.bytes, upload?.bytes], [total, total]);
          t.is(download.hash.digest("hex"), down.hash.digest("hex"));
          t.is(upload?.hash.digest("hex"), up.hash.digest("hex"));
          // Windows of two sessions and the buffers of four transports, not the body.
          t.true(download.ahead < 8 * megabyte, `the application was ${download.ahead} bytes ahead`);
          t.true((upload?.ahead ?? 0) < 8 * megabyte, `the client was ${upload?.ahead} bytes ahead`);
        },
      );
    }

    test(title("an answer before the end of the request is whole; the rest of the request is not wanted"), async (t) => {
      const { connection, forwarder } = way(from, to, (request) => setImmediate(() => respond(request, 413, textBody("too much"))));
      const body = new ScriptedBody();
      body.write("hello");
      const answer = await connection.send(ask({ method: "POST", body }), { signal });
      t.is(answer.status, 413);
      const seen = collect(answer.body);
      await seen.over;
      t.deepEqual([seen.text, seen.outcome], ["too much", "whole"]);
      await until(() => body.cancelled !== undefined && forwarder.deliveries.length === 1);
      t.is(forwarder.deliveries[0]?.error, undefined);
    });

    test(title("a client that gives up before the answer ends the request upstream"), async (t) => {
      let outcome: Delivery | undefined;
      const asked = Promise.withResolvers<void>();
      const { connection, forwarder } = way(from, to, (request) => {
        request.onDone = (delivery) => {
          outcome = delivery;
        };
        asked.resolve();
      });
      const giving = new AbortController();
      const sending = connection.send(ask(), { signal: giving.signal });
      await asked.promise;
      const reason = new Error("no longer");
      giving.abort(reason);
      t.is(await t.throwsAsync(sending), reason);
      await until(() => outcome !== undefined && forwarder.deliveries.length === 1);
      t.like(outcome?.error, { code: "WAYPOINT_CLIENT_GONE" });
      t.like(forwarder.deliveries[0]?.error, { code: "WAYPOINT_CLIENT_GONE" });
    });

    test(title("a client that gives up within the answer ends it upstream"), async (t) => {
      let outcome: Delivery | undefined;
      const down = new ScriptedBody();
      const { connection, forwarder } = way(from, to, (request) => {
        request.onDone = (delivery) => {
          outcome = delivery;
        };
        down.write("hello");
        respond(request, 200, down);
      });
      const answer = await connection.send(ask(), { signal });
      const seen = collect(answer.body);
      await until(() => seen.text === "hello");
      answer.body.cancel(new Error("enough"));
      await until(() => outcome !== undefined && forwarder.deliveries.length === 1);
      t.like(outcome?.error, { code: "WAYPOINT_CLIENT_GONE" });
      t.truthy(down.cancelled);
      t.is(seen.outcome, undefined);
    });

    test(title("a client that breaks off its request never lets it look complete upstream"), async (t) => {
      let upstream: ReturnType<typeof collect> | undefined;
      const { connection } = way(from, to, (request) => {
        upstream = collect(request.body);
      });
      const body = new ScriptedBody();
      body.write("hello");
      const sending = connection.send(ask({ method: "POST", body }), { signal });
      sending.catch(() => undefined);
      await until(() => upstream?.text === "hello");
      body.fail(new Error("the client broke"));
      await upstream?.over;
      t.true(upstream?.outcome instanceof Error);
      await t.throwsAsync(sending);
    });

    for (const declared of [9, undefined]) {
      test(title(`an answer ${declared ? "of a known length" : "without a length"} that breaks off upstream never looks complete`), async (t) => {
        const down = new ScriptedBody(declared);
        const { connection, forwarder } = way(from, to, (request) => respond(request, 200, down));
        const answer = await connection.send(ask(), { signal });
        const seen = collect(answer.body);
        down.write("hello");
        await until(() => seen.text === "hello");
        down.fail(new Error("the application broke"));
        await seen.over;
        t.true(seen.outcome instanceof Error);
        await until(() => forwarder.deliveries.length === 1);
        t.truthy(forwarder.deliveries[0]?.error);
      });
    }

    test(title("an application that ends the connection without an answer is a failure that tells what was sent"), async (t) => {
      const forwarder = forward({
        from,
        to,
        dial: () => {
          const transport = application(to, () => transport.destroy());
          return transport;
        },
      });
      const answer = await client(from, forwarder.transport).send(ask(), { signal });
      t.is(answer.status, 503);
      t.like(forwarder.failures[0], { code: "WAYPOINT_UPSTREAM_RESET", details: { sent: true } });
    });

    test(title("WebSocket is switched to, carries bytes both ways, and ends from either side"), async (t) => {
      for (const first of ["client", "application"] as const) {
        const down = new ScriptedBody();
        let received: ReturnType<typeof collect> | undefined;
        const { connection, forwarder } = way(from, to, (request) => {
          t.is(request.upgrade, "websocket");
          t.is(request.head.method, "GET");
          received = collect(request.body);
          respond(request, 101, down);
        });
        const up = new ScriptedBody();
        const answer: Answer = await connection.send(ask({ path: "/ws", upgrade: "websocket", body: up, headers: { "sec-websocket-version": "13" } }), {
          signal,
        });
        t.is(answer.status, 101);
        const seen = collect(answer.body);
        up.write("up");
        down.write("down");
        await until(() => received?.text === "up" && seen.text === "down");
        const [ending, ended, other, otherEnded] = first === "client" ? [up, received, down, seen] : [down, seen, up, received];
        ending.write("-last");
        ending.end();
        await ended?.over;
        t.is(ended?.outcome, "whole");
        other.write("-later");
        await until(() => otherEnded?.text.endsWith("-later") === true);
        other.end();
        await otherEnded?.over;
        t.is(otherEnded?.outcome, "whole");
        await until(() => forwarder.deliveries.length === 1);
        t.is(forwarder.deliveries[0]?.error, undefined);
      }
    });

    test(title("an upgrade that the application declines is an ordinary answer"), async (t) => {
      const { connection } = way(from, to, (request) => respond(request, 403, textBody("no")));
      const answer = await connection.send(ask({ path: "/ws", upgrade: "websocket", body: new ScriptedBody() }), { signal });
      const body = collect(answer.body);
      await body.over;
      t.deepEqual([answer.status, body.text], [403, "no"]);
    });
  }
}

function chunks(texts: readonly string[], trailers?: HeaderFields): Body {
  return {
    length: undefined,
    flowInto: (sink) => {
      for (const text of texts) sink.write(Buffer.from(text));
      sink.end(trailers);
    },
    cancel: () => undefined,
  };
}
