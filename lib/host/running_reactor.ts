/**
 * A reactor that runs, until it is stopped.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { Reactor } from "../net/reactor.ts";

/** See the module. */
export class RunningReactor {
  /** It. */
  readonly reactor: Reactor;
  readonly #over: Promise<void>;

  /** Begins; the descriptor is signalled for others to be seen. */
  constructor(wakeFd: number) {
    this.reactor = new Reactor(new EventFd(wakeFd));
    this.#over = this.reactor.run();
  }

  /**
   * Answers when the reactor waits no more. Only then may whoever made the Worker close its wake
   * descriptor, which a thread could wait for and this isolate could signal.
   */
  async stop(): Promise<void> {
    this.reactor.stop();
    await this.#over;
    this.reactor[Symbol.dispose]();
  }
}
