import test from "ava";
import { listen, podNetworkCompliance } from "./pod-network.compliance.ts";
import { hostPodNetwork } from "./pod-network-host.ts";

podNetworkCompliance(test, { name: "host", needsPrivileges: false, open: () => hostPodNetwork() });

test("host: a foreign source address is left out and said so", async (t) => {
  await using network = hostPodNetwork();
  const { listener } = await listen(network, {});
  const signal = new AbortController().signal;
  const { socket, sourceKept } = await network.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal, source: "192.0.2.1" });
  t.false(sourceKept);
  socket.destroy();
});

test("host: a given original destination stands in for a redirect", async (t) => {
  await using network = hostPodNetwork({ originalDestination: () => ({ ip: "10.0.0.9", port: 80 }) });
  const { listener, accepted } = await listen(network, {});
  const { socket } = await network.dial({ host: "127.0.0.1", port: listener.port, mark: 0, timeoutMs: 5_000, signal: new AbortController().signal });
  t.deepEqual(network.originalDestination(await accepted), { ip: "10.0.0.9", port: 80 });
  socket.destroy();
});
