/**
 * What the main thread and another one say to each other. Everything is plain data: it crosses by structured clone. Calls have a number and
 * are answered once; news and speech are said and not answered. Messages arrive in the order in which they were sent.
 */
import type { MessagePort } from "node:worker_threads";
import { type PlainError, plainError } from "./error.ts";
import type { TaskGroup } from "./task-group.ts";

/** What can be asked of a thread, and the answers, by name. `flush` is answered after everything of before was said: these are its last words. */
export type Callable<Calls> = { readonly [Name in keyof Calls]: { readonly ask: unknown; readonly answer: unknown } } & {
  readonly flush: { readonly ask: undefined; readonly answer: undefined };
};

/** One of them, as it is asked. */
export type ThreadCall<Calls extends Callable<Calls>> = { [Name in keyof Calls]: { readonly name: Name; readonly ask: Calls[Name]["ask"] } }[keyof Calls];

/** Of the thread, to a call. `ready` is the first. */
export type ThreadReply =
  | { readonly kind: "ready" }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "failure"; readonly id: number; readonly error: PlainError };

/** News and speech have kinds of their own. */
interface Said {
  readonly kind: string;
}

interface CallMessage<Call> {
  readonly kind: "call";
  readonly id: number;
  readonly call: Call;
}

/** Who does what a thread is asked, in that thread. */
export interface CalledThread<Call, News> {
  /** Calls are carried out beside each other. */
  readonly tasks: TaskGroup;
  carryOut(call: Call): Promise<unknown>;
  hear(news: News): void;
}

/** A thread's own end: serves until the port closes. What fails without a code has `code`. */
export function serveCalls<Calls extends Callable<Calls>, News extends Said>(
  port: MessagePort,
  called: CalledThread<ThreadCall<Calls>, News>,
  code: string,
): void {
  const say = (reply: ThreadReply): void => port.postMessage(reply);
  const answer = async ({ id, call }: CallMessage<ThreadCall<Calls>>): Promise<void> => {
    try {
      say({ kind: "answer", id, answer: await called.carryOut(call) });
    } catch (thrown) {
      say({ kind: "failure", id, error: plainError(thrown, code) });
    }
  };
  port.on("message", (message: CallMessage<ThreadCall<Calls>> | News) => {
    if (isCall(message)) called.tasks.run(`thread call ${String(message.call.name)}`, () => answer(message));
    else called.hear(message);
  });
  // What cannot be read cannot be obeyed: better no thread than one that missed a policy.
  port.on("messageerror", (error) => {
    throw error;
  });
  say({ kind: "ready" });
}

function isCall<Call, News extends Said>(message: CallMessage<Call> | News): message is CallMessage<Call> {
  return message.kind === "call";
}

export function isReply<Speech extends Said>(message: ThreadReply | Speech): message is ThreadReply {
  return message.kind === "ready" || message.kind === "answer" || message.kind === "failure";
}
