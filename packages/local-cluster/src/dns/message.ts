/** From a query's bytes to an answer's bytes. Pure; whatever the bytes are, it does not throw. */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  type OptAnswer,
  type Packet,
  RECURSION_DESIRED,
  streamEncode,
  TRUNCATED_RESPONSE,
} from "dns-packet";
import { answerQuestion, type DnsAnswer, type DnsRecord, type DnsSources } from "./records.ts";

export interface DnsReply {
  readonly bytes: Uint8Array;
  /** The name belongs to somebody else: an upstream may know it. */
  readonly foreign: boolean;
}

const timeToLiveSeconds = 5;
const plainUdpLimit = 512;
/** Larger datagrams are cut whatever a client claims to take: fragments get lost. */
const maxUdpLimit = 1_232;
const responseCode = { ok: 0, formatError: 1, noName: 3, notImplemented: 4, refused: 5 } as const;

/** The reply to one query, or undefined for bytes that are not a query. `transport` decides on length and framing. */
export function replyTo(query: Uint8Array, transport: "udp" | "tcp", sources: DnsSources): DnsReply | undefined {
  let packet: Packet;
  try {
    packet = decode(Buffer.from(query));
  } catch {
    return undefined;
  }
  if (packet.type !== "query") return undefined;
  const [question] = packet.questions ?? [];
  if (question === undefined || packet.questions?.length !== 1) return finish(packet, transport, responseCode.formatError, {});
  if (question.class !== undefined && question.class !== "IN") return finish(packet, transport, responseCode.notImplemented, {});
  const answer = answerQuestion(question, sources);
  return { ...sections(packet, transport, answer, sources.domain), foreign: answer.kind === "foreign" };
}

function sections(packet: Packet, transport: "udp" | "tcp", answer: DnsAnswer, domain: string): DnsReply {
  switch (answer.kind) {
    case "found":
      return finish(packet, transport, responseCode.ok, { answers: answer.answers.map(toAnswer), additionals: answer.additional.map(toAnswer) });
    case "no-data":
      return finish(packet, transport, responseCode.ok, { authorities: [startOfAuthority(domain)] });
    case "no-name":
      return finish(packet, transport, responseCode.noName, { authorities: [startOfAuthority(domain)] });
    case "foreign":
      return finish(packet, transport, responseCode.refused, {});
  }
}

function finish(
  query: Packet,
  transport: "udp" | "tcp",
  code: number,
  content: { answers?: Answer[]; authorities?: Answer[]; additionals?: Answer[] },
): DnsReply {
  const recursionDesired = (query.flags ?? 0) & RECURSION_DESIRED;
  const reply: Packet = {
    type: "response",
    id: query.id ?? 0,
    flags: AUTHORITATIVE_ANSWER | recursionDesired | code,
    questions: query.questions ?? [],
    ...content,
  };
  if (transport === "tcp") return { bytes: streamEncode(reply), foreign: false };
  const bytes = encode(reply);
  if (bytes.length <= udpLimit(query)) return { bytes, foreign: false };
  return { bytes: encode({ ...reply, flags: (reply.flags ?? 0) | TRUNCATED_RESPONSE, answers: [], authorities: [], additionals: [] }), foreign: false };
}

function udpLimit(query: Packet): number {
  const extension = query.additionals?.find((record): record is OptAnswer => record.type === "OPT");
  return Math.min(maxUdpLimit, Math.max(plainUdpLimit, extension?.udpPayloadSize ?? plainUdpLimit));
}

function toAnswer(record: DnsRecord): Answer {
  if (record.type === "SRV") return { type: "SRV", name: record.name, ttl: timeToLiveSeconds, data: { ...record.data } };
  return { type: record.type, name: record.name, ttl: timeToLiveSeconds, data: record.data };
}

/** Without it resolvers may not remember a negative answer (RFC 2308 section 5). */
function startOfAuthority(domain: string): Answer {
  const data = {
    mname: `ns.dns.${domain}`,
    rname: `hostmaster.${domain}`,
    serial: 1,
    refresh: 7_200,
    retry: 1_800,
    expire: 86_400,
    minimum: timeToLiveSeconds,
  };
  return { type: "SOA", name: domain, ttl: timeToLiveSeconds, data };
}
