/**
 * The lean engine with others: node:http2 (nghttp2) at either end through the whole suite, nghttp2's own clients, and Go's net/http at either
 * end. What is not on the machine is skipped by name.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { duplexPair } from "node:stream";
import test, { type ExecutionContext } from "ava";
import { type Link, tcpLink, tlsLink } from "../compliance/link.ts";
import { forever, tunnelCompliance } from "../compliance/tunnel-compliance.ts";
import type { ConnectExchange, ServerTunnel, TunnelEngine } from "../engine.ts";
import { nodeHttp2Engine } from "../node-http2-engine.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { leanEngine } from "./index.ts";

const connections = new Map<string, () => Promise<Link>>([
  ["TCP", tcpLink],
  ["TLS", tlsLink],
]);
const mixtures: readonly TunnelEngine[] = [
  {
    name: "lean client and node:http2 server",
    connect: (transport, settings, options) => leanEngine.connect(transport, settings, options),
    serve: (transport, settings, onConnect) => nodeHttp2Engine.serve(transport, settings, onConnect),
  },
  {
    name: "node:http2 client and lean server",
    connect: (transport, settings, options) => nodeHttp2Engine.connect(transport, settings, options),
    serve: (transport, settings, onConnect) => leanEngine.serve(transport, settings, onConnect),
  },
];
for (const engine of mixtures) tunnelCompliance(test, { engine, connections });

function echo(exchange: ConnectExchange): void {
  const [app, near] = duplexPair();
  app.pipe(app);
  // Never rejects.
  void exchange.accept({ baggage: "service.name=echo" }).pipe(near, { signal: forever });
}

interface Listening extends AsyncDisposable {
  readonly port: number;
  readonly tunnels: readonly ServerTunnel[];
}

/** A lean server on a loopback port, without TLS. */
async function listen(onConnect: (exchange: ConnectExchange) => void): Promise<Listening> {
  const tunnels: ServerTunnel[] = [];
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => tunnels.push(leanEngine.serve(socket, defaultServerSettings, onConnect)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    tunnels,
    [Symbol.asyncDispose]: async () => {
      for (const tunnel of tunnels) tunnel.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** False when there is no such command; the test says so and is over. */
function available(t: ExecutionContext, command: string): boolean {
  if (spawnSync(command, ["--version"]).error === undefined) return true;
  t.log(`skipped: ${command} is not on this machine`);
  t.pass();
  return false;
}

/** Of one command, on a machine with much else to do. */
const commandTimeoutMs = 150_000;

/** All that a command writes until its end. */
async function run(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], timeout: commandTimeoutMs, killSignal: "SIGKILL" });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  await once(child, "close");
  return output;
}

test("nghttp settles SETTINGS and PING with a lean server, and is told 400 for its GET", async (t) => {
  if (!available(t, "nghttp")) return;
  await using server = await listen(echo);
  const output = await run("nghttp", ["-v", "-n", "--timeout=60", `http://127.0.0.1:${server.port}/`]);
  t.regex(output, /recv SETTINGS frame[\s\S]*SETTINGS_MAX_CONCURRENT_STREAMS\(0x03\):200/);
  t.regex(output, /recv SETTINGS frame <length=0, flags=0x01/);
  t.regex(output, /:status: 400/);
  t.notRegex(output, /PROTOCOL_ERROR|COMPRESSION_ERROR|FRAME_SIZE_ERROR/);
  t.is(await server.tunnels[0]?.closed, undefined);
});

test("h2load asks a lean server 20,000 times over ten tunnels, and every answer is whole", async (t) => {
  if (!available(t, "h2load")) return;
  t.timeout(commandTimeoutMs);
  await using server = await listen(echo);
  const output = await run("h2load", ["-n20000", "-c10", "-m100", "-H", "baggage: service.name=load", `http://127.0.0.1:${server.port}/`]);
  t.regex(output, /requests: 20000 total, 20000 started, 20000 done, 0 succeeded, 20000 failed, 0 errored, 0 timeout/);
  t.regex(output, /status codes: 0 2xx, 0 3xx, 20000 4xx, 0 5xx/);
  t.is(server.tunnels.length, 10);
});

/** An echo of CONNECTs, and a client that asks one: half a megabyte each way, half-closed by the client, then refused. */
const goProgram = `package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
)

func h2c() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Protocols: h2c(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host == "10.0.0.9:80" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("baggage", r.Header.Get("baggage"))
		control := http.NewResponseController(w)
		w.WriteHeader(http.StatusOK)
		control.Flush()
		buffer := make([]byte, 32*1024)
		for {
			count, err := r.Body.Read(buffer)
			if count > 0 {
				w.Write(buffer[:count])
				control.Flush()
			}
			if err != nil {
				return
			}
		}
	})}
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\\n')
		os.Exit(0)
	}()
	return server.Serve(listener)
}

func ask(client *http.Client, port string, body io.Reader) (int, string, []byte, error) {
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}, Host: "10.0.0.1:80", Header: http.Header{"Baggage": {"service.name=go"}}, Body: io.NopCloser(body), ContentLength: -1}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	bytes, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header.Get("baggage"), bytes, err
}

func dial(port string) error {
	client := &http.Client{Transport: &http.Transport{Protocols: h2c()}}
	for round := 0; round < 20; round++ {
		sent := bytes.Repeat([]byte{byte(round), 1, 2, 3}, 128*1024)
		status, baggage, got, err := ask(client, port, bytes.NewReader(sent))
		if err != nil || !bytes.Equal(sent, got) {
			return fmt.Errorf("round %d: status %d, %d bytes, %v", round, status, len(got), err)
		}
		fmt.Println(status, baggage, len(got))
	}
	return nil
}

func main() {
	err := error(nil)
	if len(os.Args) > 1 {
		err = dial(os.Args[1])
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
`;

interface GoPeer extends AsyncDisposable {
  readonly path: string;
}

/** Builds the program above; undefined, and the test skipped by name, when there is no Go here. */
async function buildGo(t: ExecutionContext): Promise<GoPeer | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "fairway-hbone-interop-"));
  const dispose = (): Promise<void> => rm(folder, { recursive: true, force: true });
  await writeFile(join(folder, "main.go"), goProgram);
  await writeFile(join(folder, "go.mod"), "module interop\n\ngo 1.24\n");
  const path = join(folder, "peer");
  // Nothing but the standard library, and no tool chain from elsewhere.
  const env = { ...process.env, GOFLAGS: "-mod=mod", GOPROXY: "off", GOTOOLCHAIN: "local", CGO_ENABLED: "0" };
  const child = spawn("go", ["build", "-o", path, "."], { cwd: folder, env, stdio: ["ignore", "ignore", "pipe"] });
  let output = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const built = await new Promise<boolean>((resolve) => {
    child.once("error", () => resolve(false));
    child.once("close", (code) => resolve(code === 0));
  });
  if (built) return { path, [Symbol.asyncDispose]: dispose };
  t.log(`skipped: no Go 1.24 that builds here ${output.slice(0, 200)}`);
  t.pass();
  await dispose();
  return undefined;
}

test.serial("Go's net/http and the lean engine understand each other, whichever is the server", async (t) => {
  t.timeout(2 * commandTimeoutMs);
  await using go = await buildGo(t);
  if (go === undefined) return;
  await using server = await listen(echo);
  const answers = await run(go.path, [String(server.port)]);
  t.is(answers, "200 service.name=echo 524288\n".repeat(20));

  const child = spawn(go.path, [], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [port] = await once(createInterface({ input: child.stdout }), "line");
    const socket = connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    await once(socket, "connect");
    const client = await leanEngine.connect(socket, defaultClientSettings, { signal: forever });
    for (let round = 0; round < 20; round++) {
      const { stream, baggage } = await client.open({ authority: "10.0.0.1:80", baggage: "service.name=lean" }, { signal: forever });
      t.is(baggage, "service.name=lean");
      const [app, near] = duplexPair();
      const outcome = stream.pipe(near, { signal: forever });
      const sent = Buffer.alloc(524_288, round + 1);
      app.end(sent);
      const chunks: Buffer[] = [];
      for await (const chunk of app.iterator({ destroyOnReturn: false })) chunks.push(chunk);
      t.true(Buffer.concat(chunks).equals(sent));
      t.deepEqual(await outcome, { sent: sent.length, received: sent.length, error: undefined });
    }
    await t.throwsAsync(client.open({ authority: "10.0.0.9:80" }, { signal: forever }), { code: "HBONE_REFUSED", message: /503/ });
    t.is(client.streams, 0);
    client.drain();
    t.is(await client.closed, undefined);
  } finally {
    child.stdin.end("\n");
    await once(child, "close");
  }
});
