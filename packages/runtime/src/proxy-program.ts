/** What both proxies do with their command line, and with their environment before anything else runs. */
import type { Variables } from "./environment.ts";
import { createLogger, LogFilter, type Logger } from "./log.ts";
import { type Program, runProgram } from "./program.ts";

interface LoggingConfig {
  readonly logFilter: string;
  readonly logFormat: "plain" | "json";
}

export interface ProxyProgram<Config extends LoggingConfig> {
  /** Its executable is `fairway-<name>`, and its log lines are of this scope. */
  readonly name: string;
  /** What `proxy` does, for the help. */
  readonly purpose: string;
  readonly version: string;
  /** First of all, when this process is to carry traffic. */
  readonly prepare: () => void;
  /** Throws when the environment is wrong. */
  readonly readConfig: (variables: Variables) => Config;
  /** Runs until `stop`, then drains. */
  readonly run: (given: { readonly config: Config; readonly log: Logger; readonly logFilter: LogFilter } & Program) => Promise<void>;
}

/** `proxy`, which is the default, ends the process when it is over; `version` and `help` say so, anything else shows the help and fails. */
export async function runProxyProgram<Config extends LoggingConfig>(
  program: ProxyProgram<Config>,
  { argv, env }: { readonly argv: readonly string[]; readonly env: Variables },
): Promise<void> {
  switch (argv[2] ?? "proxy") {
    case "proxy":
      program.prepare();
      await runProxy(program, env);
      break;
    case "version":
      process.stdout.write(`${program.version}\n`);
      break;
    case "help":
    case "--help":
      process.stdout.write(usage(program));
      break;
    default:
      process.stderr.write(usage(program));
      process.exitCode = 2;
  }
}

function runProxy<Config extends LoggingConfig>({ name, readConfig, run }: ProxyProgram<Config>, env: Variables): Promise<never> {
  return runProgram(createLogger(name, { format: earlyLogFormat(env) }), async ({ stop }) => {
    const config = readConfig(env);
    const logFilter = new LogFilter(config.logFilter);
    const log = createLogger(name, { format: config.logFormat, filter: logFilter });
    await run({ config, log, logFilter, stop });
  });
}

/** How to log before, and whether or not, the rest of the environment can be read. */
function earlyLogFormat(variables: Variables): "plain" | "json" {
  return variables["LOG_FORMAT"] === "json" ? "json" : "plain";
}

function usage({ name, purpose }: { readonly name: string; readonly purpose: string }): string {
  return `Usage: fairway-${name} [command]

  proxy    ${purpose} (default); configured by environment variables
  version  print the version
  help     print this text
`;
}
