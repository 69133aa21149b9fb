/**
 * Hands pods over to the node's ztunnels (ztunnel contract 4.4 and 10). Adds go to the ztunnel that connected last, deletes to all:
 * during an upgrade the old one drains what it has, the new one takes what comes.
 */
import { type NetworkNamespace, openNamespace, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { type ZdsRequest, type ZdsWorkload, zdsMaxMessageBytes } from "@fairway/protocol";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup } from "@fairway/runtime";
import { ZdsConnection } from "./zds-connection.ts";

/** At most five accepts a second. */
const acceptIntervalMs = 200;
/** One that serves, one that drains, one that starts; more are a fault. */
const connectionLimit = 4;

export interface SnapshotPod {
  readonly uid: string;
  readonly workload: ZdsWorkload;
  /** Undefined when the pod is known and its namespace was not found: ztunnel keeps what it has. */
  readonly namespace: NetworkNamespace | undefined;
}

export interface ZdsServerOptions {
  readonly path: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** Every pod that a ztunnel must serve, at this moment. */
  readonly snapshot: () => Iterable<SnapshotPod>;
  /** After a ztunnel received its snapshot and said yes. */
  readonly onReady?: () => void;
}

export class ZdsServer implements AsyncDisposable {
  readonly #options: ZdsServerOptions;
  readonly #tasks: TaskGroup;
  /** Oldest first. */
  readonly #connections: ZdsConnection[] = [];
  #server: SeqpacketServer | undefined;
  #nextId = 1;
  #greeting = 0;

  private constructor(options: ZdsServerOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup(options.log);
  }

  /** Throws LINUX_LISTEN_FAILED or LINUX_SOCKET_IN_USE. */
  static async listen(options: ZdsServerOptions): Promise<ZdsServer> {
    const { path, clock, log } = options;
    const zds = new ZdsServer(options);
    zds.#server = await SeqpacketServer.listen(
      path,
      (connection) => {
        if (zds.#connections.length + zds.#greeting >= connectionLimit) {
          log.warn("too many ztunnels are connected; refused one more", { limit: connectionLimit });
          connection.close();
          return;
        }
        const id = zds.#nextId++;
        zds.#tasks.run(`ztunnel connection ${id}`, () => zds.#greet(id, connection));
      },
      { acceptIntervalMs, clock, messageBytes: zdsMaxMessageBytes },
    );
    return zds;
  }

  get connected(): number {
    return this.#connections.length;
  }

  /** Hands a pod to the newest ztunnel and waits for its yes. Throws NODE_AGENT_ZTUNNEL_ABSENT, or what ZdsConnection.request throws. */
  async add(uid: string, workload: ZdsWorkload, namespace: NetworkNamespace): Promise<void> {
    const newest = this.#connections.at(-1);
    if (newest === undefined) throw new MeshError("NODE_AGENT_ZTUNNEL_ABSENT", "no ztunnel is connected on this node; is its pod running?");
    await newest.request({ kind: "add", uid, workload }, namespace);
  }

  /** Tells every ztunnel that a pod is gone; one that fails to hear it will learn it from its next snapshot. */
  async remove(uid: string): Promise<void> {
    await Promise.all(
      [...this.#connections].map((connection) =>
        connection.request({ kind: "del", uid }).catch((thrown: unknown) => {
          this.#options.log.warn("a ztunnel did not confirm that a pod is gone", {
            uid,
            connection: connection.id,
            error: MeshError.from(thrown, "NODE_AGENT_ZDS_CLOSED"),
          });
        }),
      ),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server?.close();
    for (const connection of [...this.#connections]) connection[Symbol.dispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }

  async #greet(id: number, connection: SeqpacketConnection): Promise<void> {
    const { clock, log } = this.#options;
    this.#greeting += 1;
    try {
      this.#serve(await ZdsConnection.open(id, connection, clock));
    } catch (thrown) {
      log.warn("a ztunnel did not introduce itself", { connection: id, error: MeshError.from(thrown, "NODE_AGENT_ZDS_PROTOCOL") });
    } finally {
      this.#greeting -= 1;
    }
  }

  #serve(connection: ZdsConnection): void {
    const { log } = this.#options;
    log.info("ztunnel connected", { connection: connection.id });
    // In one turn: an add or delete from now on waits behind the snapshot on this connection, and nothing falls between the two.
    this.#connections.push(connection);
    const sent = this.#sendSnapshot(connection);
    this.#tasks.run(`snapshot for ztunnel ${connection.id}`, async () => {
      try {
        const pods = await sent;
        log.info("ztunnel has its snapshot", { connection: connection.id, pods });
        this.#options.onReady?.();
      } catch (thrown) {
        log.warn("a ztunnel did not take its snapshot", { connection: connection.id, error: MeshError.from(thrown, "NODE_AGENT_ZDS_CLOSED") });
        connection[Symbol.dispose]();
      }
    });
    this.#tasks.run(`end of ztunnel ${connection.id}`, async () => {
      const failure = await connection.closed;
      this.#connections.splice(this.#connections.indexOf(connection), 1);
      log.info("ztunnel disconnected", { connection: connection.id, ...(failure === undefined ? {} : { reason: failure.message }) });
    });
  }

  /** Asks everything in the turn it is called in. */
  async #sendSnapshot(connection: ZdsConnection): Promise<number> {
    const outcomes: Promise<void>[] = [];
    const ask = (request: ZdsRequest, own?: NetworkNamespace): void => {
      const answer = connection.request(request, own).finally(() => own?.[Symbol.dispose]());
      outcomes.push(answer.catch((thrown: unknown) => this.#onSnapshotAnswer(connection, thrown)));
    };
    for (const { uid, workload, namespace } of this.#options.snapshot()) {
      // A descriptor of its own: by the time of its turn the pod may be gone and the number belong to something else.
      if (namespace === undefined) ask({ kind: "keep", uid });
      else ask({ kind: "add", uid, workload }, openNamespace(`/proc/self/fd/${namespace.fd}`));
    }
    await connection.request({ kind: "snapshot-sent" });
    await Promise.all(outcomes);
    return outcomes.length;
  }

  /** A pod that ztunnel cannot start now, it tries again by itself (contract 4.4); a lost connection ends the snapshot anyway. */
  #onSnapshotAnswer(connection: ZdsConnection, thrown: unknown): void {
    if (errorCode(thrown) !== "NODE_AGENT_ZDS_REFUSED") return;
    this.#options.log.warn("ztunnel could not take a pod of the snapshot", {
      connection: connection.id,
      error: MeshError.from(thrown, "NODE_AGENT_ZDS_REFUSED"),
    });
  }
}
