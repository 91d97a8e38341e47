/**
 * The Worker that resolves write-protect faults where memory is tracked by them and no server of
 * its faults is there. It must never touch that memory itself.
 *
 * @module
 */
import { EPOLL, EventFd } from "../../ffi/epoll.ts";
import { SystemError } from "../../ffi/errno.ts";
import { adviseAt, MADV } from "../../ffi/mman.ts";
import { UFFD_EVENT, UFFD_FAULT, UserfaultMessages } from "../../ffi/userfault_messages.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { ClosedError, errorCode } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { Reactor } from "../net/reactor.ts";
import { FaultTracker, protectPages } from "./fault_tracker.ts";
import type { TrackAnswer, TrackCommand } from "./track_protocol.ts";
import { collectWritten, type TrackedRange } from "./write_tracker.ts";

interface WorkerScope {
  onmessage: ((event: MessageEvent<TrackCommand>) => void) | null;
  postMessage(answer: TrackAnswer): void;
  close(): void;
}

const scope = self as unknown as WorkerScope;

const MESSAGES_A_READ = 64;

/**
 * Handles the faults of one run of memory. Pages that are missing cannot be protected before Linux
 * 6.4, so all are put in place at first, as zero pages; and what misses later, as its process
 * dropped it, faults when it is touched and counts as written.
 */
class FaultHandler {
  readonly #reactor: Reactor;
  readonly #uffd: Userfault;
  readonly #range: TrackedRange;
  readonly #tracker: FaultTracker;
  readonly #messages = new UserfaultMessages(MESSAGES_A_READ);
  #failure: Error | undefined;

  constructor(reactor: Reactor, fd: number, range: TrackedRange) {
    this.#reactor = reactor;
    this.#uffd = new Userfault(fd);
    this.#range = range;
    this.#arm(0, range.size);
    this.#tracker = new FaultTracker(this.#uffd, range);
    reactor.add(fd, EPOLL.IN, () => this.#ready());
  }

  async collect(): Promise<RangeList> {
    this.#check();
    this.#reactor.beginAsync();
    try {
      return await collectWritten(this.#tracker);
    } finally {
      this.#reactor.endAsync();
    }
  }

  restore(ranges: RangeList): void {
    this.#tracker.restore(ranges);
  }

  grow(size: number): void {
    this.#check();
    this.#arm(this.#range.size, size);
    this.#tracker.grow(size);
    this.#range.size = size;
  }

  /** Closes the userfaultfd: who waits goes on, and no write is noticed any more. */
  close(): void {
    if (this.#uffd.fd === -1) return;
    this.#reactor.remove(this.#uffd.fd);
    this.#uffd[Symbol.dispose]();
  }

  #check(): void {
    if (this.#failure === undefined) return;
    const cause = this.#failure;
    throw new ClosedError(`Cannot track writes as the handler failed: ${cause.message}`, { cause });
  }

  /** Registers and protects the memory from byte `from` to `to`. */
  #arm(from: number, to: number): void {
    const start = this.#range.address + from, length = to - from;
    // Before it is registered, as this thread must not fault there. Where the kernel is too old for
    // one of them, pages are missing, or huge pages are split as they are written.
    for (const advice of [MADV.NOHUGEPAGE, MADV.POPULATE_READ]) {
      try {
        adviseAt(start, length, advice, "tracked memory");
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
      }
    }
    this.#uffd.register(start, length, UFFD_REGISTER.MISSING | UFFD_REGISTER.WP);
    // It can always be: only with events of the userfaultfd a mapping is found being changed.
    protectPages(this.#uffd, start, length, this.#range.pageSize);
  }

  #ready(): void {
    try {
      const count = this.#messages.read(this.#uffd.fd);
      for (let index = 0; index < count; index++) this.#resolve(index);
    } catch (error) {
      // Nobody may wait for a handler that is gone.
      this.#failure = error instanceof Error ? error : new Error(`${error}`);
      this.close();
    }
  }

  #resolve(index: number): void {
    const messages = this.#messages;
    if (messages.event(index) !== UFFD_EVENT.PAGEFAULT) return;
    const address = messages.address(index);
    if ((messages.flags(index) & UFFD_FAULT.WP) !== 0) return this.#tracker.onWriteFault(address);
    const { pageSize } = this.#range;
    const page = address - address % pageSize;
    this.#tracker.markWritten(page);
    if (this.#uffd.zeroPage(page, pageSize) < 0) this.#uffd.wake(page, pageSize);
  }
}

/** A reactor that runs, and the handler in it. */
class TrackWorker {
  readonly #reactor: Reactor;
  readonly #handler: FaultHandler;
  readonly #over: Promise<void>;

  constructor(command: TrackCommand & { command: "track" }) {
    this.#reactor = new Reactor(new EventFd(command.wakeFd));
    try {
      this.#handler = new FaultHandler(this.#reactor, command.fd, command.range);
    } catch (error) {
      this.#reactor[Symbol.dispose]();
      throw error;
    }
    this.#over = this.#reactor.run();
  }

  /** Lets the reactor wait on this thread, where nothing else is to be done. */
  started(): void {
    this.#reactor.blocking = true;
  }

  async perform(command: TrackCommand): Promise<RangeList | void> {
    this.#reactor.messageArrived();
    switch (command.command) {
      case "collect":
        return await this.#handler.collect();
      case "restore":
        return this.#handler.restore(RangeList.fromBounds(command.bounds));
      case "grow":
        return this.#handler.grow(command.size);
      case "close":
        return await this.#close();
    }
  }

  async #close(): Promise<void> {
    this.#handler.close();
    this.#reactor.stop();
    await this.#over;
    this.#reactor[Symbol.dispose]();
  }
}

let worker: TrackWorker | undefined;

async function obey(command: TrackCommand): Promise<TrackAnswer> {
  const { id } = command;
  try {
    if (command.command === "track") {
      worker = new TrackWorker(command);
      return { id };
    }
    const written = await worker!.perform(command);
    return written === undefined ? { id } : { id, bounds: written.bounds() };
  } catch (error) {
    const message = error instanceof Error ? error.message : `${error}`;
    return { id, error: { code: errorCode(error), message } };
  }
}

scope.onmessage = async ({ data: command }) => {
  scope.postMessage(await obey(command));
  if (command.command === "track") worker?.started();
  if (command.command === "close" || worker === undefined) scope.close();
};
