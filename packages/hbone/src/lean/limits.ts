/** Bounds of the lean engine that keep a peer cheap, whatever it sends. Those that both engines have are in ../settings.ts. */

/** CONTINUATION frames of one header block (CVE-2024-27983 and its kin). */
export const maxContinuations = 32;
/** Encoded bytes of a header block, as a multiple of the advertised list size; above it the connection ends unread. */
export const headerBlockFactor = 2;
/** SETTINGS entries of one frame; there are fewer than ten that exist. */
export const maxSettingsEntries = 64;
/** Unsent bytes of a tunnel above which streams stop sending, and below which they go on. */
export const crowdedBytes: number = 256 * 1024;
/** Unsent bytes above that, which can only be answers to a peer that does not read them. */
export const floodedBytes: number = crowdedBytes + 512 * 1024;
/** What one stream may send before the next one has its turn. */
export const sendQuantum: number = 64 * 1024;
/** Received bytes of a stream from which on they wait for the end of the turn, to be written to the application together. */
export const gatheredBytes: number = 8 * 1024;
/** Sends of a round after which what was gathered goes out: measured against all at once, a quarter more requests for 5 % more CPU each. */
export const sendsPerFlush = 8;
/** Streams reset here of which late frames are still expected. */
export const maxRememberedResets = 1_000;
/** PING, SETTINGS and PRIORITY at once, and per second after that. */
export const controlBurst = 10_000;
export const controlRate = 1_000;
/** DATA frames that carry nothing and end nothing. */
export const emptyDataBurst = 1_000;
export const emptyDataRate = 100;
/** Streams refused at once for being too many, and per second after that. */
export const refusalBurst = 10_000;
export const refusalRate = 1_000;
/** Interim answers (1xx) to one CONNECT. */
export const maxInterimAnswers = 16;
/** From a peer's SETTINGS being due to our own being acknowledged. */
export const acknowledgeTimeoutMs = 10_000;
/** How long a closing tunnel waits for the peer to let go, and a draining server for streams that crossed its GOAWAY. */
export const lingerMs = 5_000;
