import { ipFamily, parseIp } from "@fairway/model";
import test from "ava";
import { captureProbeDestinations, isCaptureProbe } from "./capture-probe.ts";

test("there is one destination for each family, written as the model writes it, so that both sides compare the same text", (t) => {
  t.deepEqual(
    captureProbeDestinations.map(({ ip }) => ipFamily(parseIp(ip))),
    ["ipv4", "ipv6"],
  );
  for (const { ip } of captureProbeDestinations) t.true(parseIp(ip) === ip, ip);
});

test("only the very address and port are the node agent's question", (t) => {
  for (const { ip, port } of captureProbeDestinations) {
    t.true(isCaptureProbe({ ip: parseIp(ip), port }));
    t.false(isCaptureProbe({ ip, port: port + 1 }));
  }
  t.false(isCaptureProbe({ ip: "192.0.2.2", port: 15_001 }));
});
