/** Certificates on other threads: asked for once, rotated, taken back; and the key goes where it is asked for and nowhere else. */
import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { Authority, type CaClient, detachCertificate, localCaClient, SecretManager } from "@fairway/pki";
import { ManualClock, silentLogger, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { CertificateDesk, type CertificateNews, type CertificateSession } from "./certificate-desk.ts";
import { HandedCertificates } from "./handed-certificates.ts";
import { eventually } from "./test-mesh.ts";

const a = parseSpiffeId("spiffe://cluster.local/ns/default/sa/a");
const wait = { signal: new AbortController().signal };

function rig(t: ExecutionContext, { ca, clock = systemClock }: { ca?: CaClient; clock?: typeof systemClock } = {}) {
  const own = localCaClient(Authority.createSelfSigned({ trustDomain: "cluster.local", clock }));
  const certificates = new SecretManager({ ca: ca ?? own, clock, log: silentLogger });
  const desk = new CertificateDesk({ certificates, log: silentLogger });
  t.teardown(async () => {
    await desk[Symbol.asyncDispose]();
    await certificates[Symbol.asyncDispose]();
  });
  const thread = () => {
    const asked: SpiffeId[] = [];
    const news: CertificateNews[] = [];
    let session: CertificateSession | undefined;
    const handed = new HandedCertificates({
      ask: (identity) => {
        asked.push(identity);
        session?.ask(identity);
      },
      clock,
    });
    session = desk.open((said) => {
      news.push(said);
      handed.apply(structuredClone(said));
    });
    return { handed, asked, news };
  };
  return { certificates, thread };
}

test("a certificate is asked for once, and comes with its key", async (t) => {
  const { thread } = rig(t);
  const { handed, asked } = thread();
  const [one, two] = await Promise.all([handed.fetch(a, wait), handed.fetch(a, wait)]);
  t.is(one, two);
  t.is(await handed.fetch(a, wait), one);
  t.deepEqual(asked, [a]);
  t.is(detachCertificate(one).privateKey.type, "private");
  t.notRegex(JSON.stringify(one), /PRIVATE/);
});

test("a thread that did not ask gets nothing", async (t) => {
  const { thread } = rig(t);
  const [one, other] = [thread(), thread()];
  await one.handed.fetch(a, wait);
  t.deepEqual(other.news, []);
});

test("a rotated certificate replaces the old one on every thread that holds it, and a forgotten one is taken back", async (t) => {
  const clock = new ManualClock(Date.now());
  const { certificates, thread } = rig(t, { clock });
  const [one, other] = [thread(), thread()];
  const first = await one.handed.fetch(a, wait);
  await other.handed.fetch(a, wait);
  await clock.advance(13 * 3_600_000);
  await eventually(t, () => one.news.length === 2 && other.news.length === 2);
  t.not((await one.handed.fetch(a, wait)).serialNumber, first.serialNumber);
  t.is((await one.handed.fetch(a, wait)).serialNumber, (await other.handed.fetch(a, wait)).serialNumber);
  t.deepEqual(one.asked, [a]);
  certificates.forget(a);
  t.is(one.news.at(-1)?.kind, "lost");
  const anew = await one.handed.fetch(a, wait);
  t.deepEqual(one.asked, [a, a]);
  t.true(anew.notAfter > clock.now());
});

test("a CA that refuses is told to whoever waits, with its words", async (t) => {
  const ca: CaClient = {
    sign: () => Promise.reject(new Error("not on your node")),
    [Symbol.asyncDispose]: async () => {},
  };
  const { thread } = rig(t, { ca });
  await t.throwsAsync(thread().handed.fetch(a, wait), { message: /not on your node/, code: "PKI_CERTIFICATE_UNAVAILABLE" });
});

test("who does not want to wait any more stops waiting", async (t) => {
  const ca: CaClient = { sign: () => new Promise(() => {}), [Symbol.asyncDispose]: async () => {} };
  const { handed } = rig(t, {
    ca: { ...ca, sign: (_, { signal }) => new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))) },
  }).thread();
  const leaving = new AbortController();
  const waiting = handed.fetch(a, { signal: leaving.signal }).catch((thrown: unknown) => thrown);
  leaving.abort("left");
  t.is(await waiting, "left");
});
