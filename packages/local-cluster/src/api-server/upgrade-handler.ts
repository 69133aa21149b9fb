/** WebSocket upgrades: `pods/exec`, `pods/attach` and `pods/portforward`. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { type Logger, TaskGroup } from "@fairway/runtime";
import { WebSocketServer } from "ws";
import { ApiError } from "./api-error.ts";
import { execProtocols, runExec } from "./exec-session.ts";
import type { KubeletGateway } from "./kubelet-gateway.ts";
import { forwardProtocols, runForward } from "./port-forward-session.ts";
import type { ResourceRequest } from "./request-info.ts";
import type { Storage } from "./storage.ts";

export interface UpgradeHandlerOptions {
  readonly storage: Storage;
  readonly gateway: KubeletGateway;
  readonly log: Logger;
  readonly maxSessions: number;
  readonly signal: AbortSignal;
}

/** The largest single WebSocket message; clients send 32 KiB. */
const maxMessageBytes = 4 * 1024 * 1024;

export class UpgradeHandler implements AsyncDisposable {
  readonly #options: UpgradeHandlerOptions;
  readonly #tasks: TaskGroup;
  readonly #server: WebSocketServer;
  readonly #chosen = new WeakMap<IncomingMessage, string>();
  #sessions = 0;

  constructor(options: UpgradeHandlerOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup(options.log);
    this.#server = new WebSocketServer({ noServer: true, maxPayload: maxMessageBytes });
    this.#server.on("headers", (headers, request) => {
      const protocol = this.#chosen.get(request);
      if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#server.clients) client.terminate();
    await this.#tasks[Symbol.asyncDispose]();
  }

  /** Answers an upgrade; throws an ApiError while plain HTTP can still be answered. */
  async handle(request: IncomingMessage, socket: Socket, head: Buffer, info: ResourceRequest): Promise<void> {
    const { storage, gateway, maxSessions, log } = this.#options;
    if (info.plural !== "pods" || !["exec", "attach", "portforward"].includes(info.subresource)) throw ApiError.badRequest("this path does not upgrade");
    const pod = storage.get("pods", info.namespace, info.name);
    if (pod === undefined) throw ApiError.notFound({ group: "", plural: "pods" }, info.name);
    if (info.subresource === "attach") throw ApiError.badRequest("attach is not served here; use exec or logs");
    if (request.headers.upgrade?.toLowerCase() !== "websocket") throw ApiError.badRequest("unable to upgrade: only WebSocket is served, not SPDY");
    if (this.#sessions >= maxSessions) throw ApiError.tooManyRequests("too many exec and port-forward sessions are open");
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((text) => text.trim());
    const served = info.subresource === "exec" ? execProtocols : forwardProtocols;
    // The client lists its protocols in the order it prefers them.
    const protocol = offered.find((text) => served.includes(text));
    if (protocol === undefined) throw ApiError.badRequest(`none of the offered subprotocols is served; served are ${served.join(", ")}`);
    // kubectl's tunnel protocol has a "/", which RFC 6455 does not allow and ws refuses: so the choice is made here.
    delete request.headers["sec-websocket-protocol"];
    this.#chosen.set(request, protocol);
    const run = info.subresource === "exec" ? runExec : runForward;
    this.#server.handleUpgrade(request, socket, head, (client) => {
      client.on("error", (error) => log.debug("WebSocket failed", { error }));
      this.#sessions += 1;
      this.#tasks.run(`${info.subresource} in ${info.namespace}/${info.name}`, async (signal) => {
        try {
          await run({ client, protocol, info, pod, gateway, signal });
        } finally {
          this.#sessions -= 1;
        }
      });
    });
  }
}
