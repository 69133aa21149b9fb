/** What the peer's SETTINGS say (RFC 9113 6.5.2), and whether they may say it. */
import { ConnectionFault, errorCodes } from "./error-codes.ts";
import { defaultFrameSize, defaultWindow, maxFrameSize, maxWindow, type Setting, settingIds } from "./frames.ts";
import { defaultTableSize } from "./hpack/decoder.ts";

export class PeerSettings {
  initialWindow: number = defaultWindow;
  frameSize: number = defaultFrameSize;
  maxStreams: number = Number.POSITIVE_INFINITY;
  headerTableSize: number = defaultTableSize;

  /** Takes over what a frame says. `side` is ours. Throws ConnectionFault for values that are forbidden; unknown settings are ignored. */
  apply(settings: readonly Setting[], side: "client" | "server"): void {
    for (const [id, value] of settings) this.#set(id, value, side);
  }

  #set(id: number, value: number, side: "client" | "server"): void {
    switch (id) {
      case settingIds.headerTableSize:
        this.headerTableSize = value;
        return;
      case settingIds.enablePush:
        // Only a client may allow pushes, and only by 0 and 1.
        if (value > (side === "server" ? 1 : 0)) throw new ConnectionFault(errorCodes.protocolError, "a forbidden value of SETTINGS_ENABLE_PUSH");
        return;
      case settingIds.maxConcurrentStreams:
        this.maxStreams = value;
        return;
      case settingIds.initialWindowSize:
        if (value > maxWindow) throw new ConnectionFault(errorCodes.flowControlError, "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1");
        this.initialWindow = value;
        return;
      case settingIds.maxFrameSize:
        if (value < defaultFrameSize || value > maxFrameSize)
          throw new ConnectionFault(errorCodes.protocolError, "a forbidden value of SETTINGS_MAX_FRAME_SIZE");
        this.frameSize = value;
        return;
      default:
    }
  }
}
