/** `app` serves; `app <action> …` is a client. Both run inside pods. */
import { act } from "./app-client.ts";
import { serve } from "./app-server.ts";

const [action, ...args] = process.argv.slice(2);
// An application that is asked to leave finishes what it was asked before, where it is told how long that takes.
process.on("SIGTERM", () => setTimeout(() => process.exit(0), Number(process.env["LEAVE_AFTER_MS"] ?? 0)));
if (action === undefined) await serve();
else await act(action, args);
