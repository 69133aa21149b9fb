/** Issues tokens to whoever asks, and publishes the key that proves them: `GET /token?sub=alice`, `GET /jwks`. For trying things out, not for trusting anybody. */
import { createServer } from "node:http";
import { exportJWK, generateKeyPair, SignJWT } from "jose";

const issuer = process.env["ISSUER"] ?? "https://issuer.example";
const keyId = "shop";
const { publicKey, privateKey } = await generateKeyPair("ES256");
const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: keyId, alg: "ES256", use: "sig" }] });

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://issuer");
  const answer = (status: number, body: string): void => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(body);
  };
  if (pathname === "/jwks") answer(200, jwks);
  else if (pathname === "/token") {
    const token = new SignJWT({ groups: searchParams.getAll("group") })
      .setProtectedHeader({ alg: "ES256", kid: keyId })
      .setIssuer(issuer)
      .setSubject(searchParams.get("sub") ?? "nobody")
      .setIssuedAt()
      .setExpirationTime("5m")
      .sign(privateKey);
    token.then(
      (text) => answer(200, JSON.stringify({ token: text })),
      (error: unknown) => answer(500, JSON.stringify({ error: String(error) })),
    );
  } else answer(404, "{}");
});

server.listen(8080, "::");
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
