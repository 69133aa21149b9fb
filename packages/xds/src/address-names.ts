/** The names under which an address may be asked for (ztunnel contract 3.3): `<network>/<ip>`, and `<network>/<ip>/<length>` for a range. */
import { type Cidr, cidrContains, type IpAddress, parseCidr, tryParseIp } from "@fairway/model";

interface AddressName {
  readonly network: string;
  readonly ip: IpAddress;
}

export interface RangeName {
  readonly network: string;
  readonly range: Cidr;
}

/** Undefined for a name of another form. */
export function parseAddressName(name: string): AddressName | undefined {
  const at = name.lastIndexOf("/");
  const ip = at < 0 ? undefined : tryParseIp(name.slice(at + 1));
  return ip === undefined ? undefined : { network: name.slice(0, at), ip };
}

/** Undefined for a name of another form. */
export function parseRangeName(name: string): RangeName | undefined {
  const [network, ip, length, ...rest] = name.split("/");
  if (network === undefined || ip === undefined || length === undefined || rest.length > 0) return undefined;
  try {
    return { network, range: parseCidr(`${ip}/${length}`) };
  } catch {
    return undefined;
  }
}

export function rangeHolds({ network, range }: RangeName, address: AddressName): boolean {
  return network === address.network && cidrContains(range, address.ip);
}
