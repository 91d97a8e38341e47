/**
 * Resolves the faults of memory that is registered with a userfaultfd, in a reactor: a page that is
 * touched for the first time comes from a backend, with those around it.
 *
 * Rules, where several things happen at a time:
 * - A page is put in place once; whoever comes second finds it there (EEXIST) and wakes who waits.
 * - A fault never waits for what is pulled ahead: its page is pulled once more, urgently.
 * - A page whose content cannot be had is never shown as zeroes: who touches it waits, or gets SIGBUS
 *   where that was asked for.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { UFFD_EVENT, UFFD_FAULT, UserfaultMessages } from "../../ffi/userfault_messages.ts";
import { fillOutcome, Userfault } from "../../ffi/userfaultfd.ts";
import type { Backend } from "../backend/backend.ts";
import { DeadlineError } from "../backend/errors.ts";
import type { Deadline, Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { CoreFollower } from "./core_follower.ts";
import { checkedLayout, type MemoryRegion } from "./layout.ts";
import { LossLog } from "./loss_log.ts";
import { type PageContent, PageReader } from "./page_content.ts";
import { type Installed, type InstallOptions, PageInstaller } from "./page_installer.ts";
import { PagedRegion } from "./paged_region.ts";
import { Prefetcher } from "./prefetcher.ts";
import { noStatistics, type UserfaultStatistics } from "./statistics.ts";

/** What becomes of a touch of a page whose content cannot be had. */
export type UserfaultLoss = "wait" | "poison";

/** How a {@linkcode UserfaultServer} serves. */
export interface UserfaultServerOptions {
  /** The memory; registered, with nothing in place that was not put there by its owner. */
  regions: readonly MemoryRegion[];
  /** Bytes that a first fault brings in, a multiple of the page size; 64 KiB unless told. */
  faultAround?: number | undefined;
  /** Whether to bring everything in without being asked; not unless told. */
  prefetch?: boolean | undefined;
  /** `wait` (unless told) tries again for ever, `poison` gives SIGBUS to who touches the page. */
  onLoss?: UserfaultLoss | undefined;
  /** How long a read may take before the page is poisoned, in ms; 30 s unless told. */
  lossMs?: number | undefined;
  /** How pages are put in place; unprotected, zeroes as the zero page unless told. */
  install?: InstallOptions | undefined;
  /** Takes the address of a write to a protected page, and lets the writer go on. */
  onWriteFault?: ((address: number) => void) | undefined;
  /** Called once when nothing is served any more, with the error unless it was closed. */
  onDetached?: ((error?: Error) => void) | undefined;
  /** Takes a line for people; default `console.warn`. */
  log?: ((line: string) => void) | undefined;
}

const PLAINLY: InstallOptions = { protect: false, zeroPage: true };
const FAULT_AROUND = 64 << 10;
/** The most that faults in order bring in: a longer run holds the next fault up. */
const MOST_AT_ONCE = 1 << 20;
/** The same where the backend is far away, and a run costs a round trip. */
const MOST_FROM_AFAR = 8 << 20;
/** Bytes of one read ahead from afar: several are in flight. */
const AHEAD_PIECE = 1 << 20;
const MESSAGES_A_READ = 64;
/** Reads of messages before others in the reactor have their turn. */
const READS_A_TURN = 64;
/** How long a page waits that a change of the mapping held up, where no event tells its end. */
const CHANGING_MS = 1;
/** How long a thread waits for a backend before it gets SIGBUS, where that was asked for. */
const LOSS_MS = 30_000;
const RETRY_MS = 10;
const RETRY_MS_MAX = 5000;

/** See the module. */
export class UserfaultServer {
  /** What it counts. */
  readonly statistics: UserfaultStatistics = noStatistics();
  readonly #reactor: Reactor;
  readonly #uffd: Userfault;
  readonly #backend: Backend;
  readonly #regions: PagedRegion[];
  readonly #reader: PageReader;
  readonly #installer: PageInstaller;
  #prefetcher: Prefetcher | undefined;
  readonly #follower: CoreFollower;
  readonly #messages = new UserfaultMessages(MESSAGES_A_READ);
  readonly #options: UserfaultServerOptions;
  readonly #losses: LossLog;
  readonly #urgentBytes: number;
  /** Whether the backend answers without a promise. */
  readonly #atOnce: boolean;
  /** Runs that threads may wait for, which are read or will be tried again. */
  #owed = 0;
  /** Whether serving ended while threads may wait. */
  #failed = false;
  #closed = false;

  /**
   * Begins to serve, and takes the descriptor over unless it throws.
   *
   * @throws {UsageError} for regions that cannot be (see `checkedLayout`).
   */
  constructor(
    reactor: Reactor,
    pool: SlotPool,
    fd: number,
    backend: Backend,
    options: UserfaultServerOptions,
  ) {
    this.#reactor = reactor;
    this.#backend = backend;
    this.#options = options;
    this.#atOnce = backend.writesAtOnce === true;
    this.#follower = new CoreFollower({ mayStay: this.#atOnce });
    const most = this.#atOnce ? MOST_AT_ONCE : MOST_FROM_AFAR;
    const { faultAround = FAULT_AROUND } = options;
    this.#regions = checkedLayout(options.regions, backend.size).map((region) => {
      const base = Math.max(faultAround, region.pageSize);
      return new PagedRegion(region, base, Math.max(base, most));
    });
    this.#urgentBytes = faultAround;
    this.#losses = new LossLog(options.log ?? console.warn);
    this.#reader = new PageReader(backend, pool);
    this.#uffd = new Userfault(fd);
    this.#installer = new PageInstaller(this.#uffd, options.install ?? PLAINLY, this.statistics);
    reactor.add(fd, EPOLL.IN, () => this.#ready());
    if (options.prefetch) this.#prefetch();
  }

  /** Whether some thread may wait for a page whose content has not come. */
  get owes(): boolean {
    return this.#owed > 0 || this.#failed;
  }

  /** What {@linkcode MemoryRegion}s are served, by ascending address. */
  get regions(): readonly PagedRegion[] {
    return this.#regions;
  }

  /** The userfaultfd; closed with the server. */
  get userfault(): Userfault {
    return this.#uffd;
  }

  /** Answers when every page is in place; a backend that fails is asked again and again. */
  complete(): Promise<void> {
    return this.#prefetch().completed;
  }

  #prefetch(): Prefetcher {
    this.#follower.leave();
    return this.#prefetcher ??= new Prefetcher(this.#reactor, this.#regions, {
      atOnce: this.#atOnce,
      pull: (region, from, to, done) => this.#pullAhead(region, from, to, done),
    });
  }

  /**
   * Serves nothing more and leaves the descriptor to its owner: threads go on waiting, instead of
   * reading zeroes.
   */
  release(): void {
    this.#end(undefined);
  }

  /**
   * Serves nothing more and closes the descriptor. Where no other copy of that is open, the kernel
   * lets missing pages read as zeroes from then on: unmap the memory before.
   */
  close(): void {
    this.#end(undefined);
    this.#uffd[Symbol.dispose]();
  }

  /** Nothing can be served any more. The descriptor stays open, so that nobody reads zeroes. */
  #fail(error: Error): void {
    this.#failed = true;
    this.#end(error);
  }

  #end(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#prefetcher?.stop();
    this.#reactor.remove(this.#uffd.fd);
    this.#installer[Symbol.dispose]();
    this.#options.onDetached?.(error);
  }

  #ready(): void {
    const turn = this.#reactor.takesTurns();
    try {
      for (let reads = 0; reads < READS_A_TURN && !this.#closed; reads++) {
        const count = this.#messages.read(this.#uffd.fd);
        if (count === 0) return;
        if (reads === 0) this.#follower.follow(this.#waitingThread(), turn);
        for (let index = 0; index < count && !this.#closed; index++) this.#take(index);
      }
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(`${error}`));
    }
  }

  /** The thread of the first message; 0 where none waits, or it is not told. */
  #waitingThread(): number {
    return this.#messages.event(0) === UFFD_EVENT.PAGEFAULT ? this.#messages.threadId(0) : 0;
  }

  #take(index: number): void {
    const messages = this.#messages;
    switch (messages.event(index)) {
      case UFFD_EVENT.PAGEFAULT:
        if ((messages.flags(index) & UFFD_FAULT.WP) === 0) {
          return this.#fault(messages.address(index));
        }
        this.statistics.writeFaults++;
        return this.#options.onWriteFault?.(messages.address(index));
      case UFFD_EVENT.REMOVE:
      case UFFD_EVENT.UNMAP:
        return this.#drop(messages.start(index), messages.end(index));
    }
  }

  #fault(address: number): void {
    const region = this.#regionAt(address);
    if (region === undefined) return;
    const page = region.pageOf(address);
    this.statistics.faults++;
    if (!region.isTaken(page)) {
      this.#pullAround(region, page);
    } else if (region.isPresent(page)) {
      this.statistics.lateFaults++;
      this.#uffd.wake(region.addressOf(page), region.pageSize);
    } else if (region.isDropped(page)) {
      this.#finish(region, this.#installer.zero(region, page, page + 1));
    } else if (region.isAhead(page)) {
      this.#pull(region, page, page + 1, page);
    }
    this.#prefetcher?.faulted(region, page);
  }

  /** Pulls the window of a fault: at once, or the nearest part urgently and the rest behind it. */
  #pullAround(region: PagedRegion, page: number): void {
    const { window } = region;
    window.next(page);
    const from = region.absentFrom(page, window.from);
    const to = region.absentTo(page, window.to);
    const urgent = Math.max(this.#urgentBytes / region.pageSize, 1);
    if (this.#atOnce || to - from <= urgent) return this.#pull(region, from, to, page);
    const nearFrom = page + 1 === to ? to - urgent : from;
    const nearTo = nearFrom + urgent;
    this.#pull(region, nearFrom, nearTo, page);
    const piece = Math.max(AHEAD_PIECE / region.pageSize, 1);
    for (let at = nearTo; at < to; at += piece) {
      this.#pullAhead(region, at, Math.min(at + piece, to));
    }
    for (let end = nearFrom; end > from; end -= piece) {
      this.#pullAhead(region, Math.max(end - piece, from), end);
    }
  }

  /** Pulls pages, of which a thread waits for `page`, until they are there or it is poisoned. */
  #pull(region: PagedRegion, from: number, to: number, page: number, attempt = 1): void {
    let content: PageContent | Promise<PageContent>;
    try {
      content = this.#read(region, from, to);
    } catch (error) {
      region.beginUrgent(from, to);
      return this.#readFailed(error, (error) => {
        this.#lost(region, from, to, page, error, attempt);
      });
    }
    if (content instanceof Promise) {
      region.beginUrgent(from, to);
      return this.#pullLater(content, region, from, to, page, attempt);
    }
    this.#put(region, from, from, to, content);
    if (attempt > 1) this.#losses.recovered();
  }

  // Apart from #pull, so that a fault that is resolved at once makes no closures.
  #pullLater(
    content: Promise<PageContent>,
    region: PagedRegion,
    from: number,
    to: number,
    page: number,
    attempt: number,
  ): void {
    this.#owed++;
    let isOwed = true;
    const over = () => {
      if (isOwed) this.#owed--;
      isOwed = false;
      if (late !== undefined) this.#reactor.cancelDeadline(late);
    };
    const lost = (error: unknown) => {
      over();
      this.#lost(region, from, to, page, error, attempt);
    };
    const late = this.#poisonLate(lost);
    this.#finishLater(content, region, from, to, lost, () => {
      over();
      if (attempt > 1) this.#losses.recovered();
    });
  }

  /** Lets a read go that takes too long, where that was asked for. */
  #poisonLate(poison: (why: Error) => void): Deadline | undefined {
    const { onLoss, lossMs = LOSS_MS } = this.#options;
    if (onLoss !== "poison" || this.#atOnce) return undefined;
    return this.#later(lossMs, () => {
      poison(new DeadlineError(`The backend did not answer within ${lossMs} ms`));
    });
  }

  /** Pulls pages that nobody waits for; `done` tells whether that went well. */
  #pullAhead(
    region: PagedRegion,
    from: number,
    to: number,
    done?: (well: boolean) => void,
  ): void {
    region.beginAhead(from, to);
    this.statistics.prefetchedBytes += (to - from) * region.pageSize;
    const fail = (error: unknown) => {
      this.#losses.failed(region.offset + from * region.pageSize, error);
      // A fault among these pages pulls by itself: its pages are urgent, and stay so.
      region.giveUpAhead(from, to);
      done?.(false);
    };
    let content: PageContent | Promise<PageContent>;
    try {
      content = this.#read(region, from, to);
    } catch (error) {
      return this.#readFailed(error, fail);
    }
    const well = () => done?.(true);
    if (content instanceof Promise) {
      return this.#finishLater(content, region, from, to, fail, well);
    }
    this.#put(region, from, from, to, content);
    well();
  }

  /** Begins to read pages. Throws, or rejects with, what the backend does. */
  #read(region: PagedRegion, from: number, to: number): PageContent | Promise<PageContent> {
    this.statistics.readBytes += (to - from) * region.pageSize;
    return this.#reader.read(region, from, to);
  }

  #readFailed(error: unknown, failed: (error: unknown) => void): void {
    this.statistics.failedReads++;
    if (!this.#closed) failed(error);
  }

  #finishLater(
    content: Promise<PageContent>,
    region: PagedRegion,
    from: number,
    to: number,
    failed: (error: unknown) => void,
    done: () => void,
  ): void {
    this.#reactor.beginAsync();
    content.then((content) => {
      if (this.#closed) this.#reader.release(content);
      else this.#put(region, from, from, to, content);
      done();
    }, (error) => this.#readFailed(error, failed)).finally(() => this.#reactor.endAsync());
  }

  /** Puts pages `[from, to)` in place, of a content that begins with that of page `first`. */
  #put(
    region: PagedRegion,
    first: number,
    from: number,
    to: number,
    content: PageContent,
  ): void {
    const installed = this.#installer.install(region, first, from, to, content);
    if (installed.outcome === "changing") {
      // What a backend lends lies elsewhere after its next answer.
      const kept = { ...content };
      const next = installed.from;
      return void this.#later(CHANGING_MS, () => this.#put(region, first, next, to, kept));
    }
    this.#reader.release(content);
    this.#finish(region, installed);
  }

  /** Deals with what kept pages from being put in place. */
  #finish(region: PagedRegion, { outcome, from, to, error }: Installed): void {
    switch (outcome) {
      case "done":
        return;
      case "changing":
        return void this.#later(
          CHANGING_MS,
          () => this.#finish(region, this.#installer.zero(region, from, to)),
        );
      case "full":
        return this.#lost(region, from, to, from, error, 1);
      case "failed":
        return this.#fail(error!);
    }
  }

  /** Pages that a thread waits for cannot be had now. */
  #lost(
    region: PagedRegion,
    from: number,
    to: number,
    page: number,
    error: unknown,
    attempt: number,
  ): void {
    this.#losses.failed(region.offset + page * region.pageSize, error);
    if (this.#options.onLoss === "poison") return this.#poison(region, from, to, page);
    this.#owed++;
    this.#later(Math.min(RETRY_MS * 2 ** (attempt - 1), RETRY_MS_MAX), () => {
      this.#owed--;
      this.#pull(region, from, to, page, attempt + 1);
    });
  }

  /** Who touches `page` gets SIGBUS, now and later; who waits for others of the run asks again. */
  #poison(region: PagedRegion, from: number, to: number, page: number): void {
    if (region.isPresent(page)) return;
    const result = this.#uffd.poison(region.addressOf(page), region.pageSize);
    if (fillOutcome(result, region.pageSize) === "changing") {
      return void this.#later(CHANGING_MS, () => this.#poison(region, from, to, page));
    }
    // Any other failure means that the page is there by now, or gone.
    if (result < 0) region.settle(page, page + 1);
    else region.poison(page);
    region.giveUpUrgent(from, to);
    this.#uffd.wake(region.addressOf(from), (to - from) * region.pageSize);
  }

  /** Pages were dropped by their process: whoever reads them expects zeroes. */
  #drop(start: number, end: number): void {
    for (const region of this.#regions) {
      const from = Math.max(start, region.address),
        to = Math.min(end, region.address + region.size);
      if (from < to) region.drop(region.pageOf(from), region.pageOf(to - 1) + 1);
    }
  }

  #later(milliseconds: number, action: () => void): Deadline {
    return this.#reactor.addDeadline(performance.now() + milliseconds, () => {
      if (!this.#closed) action();
    });
  }

  #regionAt(address: number): PagedRegion | undefined {
    const regions = this.#regions;
    let low = 0, high = regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (regions[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    const region = regions[low - 1];
    return region !== undefined && address < region.address + region.size ? region : undefined;
  }
}
