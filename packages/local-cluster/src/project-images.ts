/** Which command each image of the project stands for on the embedded cluster: our own images are our own programs. */
import { accessSync, constants } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ImageCatalog } from "./images.ts";

const checkout = fileURLToPath(new URL("../../..", import.meta.url));

function nodeProgram(path: string): readonly string[] {
  return [process.execPath, `${checkout}${path}`];
}

/** How a visitor's pod is asked to do something (`examples/shop/src/visitor.ts`). */
export const visitorCommand: readonly string[] = nodeProgram("examples/shop/dist/visitor.js");

/** True when `command` is on this machine. */
export function installed(command: string): boolean {
  return (process.env["PATH"] ?? "").split(":").some((folder) => {
    try {
      accessSync(`${folder}/${command}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The images of the chart and of the example shop. Redis is the machine's own where it is installed, otherwise the shop's small store. */
export function projectImages(): ImageCatalog {
  return {
    "fairway/controller": { command: nodeProgram("packages/controller/dist/main.js") },
    "fairway/node-agent": { command: nodeProgram("packages/node-agent/dist/main.js") },
    "fairway/waypoint": { command: nodeProgram("packages/waypoint/dist/main.js") },
    "fairway/ztunnel": { command: nodeProgram("packages/ztunnel/dist/main.js") },
    "fairway/shop-web": { command: nodeProgram("examples/shop/dist/web.js") },
    "fairway/shop-api": { command: nodeProgram("examples/shop/dist/api.js") },
    "fairway/shop-orders": { command: nodeProgram("examples/shop/dist/orders.js") },
    "fairway/shop-issuer": { command: nodeProgram("examples/shop/dist/issuer.js") },
    "fairway/shop-visitor": { command: visitorCommand },
    redis: installed("redis-server") ? { command: ["redis-server"] } : { command: nodeProgram("examples/shop/dist/store.js"), ignoreContainerCommand: true },
  };
}

/** A file of the checkout, by its path from the root. */
export function checkoutFile(path: string): string {
  return `${checkout}${path}`;
}
