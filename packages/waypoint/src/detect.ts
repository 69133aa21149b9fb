/** Tells HTTP from other bytes by what a client says first. Everything read is given back. */
import type { Duplex } from "node:stream";
import { type Clock, systemClock } from "@fairway/runtime";
import { clientGone, tokenKinds } from "./message-rules.ts";

export interface DetectOptions {
  /** A client that says nothing for so long waits for the server to speak first: not HTTP. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly clock?: Clock;
}

/** What a client of HTTP/2 says before anything else (RFC 9113 3.4). */
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** A method is this long at most, for the sake of telling; the longest that is registered has 16 characters. */
const longestMethod = 24;

/** What the first bytes are, or undefined while they may still become either. */
export function protocolOf(bytes: Uint8Array): "http1" | "http2" | "tcp" | undefined {
  if (bytes.length === 0) return undefined;
  const compared = Math.min(bytes.length, preface.length);
  if (preface.compare(bytes, 0, compared, 0, compared) === 0) {
    if (compared === preface.length) return "http2";
    // "PRI" may still be a method, but nobody's.
    return undefined;
  }
  let at = 0;
  // A method as applications use them: upper-case letters, perhaps with a hyphen in them.
  while (at < bytes.length && at <= longestMethod && (tokenKinds[bytes[at] ?? 0] === 2 || bytes[at] === 0x2d)) at += 1;
  if (at > longestMethod) return "tcp";
  if (at === bytes.length) return undefined;
  if (at < 2 || bytes[at] !== 0x20) return "tcp";
  return targetOf(
    Buffer.from(bytes.subarray(0, at)).toString("latin1"),
    Buffer.from(bytes.subarray(at + 1, at + 9))
      .toString("latin1")
      .toLowerCase(),
  );
}

function targetOf(method: string, start: string): "http1" | "tcp" | undefined {
  if (start === "") return undefined;
  // CONNECT names an authority, which may begin with nearly anything.
  if (method === "CONNECT" || start.startsWith("/") || start.startsWith("*")) return "http1";
  if (start.startsWith("http://") || start.startsWith("https://")) return "http1";
  return "https://".startsWith(start) || "http://".startsWith(start) ? undefined : "tcp";
}

/** Waits for the first bytes. Throws WAYPOINT_CLIENT_GONE or the signal's reason. The transport is left as it was found: nothing consumed, not flowing. */
export function detectProtocol(transport: Duplex, { timeoutMs, signal, clock = systemClock }: DetectOptions): Promise<"http1" | "http2" | "tcp"> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    // What was looked at is put back at once, so that it is there whatever happens next.
    let seen = 0;
    const stop = (settle: () => void): void => {
      timer[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      transport.off("readable", onReadable);
      transport.off("end", onEnd);
      transport.off("error", onGone);
      transport.off("close", onGone);
      // The stream learns a tick later that nobody waits for "readable" any more; only then does a listener for "data" make it flow.
      process.nextTick(settle);
    };
    const conclude = (protocol: "http1" | "http2" | "tcp"): void => stop(() => resolve(protocol));
    const onReadable = (): void => {
      if (transport.readableLength === seen && seen > 0) return;
      const bytes: unknown = transport.read();
      if (!Buffer.isBuffer(bytes)) return;
      seen = bytes.length;
      transport.unshift(bytes);
      const protocol = protocolOf(bytes);
      if (protocol !== undefined) conclude(protocol);
    };
    // Not a byte, and none to come.
    const onEnd = (): void => conclude("tcp");
    const onGone = (cause?: Error): void => stop(() => reject(clientGone(cause)));
    const onAbort = (): void => stop(() => reject(signal.reason));
    const timer = clock.schedule(timeoutMs, () => conclude("tcp"));
    signal.addEventListener("abort", onAbort, { once: true });
    transport.on("readable", onReadable);
    transport.once("end", onEnd);
    transport.once("error", onGone);
    transport.once("close", onGone);
    if (transport.destroyed) onGone();
    else if (transport.readableEnded) onEnd();
    else onReadable();
  });
}
