/** The node:http2 engine against the suites that every engine passes. */
import test from "ava";
import { hostileCompliance } from "./compliance/hostile-compliance.ts";
import { type Link, memoryLink, tcpLink, tlsLink } from "./compliance/link.ts";
import { tunnelCompliance } from "./compliance/tunnel-compliance.ts";
import { createNodeHttp2Engine, nodeHttp2Engine } from "./node-http2-engine.ts";

tunnelCompliance(test, {
  engine: nodeHttp2Engine,
  connections: new Map<string, () => Promise<Link>>([
    ["memory", memoryLink],
    ["TCP", tcpLink],
    ["TLS", tlsLink],
  ]),
});

hostileCompliance(test, { name: "node-http2", create: createNodeHttp2Engine });
