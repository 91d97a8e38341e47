/**
 * Bytes between two sockets, in order, in as many pipes as they need: one is short beside a network.
 *
 * @module
 */
import { ERRNO, errno } from "../ffi/errno.ts";
import { Pipe } from "./relay_calls.ts";

/** What a pipe holds at least, of single bytes. */
const LEAST = 16;

/** See the module. */
export class PipeLine implements Disposable {
  /** The first is given from, the last is filled. */
  #pipes: Pipe[] = [new Pipe()];
  /** Empty ones that were used. */
  readonly #spare: Pipe[] = [];

  /** Takes up to so many bytes out of a socket: how many, 0 at its end, or -1 with errno set. */
  fill(socket: number, most: number): number {
    const last = this.#pipes.at(-1)!, count = last.fill(socket, most);
    if (count >= 0 || errno() !== ERRNO.EAGAIN || last.held < LEAST) return count;
    const next = this.#spare.pop() ?? new Pipe(), more = next.fill(socket, most);
    if (more > 0) this.#pipes.push(next);
    else this.#spare.push(next);
    return more;
  }

  /** Puts so many of its bytes into a socket: how many went, or -1 with errno set where none did. */
  drain(socket: number, count: number): number {
    for (let given = 0;;) {
      const first = this.#pipes[0]!, part = Math.min(count - given, first.held);
      const done = first.drain(socket, part);
      if (done < 0) return given > 0 ? given : done;
      given += done;
      if (first.held === 0 && this.#pipes.length > 1) this.#spare.push(this.#pipes.shift()!);
      if (given === count || done < part) return given;
    }
  }

  /** Closes all of it. */
  [Symbol.dispose](): void {
    for (const pipe of [...this.#pipes, ...this.#spare]) pipe[Symbol.dispose]();
  }
}
