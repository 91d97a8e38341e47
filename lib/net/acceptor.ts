/**
 * Takes the connections of one listening socket, in a reactor.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, setNonblocking } from "../../ffi/file.ts";
import { accept } from "../../ffi/socket.ts";
import type { Deadline, Reactor } from "./reactor.ts";

/** How long to leave a full backlog alone when no descriptor is free for a connection. */
const RETRY_MS = 100;

/** See the module. */
export class Acceptor {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #welcome: (fd: number) => void;
  #retry: Deadline | undefined;

  /** Begins to accept; the socket is closed with this. `welcome` takes each connection over. */
  constructor(reactor: Reactor, fd: number, welcome: (fd: number) => void) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#welcome = welcome;
    setNonblocking(fd);
    reactor.add(fd, EPOLL.IN, () => this.#accept());
  }

  /** Accepts no more. */
  close(): void {
    if (this.#retry === undefined) this.#reactor.remove(this.#fd);
    else this.#reactor.cancelDeadline(this.#retry);
    close(this.#fd);
  }

  #accept(): void {
    while (true) {
      const fd = accept(this.#fd);
      if (fd >= 0) this.#welcome(fd);
      else if (errno() === ERRNO.EAGAIN) return;
      else if (errno() !== ERRNO.ECONNABORTED && errno() !== ERRNO.EINTR) return this.#pause();
    }
  }

  /** Descriptors or memory ran out: trying on would spin. */
  #pause(): void {
    this.#reactor.remove(this.#fd);
    this.#retry = this.#reactor.addDeadline(performance.now() + RETRY_MS, () => {
      this.#retry = undefined;
      this.#reactor.add(this.#fd, EPOLL.IN, () => this.#accept());
    });
  }
}
