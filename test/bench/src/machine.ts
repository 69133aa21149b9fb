/** The machine of a run in one line, without its name. */
import { availableParallelism, cpus, release, totalmem } from "node:os";

export function machine(): string {
  const model = cpus()[0]?.model.trim().replaceAll(/\s+/g, " ") ?? "unknown CPU";
  const gigabytes = Math.round(totalmem() / 2 ** 30);
  return `${model}, ${availableParallelism()} cores, ${gigabytes} GB, Linux ${release()}, Node ${process.versions.node}, OpenSSL ${process.versions.openssl}`;
}
