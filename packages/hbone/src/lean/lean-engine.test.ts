/** The lean engine against the suites that every engine passes. */
import test from "ava";
import { hostileCompliance } from "../compliance/hostile-compliance.ts";
import { type Link, memoryLink, tcpLink, tlsLink } from "../compliance/link.ts";
import { tunnelCompliance } from "../compliance/tunnel-compliance.ts";
import { createLeanEngine, leanEngine } from "./index.ts";

tunnelCompliance(test, {
  engine: leanEngine,
  connections: new Map<string, () => Promise<Link>>([
    ["memory", memoryLink],
    ["TCP", tcpLink],
    ["TLS", tlsLink],
  ]),
});

hostileCompliance(test, { name: "lean", create: createLeanEngine });
