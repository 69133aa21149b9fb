/** PROXY_CONFIG and the mounted mesh configuration: YAML that fills in what no variable says (ztunnel contract 2.2). */
import { MeshError, z } from "@fairway/runtime";
import { parse } from "yaml";

/** The fields of a ProxyConfig that a ztunnel honours. */
export interface MeshDefaults {
  readonly discoveryAddress: string | undefined;
  readonly adminPort: number | undefined;
  readonly statsPort: number | undefined;
  /** Threads; 0 is all cores. */
  readonly concurrency: number | undefined;
  readonly metadata: readonly (readonly [string, string])[];
}

const port = z.number().int().min(1).max(65_535).optional();
const proxyConfig = z.object({
  discoveryAddress: z.string().optional(),
  proxyAdminPort: port,
  statsPort: port,
  concurrency: z.number().int().min(0).max(1_024).optional(),
  proxyMetadata: z.record(z.string(), z.string()).optional(),
});
const meshConfig = z.object({ defaultConfig: proxyConfig.optional() });
const metadataPrefix = "ISTIO_META_";

/** PROXY_CONFIG overrides the mesh file, field by field. Throws ZTUNNEL_BAD_PROXY_CONFIG. */
export function meshDefaults(proxyConfigYaml: string | undefined, meshFileYaml: string | undefined): MeshDefaults {
  const file = read(meshConfig, meshFileYaml, "the mesh configuration file").defaultConfig ?? {};
  const own = read(proxyConfig, proxyConfigYaml, "PROXY_CONFIG");
  const metadata = { ...file.proxyMetadata, ...own.proxyMetadata };
  return {
    discoveryAddress: own.discoveryAddress ?? file.discoveryAddress,
    adminPort: own.proxyAdminPort ?? file.proxyAdminPort,
    statsPort: own.statsPort ?? file.statsPort,
    concurrency: own.concurrency ?? file.concurrency,
    metadata: Object.entries(metadata).map(([name, value]) => [name.startsWith(metadataPrefix) ? name.slice(metadataPrefix.length) : name, value] as const),
  };
}

function read<Schema extends z.ZodType>(schema: Schema, yaml: string | undefined, what: string): z.output<Schema> {
  let document: unknown;
  try {
    document = yaml === undefined ? {} : (parse(yaml, { logLevel: "error" }) ?? {});
  } catch (cause) {
    throw new MeshError("ZTUNNEL_BAD_PROXY_CONFIG", `${what} is not YAML`, { cause });
  }
  const result = schema.safeParse(document);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new MeshError("ZTUNNEL_BAD_PROXY_CONFIG", `${what} is not valid: ${problems.join("; ")}`);
}
