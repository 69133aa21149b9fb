/** What the cluster's DNS answers, from services and their endpoints (the Kubernetes DNS specification 1.1.0). Pure. */
import { familyOf } from "../network/address-plan.ts";
import type { Endpoint, EndpointSlice, Service } from "../resources.ts";

export type DnsRecord =
  | { readonly type: "A" | "AAAA"; readonly name: string; readonly data: string }
  | { readonly type: "CNAME"; readonly name: string; readonly data: string }
  | {
      readonly type: "SRV";
      readonly name: string;
      readonly data: { readonly priority: number; readonly weight: number; readonly port: number; readonly target: string };
    };

export type DnsAnswer =
  /** `additional` spares the client a second question. */
  | { readonly kind: "found"; readonly answers: readonly DnsRecord[]; readonly additional: readonly DnsRecord[] }
  /** The name exists, with records of another type. */
  | { readonly kind: "no-data" }
  | { readonly kind: "no-name" }
  /** Not a name of this cluster. */
  | { readonly kind: "foreign" };

export interface DnsSources {
  readonly domain: string;
  readonly service: (namespace: string, name: string) => Service | undefined;
  readonly slices: (namespace: string, service: string) => readonly EndpointSlice[];
  readonly hasNamespace: (namespace: string) => boolean;
}

/** Answers one question. Names compare without regard to case. */
export function answerQuestion(question: { readonly name: string; readonly type: string }, sources: DnsSources): DnsAnswer {
  const name = question.name.toLowerCase().replace(/\.$/, "");
  const { domain } = sources;
  if (name === domain) return { kind: "no-data" };
  if (!name.endsWith(`.${domain}`)) return { kind: "foreign" };
  const labels = name.slice(0, -domain.length - 1).split(".");
  const area = labels.at(-1);
  if (area === "pod") return podAnswer(name, labels, question.type, sources);
  if (area !== "svc") return { kind: "no-name" };
  if (labels.length === 1) return { kind: "no-data" };
  const namespace = labels.at(-2) ?? "";
  if (labels.length === 2) return sources.hasNamespace(namespace) ? { kind: "no-data" } : { kind: "no-name" };
  const service = sources.service(namespace, labels.at(-3) ?? "");
  if (service === undefined) return { kind: "no-name" };
  return serviceAnswer({ name, type: question.type, prefix: labels.slice(0, -3), service, slices: sources.slices(namespace, service.metadata.name), domain });
}

interface ServiceQuestion {
  readonly name: string;
  readonly type: string;
  /** What stands before the service's name. */
  readonly prefix: readonly string[];
  readonly service: Service;
  readonly slices: readonly EndpointSlice[];
  readonly domain: string;
}

function serviceAnswer(question: ServiceQuestion): DnsAnswer {
  const { name, type, prefix, service, slices, domain } = question;
  const own = `${service.metadata.name}.${service.metadata.namespace}.svc.${domain}`;
  if (service.spec?.type === "ExternalName") {
    if (prefix.length > 0) return { kind: "no-name" };
    return { kind: "found", answers: [{ type: "CNAME", name, data: service.spec.externalName ?? "" }], additional: [] };
  }
  const headless = service.spec?.clusterIP === "None";
  if (prefix.length === 0) {
    const ips = headless
      ? readyEndpoints(slices).flatMap(({ addresses }) => addresses)
      : (service.spec?.clusterIPs ?? [service.spec?.clusterIP ?? ""]).filter((ip) => ip !== "");
    // A headless service without endpoints has no addresses: to a resolver that is a name that is not there (specification 2.4.1).
    if (headless && ips.length === 0) return { kind: "no-name" };
    return addressAnswer(name, type, ips);
  }
  if (prefix.length === 2 && prefix[0]?.startsWith("_") === true && prefix[1]?.startsWith("_") === true) {
    return portAnswer(question, own, headless, prefix[0].slice(1), prefix[1].slice(1));
  }
  const [host] = prefix;
  if (prefix.length !== 1 || host === undefined || !headless) return { kind: "no-name" };
  const ips = readyEndpoints(slices).flatMap((endpoint) => endpoint.addresses.filter((ip) => hostOf(endpoint, ip) === host));
  return ips.length === 0 ? { kind: "no-name" } : addressAnswer(name, type, ips);
}

function portAnswer({ name, type, service, slices }: ServiceQuestion, own: string, headless: boolean, portName: string, protocol: string): DnsAnswer {
  const records: DnsRecord[] = [];
  const additional: DnsRecord[] = [];
  const matches = (port: { name?: string; protocol?: string }): boolean => port.name === portName && (port.protocol ?? "TCP").toLowerCase() === protocol;
  if (headless) {
    for (const slice of slices) {
      const port = slice.ports?.find(matches)?.port;
      if (port === undefined) continue;
      for (const endpoint of readyEndpoints([slice])) {
        for (const ip of endpoint.addresses) {
          const target = `${hostOf(endpoint, ip)}.${own}`;
          records.push({ type: "SRV", name, data: { priority: 0, weight: 100, port, target } });
          additional.push(addressRecord(target, ip));
        }
      }
    }
  } else {
    const port = service.spec?.ports?.find(matches)?.port;
    if (port !== undefined) records.push({ type: "SRV", name, data: { priority: 0, weight: 100, port, target: own } });
    if (port !== undefined) additional.push(...(service.spec?.clusterIPs ?? []).map((ip) => addressRecord(own, ip)));
  }
  if (records.length === 0) return { kind: "no-name" };
  return type === "SRV" || type === "ANY" ? { kind: "found", answers: records, additional } : { kind: "no-data" };
}

/** `10-244-1-2.<namespace>.pod.<domain>` is the address it spells. */
function podAnswer(name: string, labels: readonly string[], type: string, { hasNamespace }: DnsSources): DnsAnswer {
  const [written = "", namespace = ""] = labels;
  if (labels.length < 3) return { kind: "no-data" };
  if (labels.length > 3 || !hasNamespace(namespace)) return { kind: "no-name" };
  const v4 = /^(\d{1,3})-(\d{1,3})-(\d{1,3})-(\d{1,3})$/.test(written) ? written.replaceAll("-", ".") : undefined;
  const v6 = v4 === undefined && /^[0-9a-f-]+$/.test(written) && written.includes("-") ? written.replaceAll("-", ":") : undefined;
  const ip = v4 ?? v6;
  return ip === undefined ? { kind: "no-name" } : addressAnswer(name, type, [ip]);
}

function addressAnswer(name: string, type: string, ips: readonly string[]): DnsAnswer {
  const answers = [...new Set(ips)].map((ip) => addressRecord(name, ip)).filter((record) => type === "ANY" || record.type === type);
  return answers.length === 0 ? { kind: "no-data" } : { kind: "found", answers, additional: [] };
}

function addressRecord(name: string, ip: string): DnsRecord {
  return { type: familyOf(ip) === "ipv4" ? "A" : "AAAA", name, data: ip };
}

function readyEndpoints(slices: readonly EndpointSlice[]): Endpoint[] {
  return slices.flatMap(({ endpoints }) => endpoints ?? []).filter(({ conditions }) => conditions?.ready !== false);
}

/** An endpoint's own name under its service: its hostname, or its address with dashes. */
function hostOf({ hostname }: Endpoint, ip: string): string {
  return hostname ?? ip.replaceAll(/[.:]/g, "-");
}
