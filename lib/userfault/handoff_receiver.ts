/**
 * Receives the userfaultfd and the description of a client that connected, in a reactor: within a
 * time, within limits, and with a look at what the descriptor really is.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { closeAsync, setNonblocking } from "../../ffi/file.ts";
import { pageSize } from "../../ffi/mman.ts";
import { receiveDescriptors } from "../../ffi/socket_message.ts";
import { describeDescriptor, isUserfault, userfaultFeatures } from "../../ffi/userfault_facts.ts";
import { featureNames, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { DeadlineError, ProtocolError } from "../backend/errors.ts";
import type { Deadline, Reactor } from "../net/reactor.ts";
import { DescriptionReader, parseDescription } from "./description.ts";
import type { MemoryRegion } from "./layout.ts";

/** What a client hands over. */
export interface Handoff {
  /** Its userfaultfd, which the receiver has to close; it does not block. */
  uffd: number;
  /** Its memory, by ascending address. */
  regions: MemoryRegion[];
}

/** How a {@linkcode HandoffReceiver} receives. */
export interface HandoffReceiverOptions {
  /** Bytes of the backend that the memory is to be paged in from. */
  backendSize: number;
  /** How long the client may take, in ms. */
  handshakeMs: number;
  /** Called once, when nothing is read any more: with what came, or why it is refused. */
  onDone(handoff: Handoff | Error): void;
}

const PIECE = 16 << 10;
/** Memory that moves, or that a child gets a copy of, is not followed. */
const UNSUPPORTED = UFFD_FEATURE.EVENT_FORK | UFFD_FEATURE.EVENT_REMAP;

/** See the module. */
export class HandoffReceiver {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #options: HandoffReceiverOptions;
  readonly #description = new DescriptionReader();
  readonly #deadline: Deadline;
  /** The descriptor that came, -1 before. */
  #received = -1;
  #done = false;

  /** Begins to receive from a connection, which does not block and stays the caller's. */
  constructor(reactor: Reactor, fd: number, options: HandoffReceiverOptions) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#options = options;
    this.#deadline = reactor.addDeadline(performance.now() + options.handshakeMs, () => {
      const seconds = options.handshakeMs / 1000;
      this.#end(new DeadlineError(`The client did not describe its memory within ${seconds} s`));
    });
    reactor.add(fd, EPOLL.IN, () => this.#ready());
  }

  /** Receives no more, and closes what came. `onDone` is not called. */
  cancel(): void {
    this.#release();
    this.#drop();
  }

  #ready(): void {
    try {
      const complete = this.#receive();
      if (complete) this.#end(this.#handoff());
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(`${error}`));
    }
  }

  /** Takes a piece of the description; answers whether that was the last one. */
  #receive(): boolean {
    const buffer = new Uint8Array(PIECE);
    const message = this.#tryReceive(buffer);
    if (message === undefined) return false;
    const { length, descriptors: [descriptor] } = message;
    if (descriptor !== undefined) {
      if (this.#received >= 0) {
        void closeAsync(descriptor);
        throw new ProtocolError("The client sent more than one descriptor");
      }
      this.#received = descriptor;
    }
    if (length > 0) return this.#description.push(buffer.subarray(0, length));
    throw new ProtocolError(
      this.#description.empty
        ? "The client went away without a word"
        : "The client went away before its description was complete",
    );
  }

  #tryReceive(buffer: Uint8Array): ReturnType<typeof receiveDescriptors> | undefined {
    try {
      return receiveDescriptors(this.#fd, buffer, 1);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.errno === ERRNO.EAGAIN || error.errno === ERRNO.EINTR) return undefined;
      if (error.errno !== ERRNO.EMSGSIZE) throw error;
      throw new ProtocolError("The client sent more than one descriptor", { cause: error });
    }
  }

  #handoff(): Handoff {
    const uffd = this.#received;
    if (uffd < 0) throw new ProtocolError("No userfaultfd came with the description");
    checkUserfault(uffd);
    const { backendSize } = this.#options;
    const regions = parseDescription(this.#description.text(), {
      backendSize,
      pageSize: pageSize(),
    });
    setNonblocking(uffd);
    return { uffd, regions };
  }

  #end(outcome: Handoff | Error): void {
    if (this.#done) return;
    this.#release();
    if (outcome instanceof Error) this.#drop();
    this.#options.onDone(outcome);
  }

  #release(): void {
    if (this.#done) return;
    this.#done = true;
    this.#reactor.cancelDeadline(this.#deadline);
    this.#reactor.remove(this.#fd);
  }

  /**
   * Closes the descriptor that came, where it was not handed on: off this thread, as the close of a
   * file waits for its server, which the client may control.
   */
  #drop(): void {
    if (this.#received < 0) return;
    void closeAsync(this.#received);
    this.#received = -1;
  }
}

/**
 * Looks at a descriptor from without: it may be that of a file whose server its client controls, and
 * any call that reaches that could wait for ever.
 */
function checkUserfault(fd: number): void {
  if (!isUserfault(fd)) {
    const what = describeDescriptor(fd);
    throw new ProtocolError(`The descriptor with the description is ${what}, no userfaultfd`);
  }
  const unsupported = featureNames((userfaultFeatures(fd) ?? 0) & UNSUPPORTED);
  if (unsupported.length === 0) return;
  throw new ProtocolError(`The userfaultfd tells of events that are not followed: ${unsupported}`, {
    hint: "open it without these features",
  });
}
