/**
 * The loop of a Worker that serves file descriptors: waits by epoll, calls who registered.
 *
 * While nothing asynchronous is in flight, and the reactor may block, it waits inside epoll_wait on
 * its own thread: no promise, no thread hop. Otherwise the wait runs on another thread, and the
 * isolate's event loop goes on (promises, timers, messages, sockets of Deno). In between there are
 * isolates that are at rest but for timers and the like: after an event, what comes next is waited
 * for here some milliseconds, and on another thread from then on.
 *
 * Waking a sleeping thread costs tens of microseconds on virtual machines. So after each event the
 * reactor polls for a moment before it sleeps, as long as polling keeps paying; an idle reactor
 * sleeps and uses no CPU. Between polls it lets others have its core: whom an answer woke up is often
 * there, and would wait for the polling to end.
 *
 * A thread on this core that goes on once it is answered would wait for the polling to end, so that
 * the scheduler takes it to another core, where each of the two has to wake the other up again and
 * again. So whoever answers such a thread asks for none.
 *
 * A peer that has not read what it was sent gains nothing by the next answer, but the more often it
 * is disturbed, the slower it is: each look of ours at a socket takes locks and cache lines from it.
 * So where all who have something new are behind, the reactor lets it gather for a moment.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { EPOLL, Epoll, EventFd } from "../../ffi/epoll.ts";
import { yieldCore } from "../../ffi/process.ts";

/** Called when a descriptor is ready, with the {@linkcode EPOLL} events that are. */
export type ReadyHandler = (events: number) => void;

/** A moment at which a handler is called once, unless it is cancelled. */
export interface Deadline {
  /** As `performance.now()` counts, in ms. */
  at: number;
  /** What to do then. */
  expire: () => void;
}

/** How a {@linkcode Reactor} waits. */
export interface ReactorOptions {
  /** As {@linkcode Reactor.blocking}; false unless told. */
  blocking?: boolean;
}

/** Polls that follow a short sleep: about 60 microseconds' worth of system calls. */
const POLLS_MAX = 256;
/** Turns of the event loop, two microseconds each, that follow a short sleep. */
const TURNS_MAX = 64;
/** Polls after which others that wait for this core have their turn: two microseconds' worth. */
const POLLS_A_YIELD = 8;
/** Others that take the core for more ms than this need it, and polling would hold them up. */
const QUICK_MS = 0.2;
/** An isolate at rest is held up for at most so many ms in a row. */
const HELD_UP_MOST_MS = 10;
/** A sleep below this many ms would have been cheaper as polling. */
const SHORT_SLEEP_MS = 0.2;
/** How long requests of those gather that are behind: less than a peer needs for four answers. */
const GATHER_MS = 0.02;
/** Rounds of the loop without a look at the isolate's event loop. */
const ROUNDS_BEFORE_YIELD = 4096;

/** See the module. */
export class Reactor implements Disposable {
  /**
   * Whether it may hold up its isolate while nothing is in flight. False where something works in
   * the background of the isolate without having told {@linkcode Reactor.beginAsync}.
   */
  blocking: boolean;
  /**
   * Where it may not hold its isolate up for long: whether nobody there minds some milliseconds now,
   * while nothing is in flight. Asked before each wait; nobody is at rest unless told.
   */
  atRest: () => boolean = () => false;
  readonly #epoll = new Epoll();
  readonly #wake: EventFd;
  readonly #handlers: (ReadyHandler | undefined)[] = [];
  readonly #deadlines = new Set<Deadline>();
  #inFlight = 0;
  #messages = 0;
  #polls = 0;
  #unhurried = 0;
  #takesTurns = false;
  #slept = 0;
  #turns = 0;
  /** When the wait on another thread ends by itself, as `performance.now()` counts. */
  #asleepUntil = -Infinity;
  /** Until when an isolate at rest may be held up, likewise. */
  #heldUpUntil = -Infinity;
  #stopped = false;

  /** Makes a reactor that another isolate can wake through `wake`. */
  constructor(wake: EventFd, options: ReactorOptions = {}) {
    this.#wake = wake;
    this.blocking = options.blocking ?? false;
    this.#epoll.add(wake.fd, EPOLL.IN);
  }

  /** Calls `handler` whenever the descriptor has one of `events` (level-triggered). */
  add(fd: number, events: number, handler: ReadyHandler): void {
    this.#epoll.add(fd, events);
    this.#handlers[fd] = handler;
  }

  /** Waits for other events of the descriptor than before. */
  modify(fd: number, events: number): void {
    this.#epoll.modify(fd, events);
  }

  /** Forgets the descriptor; call it before closing that. */
  remove(fd: number): void {
    this.#epoll.remove(fd);
    this.#handlers[fd] = undefined;
  }

  /** Calls `expire` once at a moment (ms of `performance.now()`), unless cancelled before. */
  addDeadline(at: number, expire: () => void): Deadline {
    const deadline = { at, expire };
    this.#deadlines.add(deadline);
    if (at < this.#asleepUntil) {
      this.#asleepUntil = -Infinity;
      // No message follows this signal.
      this.#messages--;
      this.#wake.signal();
    }
    return deadline;
  }

  /** Takes a deadline back; one that passed or was cancelled is no matter. */
  cancelDeadline(deadline: Deadline): void {
    this.#deadlines.delete(deadline);
  }

  /** Says that an asynchronous operation began: the event loop must run until {@linkcode endAsync}. */
  beginAsync(): void {
    this.#inFlight++;
  }

  /** Says that an operation that {@linkcode beginAsync} counted is over. */
  endAsync(): void {
    this.#inFlight--;
  }

  /** Called by a handler: whom it served will be busy for a while with what it was sent before. */
  unhurried(): void {
    this.#unhurried++;
  }

  /**
   * Called by a handler: whom it answers goes on on this core, as soon as this thread waits. Answers
   * how long the wait was before, in ms: it takes its time to wake somebody up on another core.
   */
  takesTurns(): number {
    this.#takesTurns = true;
    return this.#slept;
  }

  /**
   * Says that a message arrived which a signal of `wake` announced: the event loop runs from the
   * signal until then.
   */
  messageArrived(): void {
    this.#messages--;
  }

  /** Makes {@linkcode run} return after the present turn. */
  stop(): void {
    this.#stopped = true;
    this.#wake.signal();
  }

  /** Serves until {@linkcode stop}. */
  async run(): Promise<void> {
    let rounds = 0;
    while (!this.#stopped) {
      const count = this.#mayBlock()
        ? this.#waitHere(Infinity)
        : this.#mayHoldUp()
        ? this.#waitHere(this.#heldUpUntil)
        : await this.#waitElsewhere();
      this.#unhurried = 0;
      this.#takesTurns = false;
      this.#dispatch(count);
      this.#expire();
      if (this.#unhurried > 0 && this.#unhurried === count && this.#mayBlock()) gather();
      if (++rounds === ROUNDS_BEFORE_YIELD) {
        rounds = 0;
        await eventLoopTurn();
      }
    }
  }

  /** Closes the epoll instance; descriptors that were added stay open. */
  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }

  /** Waits until the moment `end` at most. */
  #waitHere(end: number): number {
    const polls = this.#takesTurns ? 0 : this.#polls;
    for (let poll = 1; poll <= polls; poll++) {
      const count = this.#epoll.wait(0);
      if (count > 0) {
        this.#polls = POLLS_MAX;
        return count;
      }
      if (poll % POLLS_A_YIELD === 0 && !othersAreQuick()) break;
    }
    this.#polls = 0;
    const asleep = performance.now();
    const count = this.#epoll.wait(this.#timeout(end));
    this.#slept = performance.now() - asleep;
    if (this.#slept < SHORT_SLEEP_MS) this.#polls = POLLS_MAX;
    return count;
  }

  async #waitElsewhere(): Promise<number> {
    const count = await this.#waitAside();
    // The event loop has just turned.
    if (count > 0) this.#heldUpUntil = performance.now() + HELD_UP_MOST_MS;
    return count;
  }

  async #waitAside(): Promise<number> {
    for (let turn = 0; turn <= this.#turns; turn++) {
      const count = this.#epoll.wait(0);
      await eventLoopTurn();
      if (count > 0) {
        this.#turns = TURNS_MAX;
        return count;
      }
      if (this.#mayBlock()) return 0;
      if (!othersAreQuick()) break;
    }
    this.#turns = 0;
    const asleep = performance.now(), timeout = this.#timeout();
    this.#asleepUntil = timeout < 0 ? Infinity : asleep + timeout;
    const count = await this.#epoll.waitAsync(timeout);
    this.#asleepUntil = -Infinity;
    if (performance.now() - asleep < SHORT_SLEEP_MS) this.#turns = TURNS_MAX;
    // What was delivered in the same turn as this wake-up may still have promises to settle: they
    // come before this thread may block.
    await eventLoopTurn();
    return count;
  }

  #mayBlock(): boolean {
    return this.blocking && this.#inFlight === 0 && this.#messages === 0;
  }

  #mayHoldUp(): boolean {
    return this.#inFlight === 0 && this.#messages === 0 &&
      performance.now() < this.#heldUpUntil && this.atRest();
  }

  /** Milliseconds until the next deadline, or until `end` where that comes before; -1 for ever. */
  #timeout(end = Infinity): number {
    const at = Math.min(this.#nextDeadline()?.at ?? Infinity, end);
    if (at === Infinity) return -1;
    return Math.min(Math.max(Math.ceil(at - performance.now()), 0), 0x7fff_ffff);
  }

  #dispatch(count: number): void {
    for (let index = 0; index < count; index++) {
      const fd = this.#epoll.fd(index);
      if (fd === this.#wake.fd) {
        this.#messages += this.#wake.drain();
      } else {
        // A handler that ran before may have removed this one.
        this.#handlers[fd]?.(this.#epoll.events(index));
      }
    }
  }

  /** Calls the deadlines that passed, the earliest first: each may cancel later ones. */
  #expire(): void {
    if (this.#deadlines.size === 0) return;
    const now = performance.now();
    for (;;) {
      const next = this.#nextDeadline();
      if (next === undefined || next.at > now) return;
      this.#deadlines.delete(next);
      next.expire();
    }
  }

  /** The earliest deadline; of several at one moment the one that was set first. */
  #nextDeadline(): Deadline | undefined {
    let next: Deadline | undefined;
    for (const deadline of this.#deadlines) {
      if (next === undefined || deadline.at < next.at) next = deadline;
    }
    return next;
  }
}

/** Lets whoever waits for this core go first; answers whether it was soon free again. */
function othersAreQuick(): boolean {
  const start = performance.now();
  yieldCore();
  return performance.now() - start < QUICK_MS;
}

/** Lets requests come, for a moment. */
function gather(): void {
  const end = performance.now() + GATHER_MS;
  yieldCore();
  while (performance.now() < end);
}

/** Lets the isolate's event loop deliver what came: messages, sockets, timers. */
function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
