/**
 * The entry of the Worker that links the memory of a program to its handler, beside the isolate that
 * touches the memory and may stop at any access.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { Reactor } from "../net/reactor.ts";
import {
  HANDLER_STATES,
  HandlerLink,
  type HandlerLinkOptions,
  type HandlerState,
} from "./handler_link.ts";

/** To the Worker. */
export type LinkCommand =
  /** `cell` always has the index of the present state among {@linkcode HANDLER_STATES}. */
  | { command: "link"; options: LinkOptions; cell: Int32Array }
  | { command: "close" };

/** What is linked, as a message carries it. */
export type LinkOptions = Omit<HandlerLinkOptions, "onState" | "log">;

/** From the Worker. */
export type LinkMessage =
  /** `reason`: why no handler is there, for people. */
  | { event: "state"; state: HandlerState; reason: string | undefined }
  /** Nothing of the memory or the handler is used any more. */
  | { event: "closed" };

/** The part of a dedicated Worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<LinkCommand>) => void) | null;
  postMessage(message: LinkMessage): void;
  close(): void;
}

const scope = self as unknown as WorkerScope;

let over: (() => Promise<void>) | undefined;

function start(options: LinkOptions, cell: Int32Array): void {
  const wake = new EventFd();
  const reactor = new Reactor(wake);
  const link = new HandlerLink(reactor, {
    ...options,
    onState: (state, reason) => {
      Atomics.store(cell, 0, HANDLER_STATES.indexOf(state));
      scope.postMessage({ event: "state", state, reason: reason?.message });
    },
    // Said from here: the isolate that touches the memory may be waiting for it.
    log: (line) => console.warn(line),
  });
  const running = reactor.run();
  over = async () => {
    link.close();
    reactor.stop();
    await running;
    reactor[Symbol.dispose]();
    wake[Symbol.dispose]();
  };
}

scope.onmessage = async ({ data }) => {
  if (data.command === "link") return start(data.options, data.cell);
  await over?.();
  scope.postMessage({ event: "closed" });
  scope.close();
};
