/**
 * The keys that tokens are verified with: as the rule carries them, or fetched from the issuer. Fetched once for all who wait, kept, refreshed
 * in the background, asked for again when a token names an unknown key - but never more often than an issuer can be expected to bear.
 */
import { discoveryPath, type TokenRule } from "@fairway/model";
import { type Clock, type Logger, messageOf } from "@fairway/runtime";
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import { waypointError } from "./failure.ts";

/** Gets a document. Throws when there is none, when it is longer than `maxBytes`, or the signal's reason. */
export type FetchText = (uri: string, options: { signal: AbortSignal; maxBytes: number }) => Promise<string>;

export interface TokenKeysOptions {
  readonly fetchText: FetchText;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Age at which keys are refreshed, as the reference does it. */
const refreshAfterMs = 20 * 60_000;
/** Keys are used while their issuer is away, but not for ever: a key that was withdrawn must end. */
const usableForMs = 6 * 3_600_000;
/** Between two fetches of one document, whatever asks for them. */
const minFetchIntervalMs = 5_000;
const maxDocumentBytes = 1024 * 1024;
/** Documents kept; the one unused longest makes room. */
const maxDocuments = 100;

interface Document {
  keys: JWTVerifyGetKey | undefined;
  fetchedAt: number;
  triedAt: number;
  fetching: Promise<void> | undefined;
}

export class TokenKeys {
  readonly #options: TokenKeysOptions;
  /** Least recently used first. */
  readonly #documents = new Map<string, Document>();
  readonly #inline = new WeakMap<TokenRule, JWTVerifyGetKey>();

  constructor(options: TokenKeysOptions) {
    this.#options = options;
  }

  /** Throws WAYPOINT_KEYS_UNREACHABLE, or the signal's reason. */
  async keysFor(rule: TokenRule, { signal }: { signal: AbortSignal }): Promise<JWTVerifyGetKey> {
    if (rule.keys.kind === "inline") return this.#inlineKeys(rule, rule.keys.jwks);
    const { uri, timeoutMs } = rule.keys;
    const document = this.#document(uri);
    const now = this.#options.clock.now();
    const age = now - document.fetchedAt;
    if (document.keys !== undefined && age < usableForMs) {
      // Never rejects; whoever comes next has the result.
      if (age >= refreshAfterMs) void this.#fetch(uri, timeoutMs, document);
      return document.keys;
    }
    await waitFor(this.#fetch(uri, timeoutMs, document), signal);
    if (document.keys === undefined || this.#options.clock.now() - document.fetchedAt >= usableForMs)
      throw waypointError("WAYPOINT_KEYS_UNREACHABLE", `the keys of ${rule.issuer} could not be fetched from ${uri}`);
    return document.keys;
  }

  /** A token named a key that is not among those held: true when there are newer ones now. */
  async refreshed(rule: TokenRule, { signal }: { signal: AbortSignal }): Promise<boolean> {
    if (rule.keys.kind === "inline") return false;
    const document = this.#document(rule.keys.uri);
    const before = document.keys;
    await waitFor(this.#fetch(rule.keys.uri, rule.keys.timeoutMs, document), signal);
    return document.keys !== before;
  }

  #inlineKeys(rule: TokenRule, jwks: string): JWTVerifyGetKey {
    const known = this.#inline.get(rule);
    if (known !== undefined) return known;
    try {
      const keys = parseKeys(jwks);
      this.#inline.set(rule, keys);
      return keys;
    } catch (cause) {
      throw waypointError("WAYPOINT_KEYS_UNREACHABLE", `the keys in ${rule.origin} cannot be read`, { cause });
    }
  }

  #document(uri: string): Document {
    const known = this.#documents.get(uri) ?? { keys: undefined, fetchedAt: Number.NEGATIVE_INFINITY, triedAt: Number.NEGATIVE_INFINITY, fetching: undefined };
    this.#documents.delete(uri);
    this.#documents.set(uri, known);
    if (this.#documents.size > maxDocuments)
      for (const oldest of [...this.#documents.keys()].slice(0, this.#documents.size - maxDocuments)) this.#documents.delete(oldest);
    return known;
  }

  /** One fetch for all who ask. Resolves whether it brought something or not. */
  #fetch(uri: string, timeoutMs: number, document: Document): Promise<void> {
    const { clock, log } = this.#options;
    if (document.fetching !== undefined) return document.fetching;
    const now = clock.now();
    if (now - document.triedAt < minFetchIntervalMs) return Promise.resolve();
    document.triedAt = now;
    const fetching = async (): Promise<void> => {
      const controller = new AbortController();
      using _timer = clock.schedule(timeoutMs, () => controller.abort(waypointError("WAYPOINT_KEYS_UNREACHABLE", `no answer within ${timeoutMs} ms`)));
      try {
        document.keys = parseKeys(await this.#keyText(uri, controller.signal));
        document.fetchedAt = clock.now();
      } catch (thrown) {
        log.warn("token keys could not be fetched", { uri, error: messageOf(thrown) });
      } finally {
        document.fetching = undefined;
      }
    };
    document.fetching = fetching();
    return document.fetching;
  }

  /** The keys themselves, or what the issuer's discovery document says is their address. */
  async #keyText(uri: string, signal: AbortSignal): Promise<string> {
    const { fetchText } = this.#options;
    const text = await fetchText(uri, { signal, maxBytes: maxDocumentBytes });
    if (!uri.endsWith(discoveryPath)) return text;
    const { jwks_uri: keysUri } = JSON.parse(text) as { jwks_uri?: unknown };
    if (typeof keysUri !== "string") throw waypointError("WAYPOINT_KEYS_UNREACHABLE", `${uri} does not say where the keys are (jwks_uri)`);
    return fetchText(keysUri, { signal, maxBytes: maxDocumentBytes });
  }
}

/** From this process itself: issuers are outside the mesh, or in it by plain HTTP. A redirect is not followed: it could lead anywhere. */
export const fetchDocument: FetchText = async (uri, { signal, maxBytes }) => {
  if (!/^https?:\/\//.test(uri)) throw waypointError("WAYPOINT_KEYS_UNREACHABLE", "only http and https are fetched");
  const response = await fetch(uri, { signal, redirect: "error", headers: { accept: "application/json" } });
  if (!response.ok) throw waypointError("WAYPOINT_KEYS_UNREACHABLE", `the answer was ${response.status}`);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > maxBytes) throw waypointError("WAYPOINT_KEYS_UNREACHABLE", `the answer is longer than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
};

function parseKeys(text: string): JWTVerifyGetKey {
  return createLocalJWKSet(JSON.parse(text) as JSONWebKeySet);
}

function waitFor(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
