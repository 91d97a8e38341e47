/**
 * The signals that ask a running command to end in good order.
 *
 * @module
 */

const SIGNALS: readonly Deno.Signal[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Listens for SIGINT, SIGTERM and SIGHUP from its making on. After the first one it listens no
 * more, so that a second one ends the process at once.
 */
export class StopSignals implements Disposable {
  /** Answers with the first signal. */
  readonly received: Promise<Deno.Signal>;
  /** Aborts at the first signal. */
  readonly signal: AbortSignal;
  readonly #handlers: [Deno.Signal, () => void][];

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Deno.Signal>();
    const controller = new AbortController();
    this.received = promise;
    this.signal = controller.signal;
    this.#handlers = SIGNALS.map((name) => [name, () => {
      this[Symbol.dispose]();
      resolve(name);
      controller.abort(new Error(`Stopped by ${name}`));
    }]);
    for (const [name, handler] of this.#handlers) Deno.addSignalListener(name, handler);
  }

  /** Listens no more. */
  [Symbol.dispose](): void {
    for (const [name, handler] of this.#handlers.splice(0)) {
      Deno.removeSignalListener(name, handler);
    }
  }
}
