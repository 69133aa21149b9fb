/** `app` serves; `app <action> …` is a client. Both run inside pods. */
import { act } from "./app-client.ts";
import { serve } from "./app-server.ts";

const [action, ...args] = process.argv.slice(2);
process.on("SIGTERM", () => process.exit(0));
if (action === undefined) serve();
else await act(action, args);
