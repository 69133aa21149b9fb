/** The life of a process: config, log, metrics, readiness, drain, admin server, clock, errors. */
export { type AdminHandler, type AdminResponse, type AdminServer, metricsRoutes, readinessRoutes, serveAdmin } from "./admin.ts";
export { Backoff, type BackoffOptions } from "./backoff.ts";
export { CallableThread, type SpawnedThread, startThread } from "./callable-thread.ts";
export { type Clock, ManualClock, systemClock } from "./clock.ts";
export { type DeadlineOptions, withDeadline } from "./deadline.ts";
export { Drain, type DrainOutcome } from "./drain.ts";
export { parseDuration } from "./duration.ts";
export { booleanVariable, drainWithin, durationVariable, prefixedVariables, readEnvironment, type Variables, wholeNumberVariable, z } from "./environment.ts";
export { assertNever, errorCode, fromPlainError, MeshError, type MeshErrorOptions, messageOf, type PlainError, plainError } from "./error.ts";
export { LineSender } from "./line-sender.ts";
export {
  Bare,
  createLogger,
  type LogFields,
  LogFilter,
  type Logger,
  type LoggerOptions,
  type LogLevel,
  type LogValue,
  logLevels,
  silentLogger,
} from "./log.ts";
export { type MemoryReleaseOptions, releaseMemoryAtRest, type ThreadMemory } from "./memory-release.ts";
export {
  Counter,
  createRegistry,
  Gauge,
  Histogram,
  type MetricReading,
  type MetricRegistry,
  type MetricSource,
  mergedMetrics,
  readMetrics,
} from "./metrics.ts";
export { type ProfileRequest, Profiler } from "./profile.ts";
export { type Program, runProgram } from "./program.ts";
export { serveProxyAdmin } from "./proxy-admin.ts";
export { runProxyProgram } from "./proxy-program.ts";
export { Readiness } from "./readiness.ts";
export { type Release, releaseOf } from "./release.ts";
export { TaskGroup } from "./task-group.ts";
export { type CalledThread, serveCalls, type ThreadCall } from "./thread-calls.ts";
export { type Watch, Watched } from "./watch.ts";
