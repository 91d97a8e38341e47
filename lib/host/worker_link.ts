/**
 * A host Worker in this process.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { ClosedError } from "../backend/errors.ts";
import { HostLink } from "./host_link.ts";
import type { HostCommand, HostMessage } from "./protocol.ts";

/** See the module. */
export class WorkerLink extends HostLink {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  readonly #wake = new EventFd();

  /** Starts it. */
  constructor() {
    super();
    this.#worker.onmessage = ({ data }: MessageEvent<HostMessage>) => this.receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      // Its reactor may wait on another thread: that ends, and leaves the descriptor open.
      if (!this.ended) this.#wake.signal();
      this.#end(new ClosedError(`The Worker of a backend failed: ${event.message}`), false);
    };
  }

  /** As {@linkcode HostLink.terminate}. */
  override terminate(): void {
    this.#end(new ClosedError("The backend was closed"), true);
  }

  protected override post(command: HostCommand, transfer: Transferable[]): void {
    if (command.command === "open") {
      return this.#worker.postMessage({ ...command, wakeFd: this.#wake.fd }, transfer);
    }
    this.#worker.postMessage(command, transfer);
    this.#wake.signal();
  }

  #end(error: Error, closeWake: boolean): void {
    if (this.ended) return;
    this.#worker.terminate();
    if (closeWake) this.#wake[Symbol.dispose]();
    this.end(error);
  }
}
