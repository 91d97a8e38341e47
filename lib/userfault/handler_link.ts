/**
 * The client's end of a handoff, in a reactor: hands a userfaultfd to a handler, watches its
 * connection, and keeps the promise of the loss policy when the handler is gone. It runs in a thread
 * that never touches the memory.
 *
 * The client keeps a copy of its userfaultfd: with the last one the kernel would let missing pages
 * read as zeroes.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import { connectUnix, recv } from "../../ffi/socket.ts";
import { sendDescriptors } from "../../ffi/socket_message.ts";
import { UFFD_EVENT, UserfaultMessages } from "../../ffi/userfault_messages.ts";
import { Userfault } from "../../ffi/userfaultfd.ts";
import { ConnectionError, DeadlineError, ProtocolError, TelemapError } from "../backend/errors.ts";
import type { Deadline, Reactor } from "../net/reactor.ts";
import { formatDescription } from "./description.ts";
import { ANSWER_BYTES_MAX, parseAnswer } from "./handoff_answer.ts";
import type { MemoryRegion } from "./layout.ts";

/** What becomes of touches of missing pages when the handler is gone. */
export type HandlerLoss = "wait" | "poison";

/**
 * - `connecting`: no handler answered yet.
 * - `attached`: a handler pages the memory in.
 * - `lost`: the handler is gone; who touches a missing page waits until there is another one.
 * - `poisoned`: the handler is gone; who touches a missing page gets SIGBUS.
 * - `failed`: there never was a handler.
 */
export const HANDLER_STATES = ["connecting", "attached", "lost", "poisoned", "failed"] as const;

/** One of {@linkcode HANDLER_STATES}. */
export type HandlerState = typeof HANDLER_STATES[number];

/** What a {@linkcode HandlerLink} links. */
export interface HandlerLinkOptions {
  /** The handler's socket: a path, or `@name` in the abstract namespace. */
  socket: string;
  /** The userfaultfd that the memory is registered with; it stays the caller's. */
  uffd: number;
  /** The memory. */
  region: MemoryRegion;
  /** What becomes of it when the handler is gone. */
  onLoss: HandlerLoss;
  /** How long a handler may take to answer, in ms. */
  answerMs: number;
  /** Takes each state but the first, and why it is so where the handler is not there. */
  onState(state: HandlerState, reason?: Error): void;
  /** Takes a line for people. */
  log(line: string): void;
}

const BACK_OFF_MS = 20;
const BACK_OFF_MS_MAX = 1000;

/** See the module. */
export class HandlerLink {
  readonly #reactor: Reactor;
  readonly #options: HandlerLinkOptions;
  readonly #userfault: Userfault;
  #state: HandlerState = "connecting";
  #connection: HandlerConnection | undefined;
  #retry: Deadline | undefined;
  #attempts = 0;
  /** Why the last attempt failed, so that each reason is told once. */
  #told = "";
  #messages: UserfaultMessages | undefined;
  #closed = false;

  /** Begins to connect. Throws nothing: a handler that is not there is a state. */
  constructor(reactor: Reactor, options: HandlerLinkOptions) {
    this.#reactor = reactor;
    this.#options = options;
    this.#userfault = new Userfault(options.uffd);
    this.#connect();
  }

  /** Lets the handler go, and does nothing more. Unmap the memory before. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection?.close();
    if (this.#retry !== undefined) this.#reactor.cancelDeadline(this.#retry);
    if (this.#messages !== undefined) this.#reactor.remove(this.#options.uffd);
  }

  #connect(): void {
    try {
      this.#connection = new HandlerConnection(this.#reactor, this.#options, {
        onAttached: () => this.#attached(),
        onEnd: (reason) => this.#lost(reason),
      });
    } catch (error) {
      this.#lost(asError(error));
    }
  }

  #attached(): void {
    const again = this.#state === "lost";
    this.#attempts = 0;
    this.#told = "";
    this.#enter("attached");
    if (!again) return;
    // Of the faults that the handler before had read, the kernel tells no other one: whoever waits
    // is woken, finds the page missing and faults anew.
    this.#wakeAll();
    this.#log("is there again: paging in goes on");
  }

  #lost(reason: Error): void {
    this.#connection = undefined;
    if (this.#closed) return;
    if (this.#state === "connecting") return this.#enter("failed", reason);
    if (this.#options.onLoss === "poison") return this.#poison(reason);
    if (this.#state === "attached") this.#enter("lost", reason);
    if (this.#told !== reason.message) {
      this.#told = reason.message;
      this.#log(`is lost (${reason.message}): missing pages wait until it is there again`);
    }
    const pause = Math.min(BACK_OFF_MS * 2 ** this.#attempts++, BACK_OFF_MS_MAX);
    this.#retry = this.#reactor.addDeadline(performance.now() + pause, () => {
      this.#retry = undefined;
      this.#connect();
    });
  }

  /** From now on this end reads the faults, and answers each with SIGBUS. */
  #poison(reason: Error): void {
    this.#enter("poisoned", reason);
    this.#log(`is lost (${reason.message}): a touch of a missing page is SIGBUS from now on`);
    this.#messages = new UserfaultMessages();
    this.#reactor.add(this.#options.uffd, EPOLL.IN, () => this.#poisonFaults());
    this.#wakeAll();
  }

  #poisonFaults(): void {
    const messages = this.#messages!, { pageSize } = this.#options.region;
    const count = messages.read(this.#options.uffd);
    for (let index = 0; index < count; index++) {
      if (messages.event(index) !== UFFD_EVENT.PAGEFAULT) continue;
      const address = messages.address(index);
      const page = address - address % pageSize;
      // Where it fails the page is there by now, or gone: who waits finds out by touching it again.
      if (this.#userfault.poison(page, pageSize) < 0) this.#userfault.wake(page, pageSize);
    }
  }

  #wakeAll(): void {
    const { address, size } = this.#options.region;
    this.#userfault.wake(address, size);
  }

  #enter(state: HandlerState, reason?: Error): void {
    this.#state = state;
    this.#options.onState(state, reason);
  }

  #log(what: string): void {
    this.#options.log(`The handler at ${this.#options.socket} ${what}`);
  }
}

interface ConnectionEvents {
  /** The handler answered that it pages in. */
  onAttached(): void;
  /** The connection is over. Called once, unless it was closed by this end. */
  onEnd(reason: Error): void;
}

/** One connection to a handler. */
class HandlerConnection {
  readonly #reactor: Reactor;
  readonly #options: HandlerLinkOptions;
  readonly #events: ConnectionEvents;
  readonly #fd: number;
  readonly #answer = new Uint8Array(ANSWER_BYTES_MAX);
  #received = 0;
  /** Runs until the handler answered. */
  #deadline: Deadline | undefined;

  /** Connects and sends. Throws `SystemError` (ENOENT, ECONNREFUSED, EACCES, …). */
  constructor(reactor: Reactor, options: HandlerLinkOptions, events: ConnectionEvents) {
    this.#reactor = reactor;
    this.#options = options;
    this.#events = events;
    this.#fd = connectUnix(options.socket);
    try {
      this.#send();
      reactor.add(this.#fd, EPOLL.IN | EPOLL.RDHUP, () => this.#ready());
    } catch (error) {
      close(this.#fd);
      throw error;
    }
    this.#deadline = reactor.addDeadline(performance.now() + options.answerMs, () => {
      this.#deadline = undefined;
      const seconds = options.answerMs / 1000;
      this.#end(
        new DeadlineError(`The handler did not answer within ${seconds} s`, {
          hint: "connect to the socket of telemap uffd",
        }),
      );
    });
  }

  close(): void {
    if (this.#deadline !== undefined) this.#reactor.cancelDeadline(this.#deadline);
    this.#reactor.remove(this.#fd);
    close(this.#fd);
  }

  #send(): void {
    const { region, uffd } = this.#options;
    const description = new TextEncoder().encode(formatDescription([region]));
    if (sendDescriptors(this.#fd, description, [uffd]) === description.length) return;
    throw new ConnectionError("The connection to the handler took part of the description only");
  }

  #ready(): void {
    const room = this.#answer.subarray(this.#received);
    const count = this.#deadline === undefined ? this.#discard() : recv(this.#fd, room);
    if (count < 0) {
      if (errno() === ERRNO.EAGAIN || errno() === ERRNO.EINTR) return;
      return this.#end(new ConnectionError("The connection to the handler broke"));
    }
    if (count === 0) return this.#end(new ConnectionError("The handler ended the connection"));
    if (this.#deadline !== undefined) this.#take(count);
  }

  /** Whatever a handler says later means nothing. */
  #discard(): number {
    return recv(this.#fd, this.#answer);
  }

  #take(count: number): void {
    this.#received += count;
    try {
      const told = parseAnswer(this.#answer.subarray(0, this.#received));
      if (told === undefined) return;
      if (told.answer === "refused") {
        return this.#end(new TelemapError("EINVAL", `The handler refused: ${told.reason}`));
      }
    } catch (error) {
      return this.#end(error instanceof ProtocolError ? error : asError(error));
    }
    this.#reactor.cancelDeadline(this.#deadline!);
    this.#deadline = undefined;
    this.#events.onAttached();
  }

  #end(reason: Error): void {
    this.close();
    this.#events.onEnd(reason);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(`${error}`);
}
