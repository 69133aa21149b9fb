/** What can be fuzzed. */
export interface FuzzEntry {
  readonly name: string;
  /** Right inputs, from which wrong ones are made. */
  readonly samples: readonly (string | Uint8Array)[];
  /** Takes any bytes. May throw what `isDeclared` knows, and nothing else. */
  readonly run: (bytes: Buffer) => unknown;
}

/** Errors with a name of their own, by which a caller knows that the input was at fault. */
const declared: ReadonlySet<string> = new Set(["InvalidValueError", "ProtocolDecodeError"]);

export function isDeclared(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (declared.has(error.name) || declared.has(error.constructor.name)) return true;
  // A MeshError's code is of the house; Node's begin with ERR_ or E.
  return (
    "code" in error &&
    typeof error.code === "string" &&
    /^(HBONE|PKI|XDS|ZTUNNEL|WAYPOINT|LINUX|LOCAL_CLUSTER|KUBE|RUNTIME|NODE_AGENT|CONTROLLER)_/.test(error.code)
  );
}

export function text(run: (text: string) => unknown): (bytes: Buffer) => unknown {
  return (bytes) => run(bytes.toString("utf8"));
}

export function latin1(run: (text: string) => unknown): (bytes: Buffer) => unknown {
  return (bytes) => run(bytes.toString("latin1"));
}
