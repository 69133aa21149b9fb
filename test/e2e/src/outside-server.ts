/**
 * What a waypoint asks outside of the mesh: an issuer of tokens and a collector of spans.
 *   POST /token         a token of the claims in the body; ?alg=none, ?alg=HS256 (keyed with the public key) for what must not be taken
 *   GET  /keys          its keys; 500 after /keys/fail, until /keys/mend; /keys/change makes new ones in their place
 *   POST /v1/traces     takes spans (OTLP, JSON); GET /spans gives all of them
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";

const mostSpans = 1_000;

interface Keys {
  readonly id: string;
  readonly pair: Awaited<ReturnType<typeof generateKeyPair>>;
}

async function makeKeys(id: string): Promise<Keys> {
  return { id, pair: await generateKeyPair("ES256", { extractable: true }) };
}

async function tokenOf({ id, pair }: Keys, claims: JWTPayload, alg: string): Promise<string> {
  if (alg === "none") return new UnsecuredJWT(claims).encode();
  const key = alg === "HS256" ? new TextEncoder().encode(await exportSPKI(pair.publicKey)) : pair.privateKey;
  return new SignJWT(claims).setProtectedHeader({ alg, kid: id }).sign(key);
}

/** Serves until the process ends; resolves when it listens. */
export async function serveOutside(port: number): Promise<void> {
  let keys = makeKeys("key-0");
  let changes = 0;
  let fails = false;
  const spans: unknown[] = [];

  async function answer(path: string, query: URLSearchParams, body: string): Promise<object | string> {
    switch (path) {
      case "/token":
        return tokenOf(await keys, JSON.parse(body) as JWTPayload, query.get("alg") ?? "ES256");
      case "/keys": {
        if (fails) throw new Error("told to fail");
        const { id, pair } = await keys;
        return { keys: [{ ...(await exportJWK(pair.publicKey)), kid: id, alg: "ES256", use: "sig" }] };
      }
      case "/keys/change":
        keys = makeKeys(`key-${++changes}`);
        return {};
      case "/keys/fail":
      case "/keys/mend":
        fails = path.endsWith("fail");
        return {};
      case "/v1/traces":
        if (spans.length < mostSpans) spans.push(JSON.parse(body));
        return {};
      default:
        return spans;
    }
  }

  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://outside");
    let body = "";
    request.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on("end", () => {
      answer(pathname, searchParams, body).then(
        (text) => response.end(typeof text === "string" ? text : JSON.stringify(text)),
        (error: unknown) => response.writeHead(500).end(String(error)),
      );
    });
  });
  await once(server.listen(port, "::"), "listening");
}
