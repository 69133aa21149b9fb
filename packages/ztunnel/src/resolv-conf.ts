/** What of resolv.conf(5) the DNS proxy obeys: who to ask, and what a client of this machine appends to names. */
import { type SocketAddress, tryParseIp } from "@fairway/model";

export interface ResolvConf {
  readonly nameservers: readonly SocketAddress[];
  readonly search: readonly string[];
}

/** As many as the C library reads. */
const maxNameservers = 3;
const dnsPort = 53;

/** Lines that say something else, or nothing that can be read, are passed over. The last `search` or `domain` counts. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: SocketAddress[] = [];
  let search: readonly string[] = [];
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    const [first = ""] = values;
    if (keyword === "nameserver") {
      const ip = tryParseIp(first);
      if (ip !== undefined) nameservers.push({ ip, port: dnsPort });
    } else if (keyword === "search") search = values.map(plainDomain);
    else if (keyword === "domain") search = [plainDomain(first)];
  }
  return { nameservers: nameservers.slice(0, maxNameservers), search: search.filter((domain) => domain !== "") };
}

function plainDomain(domain: string): string {
  return domain.toLowerCase().replace(/^\.+|\.+$/g, "");
}
