/**
 * For a kernel without netem: stands between the two hops, takes every connection that passes (redirected to it), and holds all bytes back for half of
 * the delay in each direction. TCP itself sees no delay, the protocols over it do; what it costs is paid by all arms.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { linuxPodNetwork } from "@fairway/linux";
import { serveParent } from "./child.ts";

export interface RelaySetup {
  readonly port: number;
  readonly delayMs: number;
}

/** Bytes under way in one direction of one connection: what a long wire holds. */
const mostUnderWay = 16 * 1024 * 1024;

function copyLater(from: Socket, to: Socket, delayMs: number): void {
  const waiting: { readonly due: number; readonly chunk: Buffer | undefined }[] = [];
  let [underWay, asleep] = [0, true];
  const release = (): void => {
    for (let head = waiting[0]; head !== undefined; head = waiting[0]) {
      const early = head.due - performance.now();
      if (early > 0) {
        setTimeout(release, early);
        return;
      }
      waiting.shift();
      if (head.chunk === undefined) to.end();
      else {
        underWay -= head.chunk.length;
        to.write(head.chunk);
      }
    }
    asleep = true;
    if (underWay + to.writableLength < mostUnderWay) from.resume();
  };
  const put = (chunk: Buffer | undefined): void => {
    waiting.push({ due: performance.now() + delayMs, chunk });
    underWay += chunk?.length ?? 0;
    if (underWay + to.writableLength >= mostUnderWay) from.pause();
    if (asleep) setTimeout(release, delayMs);
    asleep = false;
  };
  from.on("data", put).once("end", () => put(undefined));
  to.on("drain", () => from.resume());
  from.once("close", () => {
    if (!from.readableEnded) to.destroy();
  });
}

serveParent(async ({ port, delayMs }: RelaySetup): Promise<void> => {
  const network = linuxPodNetwork(undefined);
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const { ip, port: wanted } = network.originalDestination(near);
    const far = connect({ host: ip, port: wanted, allowHalfOpen: true, noDelay: true });
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
    copyLater(near, far, delayMs / 2);
    copyLater(far, near, delayMs / 2);
  });
  server.listen({ port, host: "0.0.0.0", backlog: 4096 });
  await once(server, "listening");
});
