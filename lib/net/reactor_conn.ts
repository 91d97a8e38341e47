/**
 * A connection whose readiness comes from a reactor: what a Worker that serves descriptors uses to
 * reach a remote backend, so that one wait covers both sides. The runtime's own sockets are looked
 * at only when its event loop has nothing else to do, which costs a busy Worker a lot of time.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno, SystemError } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import {
  connectTcp,
  connectUnix,
  isReadable,
  recv,
  send,
  setKeepAlive,
  setNoDelay,
  setSendBuffer,
  takeError,
} from "../../ffi/socket.ts";
import { ConnectionError } from "../backend/errors.ts";
import type { Reactor } from "./reactor.ts";

/** The part of a `Deno.Conn` that protocols use. */
export type ByteConn = Pick<Deno.Conn, "read" | "write" | "close"> & Disposable;

/** The kernel's default for Unix sockets, 208 KiB, cuts a large request into many writes. */
const SEND_BUFFER = 4 << 20;

/** Calls that may succeed at once in a row before the event loop has a turn. */
const CALLS_WITHOUT_WAIT = 32;

/** See the module. One read and one write at a time. */
export class ReactorConn implements ByteConn {
  readonly #reactor: Reactor;
  readonly #fd: number;
  #readable: PromiseWithResolvers<void> | undefined;
  #writable: PromiseWithResolvers<void> | undefined;
  #watch: PromiseWithResolvers<void> | undefined;
  #withoutWait = 0;
  #closed = false;

  /** Connects to a Unix socket. Throws `SystemError` (ENOENT, ECONNREFUSED, EACCES, …). */
  static connectUnix(reactor: Reactor, path: string): ReactorConn {
    const conn = new ReactorConn(reactor, connectUnix(path));
    setSendBuffer(conn.#fd, SEND_BUFFER);
    return conn;
  }

  /** Connects to a numeric address. Throws `SystemError` (ECONNREFUSED, EHOSTUNREACH, …). */
  static async connectTcp(
    reactor: Reactor,
    host: string,
    port: number,
    signal: AbortSignal,
  ): Promise<ReactorConn> {
    const conn = new ReactorConn(reactor, connectTcp(host, port));
    const abort = () => conn.close();
    signal.addEventListener("abort", abort);
    try {
      await conn.#untilConnected(`${host} port ${port}`);
      setNoDelay(conn.#fd);
      setKeepAlive(conn.#fd);
      return conn;
    } catch (error) {
      conn.close();
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Takes a connection over that was accepted. */
  static accepted(reactor: Reactor, fd: number): ReactorConn {
    setNoDelay(fd);
    setKeepAlive(fd);
    setSendBuffer(fd, SEND_BUFFER);
    return new ReactorConn(reactor, fd);
  }

  private constructor(reactor: Reactor, fd: number) {
    this.#reactor = reactor;
    this.#fd = fd;
    // Edge-triggered: who reads or writes tries first, and waits only after EAGAIN.
    reactor.add(fd, EPOLL.IN | EPOLL.OUT | EPOLL.ET, (events) => this.#ready(events));
  }

  /**
   * Answers when there is something to read, be it the end or an error, or when it is closed. A
   * `read` that comes in between has the connection for itself.
   */
  async readable(): Promise<void> {
    // An event may be about bytes that were read before it was looked at.
    while (!this.#closed && !isReadable(this.#fd)) {
      const watch = this.#watch = Promise.withResolvers();
      await watch.promise;
      if (this.#watch !== watch) return;
    }
  }

  /** Reads what is there; waits while there is nothing. Null at the end of the stream. */
  async read(buffer: Uint8Array): Promise<number | null> {
    this.#watch = undefined;
    while (true) {
      if (++this.#withoutWait === CALLS_WITHOUT_WAIT) await this.#letOthersRun();
      this.#checkOpen();
      const count = recv(this.#fd, buffer);
      if (count > 0) return count;
      if (count === 0) return buffer.length === 0 ? 0 : null;
      if (!mayTryAgain("read")) continue;
      this.#readable = Promise.withResolvers();
      await this.#readable.promise;
    }
  }

  /** Writes what the peer's buffer takes, and answers how much; waits while it is full. */
  async write(buffer: Uint8Array): Promise<number> {
    while (true) {
      if (++this.#withoutWait === CALLS_WITHOUT_WAIT) await this.#letOthersRun();
      this.#checkOpen();
      const count = send(this.#fd, buffer);
      if (count >= 0) return count;
      if (!mayTryAgain("write")) continue;
      this.#writable = Promise.withResolvers();
      await this.#writable.promise;
    }
  }

  /** Closes; who reads or writes gets a {@linkcode ConnectionError}. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.remove(this.#fd);
    close(this.#fd);
    this.#ready(EPOLL.IN | EPOLL.OUT);
  }

  /** As {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #untilConnected(subject: string): Promise<void> {
    this.#writable = Promise.withResolvers();
    await this.#writable.promise;
    this.#checkOpen();
    const failed = takeError(this.#fd);
    if (failed !== 0) throw new SystemError({ syscall: "connect", errno: failed, subject });
  }

  /** A peer that always has data would keep timers and other connections waiting. */
  #letOthersRun(): Promise<void> {
    this.#withoutWait = 0;
    return new Promise((resolve) => setImmediate(resolve));
  }

  #ready(events: number): void {
    const failed = (events & (EPOLL.ERR | EPOLL.HUP)) !== 0;
    if (failed || (events & EPOLL.IN) !== 0) {
      this.#readable?.resolve();
      this.#watch?.resolve();
    }
    if (failed || (events & EPOLL.OUT) !== 0) this.#writable?.resolve();
  }

  #checkOpen(): void {
    if (this.#closed) throw new ConnectionError("The connection was closed");
  }
}

/** Whether a call failed for now only and is to wait; false for a signal. Throws what is final. */
function mayTryAgain(syscall: string): boolean {
  const number = errno();
  if (number === ERRNO.EAGAIN) return true;
  if (number === ERRNO.EINTR) return false;
  throw new SystemError({ syscall, errno: number, subject: "a connection" });
}
