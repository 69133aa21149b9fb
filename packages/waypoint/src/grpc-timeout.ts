/** The deadline that a gRPC client sends with its call: `grpc-timeout`, up to eight digits and a unit. */

const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };
const mostDigits = 99_999_999;

/** Milliseconds; undefined when there is none, or it is malformed, which means none too. */
export function parseGrpcTimeout(text: string | undefined): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(text ?? "");
  return match === null ? undefined : Number(match[1]) * (unitMs[match[2] ?? ""] ?? 0);
}

export function formatGrpcTimeout(ms: number): string {
  const whole = Math.max(1, Math.floor(ms));
  return whole <= mostDigits ? `${whole}m` : `${Math.min(mostDigits, Math.floor(whole / 1_000))}S`;
}
