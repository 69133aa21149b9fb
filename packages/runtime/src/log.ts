/**
 * Structured logs in the two forms that ambient's tooling reads (ztunnel contract 9.2):
 * plain, tab-separated `<time> <level> <scope> <message> <k=v …>`, and JSON, one object a line.
 */
import { MeshError, messageOf } from "./error.ts";

export const logLevels = ["trace", "debug", "info", "warn", "error", "off"] as const;
export type LogLevel = (typeof logLevels)[number];

/** A value that plain logs print without quotes: addresses and other text of our own making. */
export class Bare {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toJSON(): string {
    return this.text;
  }
}

export type LogValue = string | number | boolean | bigint | Bare | Error | undefined | null | readonly LogValue[];
export type LogFields = Readonly<Record<string, LogValue>>;

export interface Logger {
  /** The same output under another scope; levels are chosen per scope. */
  scope(name: string): Logger;
  enabled(level: LogLevel): boolean;
  trace(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Which level each scope prints, changeable while the process runs (`info,access=debug`). */
export class LogFilter {
  readonly #initial: string;
  #fallback: LogLevel = "info";
  readonly #scopes = new Map<string, LogLevel>();

  constructor(expression = "info") {
    this.#initial = expression;
    this.apply(expression);
  }

  /** Applies a filter expression over what stands. Throws RUNTIME_BAD_LOG_FILTER and then changes nothing. */
  apply(expression: string): void {
    const parsed = expression
      .split(",")
      .filter((part) => part !== "")
      .map((part) => {
        const [scope, level] = part.includes("=") ? part.split("=", 2) : [undefined, part];
        const name = level?.trim().toLowerCase();
        const known = logLevels.find((candidate) => candidate === name);
        if (known === undefined) {
          throw new MeshError("RUNTIME_BAD_LOG_FILTER", `"${part}" is not a log filter; write a level (${logLevels.join(", ")}) or scope=level`);
        }
        return { scope: scope?.trim(), level: known };
      });
    for (const { scope, level } of parsed) {
      if (scope === undefined) this.#fallback = level;
      else this.#scopes.set(scope, level);
    }
  }

  /** Back to what it was made with. */
  reset(): void {
    this.replace(this.#initial);
  }

  /** Lets `expression` stand alone. Throws RUNTIME_BAD_LOG_FILTER; then the default stands. */
  replace(expression: string): void {
    this.#fallback = "info";
    this.#scopes.clear();
    this.apply(expression);
  }

  level(scope: string): LogLevel {
    return this.#scopes.get(scope) ?? this.#fallback;
  }

  toString(): string {
    return [this.#fallback, ...[...this.#scopes].map(([scope, level]) => `${scope}=${level}`)].join(",");
  }
}

export interface LoggerOptions {
  readonly format?: "plain" | "json";
  readonly filter?: LogFilter;
  /** Receives one whole line, newline included; stdout unless told. */
  readonly write?: (line: string) => void;
  readonly now?: () => Date;
}

export function createLogger(scope: string, options: LoggerOptions = {}): Logger {
  const { format = "plain", filter = new LogFilter(), write = (line: string) => void process.stdout.write(line), now = () => new Date() } = options;
  const print = format === "json" ? jsonLine : plainLine;
  const make = (name: string): Logger => {
    const enabled = (level: LogLevel): boolean => logLevels.indexOf(level) >= logLevels.indexOf(filter.level(name));
    const at =
      (level: LogLevel) =>
      (message: string, fields: LogFields = {}): void => {
        if (enabled(level)) write(print(now(), level, name, message, fields));
      };
    return { scope: make, enabled, trace: at("trace"), debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  };
  return make(scope);
}

/** A logger that says nothing. */
export const silentLogger: Logger = createLogger("silent", { filter: new LogFilter("off") });

function plainLine(time: Date, level: LogLevel, scope: string, message: string, fields: LogFields): string {
  const pairs = Object.entries(fields)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => `${key}=${plainValue(value)}`);
  const columns = [time.toISOString(), level, scope, oneLine(message)];
  if (pairs.length > 0) columns.push(pairs.join(" "));
  return `${columns.join("\t")}\n`;
}

function plainValue(value: LogValue): string {
  if (value instanceof Bare) return oneLine(value.text);
  if (value instanceof Error) return JSON.stringify(messageOf(value));
  if (typeof value === "bigint") return value.toString();
  return JSON.stringify(value) ?? "null";
}

function jsonLine(time: Date, level: LogLevel, scope: string, message: string, fields: LogFields): string {
  const entry: Record<string, unknown> = { level, time: time.toISOString(), scope, message };
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    entry[key] = value instanceof Error ? messageOf(value) : typeof value === "bigint" ? value.toString() : value;
  }
  return `${JSON.stringify(entry)}\n`;
}

/** Control characters escaped, so that no value can start a log line of its own. */
function oneLine(text: string): string {
  return JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"');
}
