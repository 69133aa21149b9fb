/** Every response flag of ztunnel contract 9.1, and how each comes about, seen in the metrics of running pods. */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { hostPodNetwork, type PodNetwork } from "@fairway/linux";
import { parseSpiffeId } from "@fairway/model";
import { createMeshTls } from "@fairway/pki";
import { MeshError, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import type { ResponseFlag } from "./failure.ts";
import { application, client, eventually, loopbackAddresses, policy, readAll, TestMesh, type TestMeshOptions, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const signal = new AbortController().signal;

interface Scene {
  readonly mesh: TestMesh;
  readonly port: number;
  /** Connects from a to b. */
  readonly dial: () => Promise<Socket>;
}

async function pair(t: ExecutionContext, options: Partial<TestMeshOptions> = {}, { servesB = true, port = 0 } = {}): Promise<Scene> {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const wanted = port === 0 ? app.port : port;
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, ...options });
  if (servesB) await mesh.pod("b", at(2));
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: wanted }));
  return { mesh, port: wanted, dial: () => client(t, at(1), a.port("outbound") ?? 0) };
}

/** Something on b's port 15008 that is no ztunnel. */
async function impostor(t: ExecutionContext, take: (socket: Socket) => void): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    take(socket);
  });
  server.listen(15_008, at(2));
  await once(server, "listening");
  t.teardown(() => server.close());
  return server;
}

const fails = async (t: ExecutionContext, dial: Scene["dial"]): Promise<void> => {
  await t.throwsAsync(async () => readAll(await dial()));
};

const scenes: readonly (readonly [flag: ResponseFlag, how: string, reporter: "source" | "destination", run: (t: ExecutionContext) => Promise<TestMesh>])[] = [
  [
    "-",
    "a connection that ended well",
    "source",
    async (t) => {
      const { mesh, dial } = await pair(t);
      await readAll((await dial()).end("x"));
      return mesh;
    },
  ],
  [
    "DENY",
    "a policy that refuses",
    "destination",
    async (t) => {
      const { mesh, dial, port } = await pair(t);
      mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port] })] });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "DENY",
    "a policy that changed while the connection lived",
    "destination",
    async (t) => {
      const { mesh, dial, port } = await pair(t);
      const socket = await dial();
      socket.write("x");
      await once(socket, "data");
      const closed = once(socket, "close");
      socket.once("end", () => socket.end());
      mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port] })] });
      await closed;
      return mesh;
    },
  ],
  [
    "CONNECT",
    "an application that is not there, told by its ztunnel",
    "destination",
    async (t) => {
      const { mesh, dial } = await pair(t, {}, { port: 1 });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "CONNECT",
    "an application that is not there, told by the client's ztunnel",
    "source",
    async (t) => {
      const { mesh, dial } = await pair(t, {}, { port: 1 });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "CONNECT",
    "a ztunnel that is not there",
    "source",
    async (t) => {
      const { mesh, dial } = await pair(t, {}, { servesB: false });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "TLS_FAILURE",
    "a peer that speaks no TLS",
    "source",
    async (t) => {
      await impostor(t, (socket) => void socket.end("who are you?"));
      const { mesh, dial } = await pair(t, {}, { servesB: false });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "TLS_FAILURE",
    "a peer that proves to be somebody else",
    "source",
    async (t) => {
      const { mesh, dial } = await pair(t);
      mesh.mesh.apply({ workloads: [workload("b", at(2), { serviceAccount: "other" }), workload("b2", at(9), { name: "b", serviceAccount: "b" })] });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "H2_HANDSHAKE_FAILURE",
    "a peer that proves itself and then speaks no HTTP/2",
    "source",
    async (t) => {
      const { mesh, dial } = await pair(t, {}, { servesB: false });
      const certificate = await mesh.parts.certificates.fetch(parseSpiffeId("spiffe://cluster.local/ns/default/sa/b"), { signal, priority: "realtime" });
      await impostor(t, (socket) => {
        mesh.parts.tls.accept(socket, certificate, { signal }).then(
          ({ socket: proven }) => proven.end("HTTP/1.1 400 Bad Request\r\n\r\n"),
          () => {},
        );
      });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "NETWORK_POLICY",
    "a tunnel port that never answers",
    "source",
    async (t) => {
      const { mesh } = await pair(t, {}, { servesB: false });
      const host = hostPodNetwork({ originalDestination: () => ({ ip: at(2), port: 80 }) });
      const silent: PodNetwork = {
        ...host,
        dial: async () => {
          throw new MeshError("LINUX_DIAL_TIMEOUT", "no answer");
        },
      };
      const a = await mesh.podIn(silent, "a", { listenHost: at(4) });
      await fails(t, () => client(t, at(4), a.port("outbound") ?? 0));
      return mesh;
    },
  ],
  [
    "IDENTITY_ERROR",
    "a CA that signs nothing",
    "source",
    async (t) => {
      const ca: NonNullable<TestMeshOptions["ca"]> = (own) => ({
        ...own,
        sign: async () => {
          throw new MeshError("PKI_CA_UNAVAILABLE", "not today");
        },
      });
      const { mesh, dial } = await pair(t, { ca }, { servesB: false });
      await fails(t, dial);
      return mesh;
    },
  ],
  [
    "CERT_REVOKED",
    "a peer whose certificate was revoked",
    "source",
    async (t) => {
      const { mesh } = await pair(t);
      const parts = { ...mesh.parts, tls: createMeshTls({ clock: systemClock, isRevoked: () => true }) };
      Object.assign(mesh.parts, parts);
      const a = await mesh.pod("a", at(5), () => ({ ip: at(2), port: 80 }));
      await fails(t, () => client(t, at(5), a.port("outbound") ?? 0));
      return mesh;
    },
  ],
];

for (const [flag, how, reporter, run] of scenes) {
  test.serial(`${flag}: ${how}`, async (t) => {
    const mesh = await run(t);
    const series = flag === "-" ? "closed" : "failed";
    const wanted = new RegExp(`istio_tcp_connections_${series}_total\\{reporter="${reporter}",.*response_flags="${flag}"`);
    let seen = "";
    await eventually(t, () => {
      void mesh.registry.metrics().then((text) => {
        seen = text;
      });
      return wanted.test(seen);
    });
  });
}

test("the table names every flag", (t) => {
  const all: Readonly<Record<ResponseFlag, true>> = {
    "-": true,
    DENY: true,
    CONNECT: true,
    TLS_FAILURE: true,
    H2_HANDSHAKE_FAILURE: true,
    NETWORK_POLICY: true,
    IDENTITY_ERROR: true,
    CERT_REVOKED: true,
  };
  t.deepEqual([...new Set(scenes.map(([flag]) => flag))].toSorted(), Object.keys(all).toSorted());
});
