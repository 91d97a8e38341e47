/**
 * sys/epoll.h and sys/eventfd.h: readiness of many descriptors, and a wake-up from another thread.
 *
 * @module
 */
import { checked, ERRNO, errno, throwErrno } from "./errno.ts";
import { close } from "./file.ts";
import { libc, perArch } from "./libc.ts";

/** Events of epoll(7). */
export const EPOLL = {
  IN: 0x1,
  OUT: 0x4,
  ERR: 0x8,
  HUP: 0x10,
  RDHUP: 0x2000,
  /** Edge-triggered: an event comes once, until the descriptor was found not ready again. */
  ET: 0x8000_0000,
} as const;

const CTL = { ADD: 1, DEL: 2, MOD: 3 } as const;
// struct epoll_event is packed on x86_64 and naturally aligned elsewhere.
const EVENT_SIZE = perArch({ x86_64: 12, aarch64: 16 });
const EVENT_DATA = perArch({ x86_64: 4, aarch64: 8 });
const EPOLL_CLOEXEC = 0o2000000;
const EFD_FLAGS = 0o2000000 | 0o4000; // EFD_CLOEXEC | EFD_NONBLOCK

const symbols = libc({
  // int epoll_create1(int flags)
  epoll_create1: { parameters: ["i32"], result: "i32" },
  // int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout)
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  epoll_waitAsync: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // int eventfd(unsigned int initval, int flags)
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // int eventfd_write(int fd, eventfd_t value)
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
  // int eventfd_read(int fd, eventfd_t *value)
  eventfd_read: { parameters: ["i32", "buffer"], result: "i32" },
});

/** An epoll instance; after a wait, `fd(i)` and `events(i)` tell what is ready. */
export class Epoll implements Disposable {
  readonly #fd: number;
  readonly #event = new DataView(new ArrayBuffer(128));
  readonly #ready: DataView<ArrayBuffer>;
  readonly #readyBytes: Uint8Array<ArrayBuffer>;
  readonly #maxEvents: number;

  /** Opens an instance that answers with up to `maxEvents` a wait. */
  constructor(maxEvents = 64) {
    this.#fd = checked(symbols().epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    this.#maxEvents = maxEvents;
    this.#readyBytes = new Uint8Array(Math.max(maxEvents * EVENT_SIZE, 128));
    this.#ready = new DataView(this.#readyBytes.buffer);
  }

  /** Watches a descriptor for {@linkcode EPOLL} events. */
  add(fd: number, events: number): void {
    this.#control(CTL.ADD, fd, events);
  }

  /** Watches it for other events than before. */
  modify(fd: number, events: number): void {
    this.#control(CTL.MOD, fd, events);
  }

  /** Watches it no longer. Call it before the descriptor is closed. */
  remove(fd: number): void {
    this.#control(CTL.DEL, fd, 0);
  }

  /** Waits on this thread: the number of ready descriptors; `timeout` in ms, -1 for ever. */
  wait(timeout: number): number {
    const count = symbols().epoll_wait(this.#fd, this.#readyBytes, this.#maxEvents, timeout);
    if (count >= 0) return count;
    if (errno() === ERRNO.EINTR) return 0;
    throwErrno("epoll_wait");
  }

  /** Waits on another thread while this isolate's event loop runs. One such wait at a time. */
  async waitAsync(timeout: number): Promise<number> {
    const count = await symbols().epoll_waitAsync(
      this.#fd,
      this.#readyBytes,
      this.#maxEvents,
      timeout,
    );
    return Math.max(count, 0);
  }

  /** The descriptor of ready entry `index`. */
  fd(index: number): number {
    return this.#ready.getInt32(index * EVENT_SIZE + EVENT_DATA, true);
  }

  /** The events of ready entry `index`. */
  events(index: number): number {
    return this.#ready.getUint32(index * EVENT_SIZE, true);
  }

  /** Closes the instance. */
  [Symbol.dispose](): void {
    close(this.#fd);
  }

  #control(operation: number, fd: number, events: number): void {
    this.#event.setUint32(0, events, true);
    this.#event.setInt32(EVENT_DATA, fd, true);
    const result = symbols().epoll_ctl(this.#fd, operation, fd, this.#event);
    checked(result, "epoll_ctl", `descriptor ${fd}`);
  }
}

/** An event counter that one thread adds to and another waits on by epoll. */
export class EventFd implements Disposable {
  /** The descriptor; the same in every isolate of the process. */
  readonly fd: number;
  readonly #value = new BigUint64Array(16);

  /** Makes one, or wraps the descriptor that another isolate made. */
  constructor(fd?: number) {
    this.fd = fd ?? checked(symbols().eventfd(0, EFD_FLAGS), "eventfd");
  }

  /** Wakes who waits. */
  signal(): void {
    checked(symbols().eventfd_write(this.fd, 1n), "eventfd_write", `descriptor ${this.fd}`);
  }

  /** Takes the signals that came, and answers how many. */
  drain(): number {
    return symbols().eventfd_read(this.fd, this.#value) === 0 ? Number(this.#value[0]) : 0;
  }

  /** Closes the descriptor. */
  [Symbol.dispose](): void {
    close(this.fd);
  }
}
