/**
 * What leads to a host Worker, wherever that runs: sends commands, settles them by the answers, and
 * tells of what happens there.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";
import { ClosedError } from "../backend/errors.ts";
import type { UserfaultClientEvent } from "../userfault/listener.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import type { HostAnswer, HostCommand, HostMessage, ProgramRequest } from "./protocol.ts";
import { unpackError } from "./remote_error.ts";

/** A command as a caller gives it. */
export type Unnumbered<T> = T extends unknown ? Omit<T, "id"> : never;

/** See the module. */
export abstract class HostLink {
  /** Called when nothing is served on a descriptor any more, with the error if one ended it. */
  onDetached: (fd: number, error: Error | undefined) => void = () => {};
  /** Called when bytes `[from, to)` came to the cache of a managed backend. */
  onLocal: (from: number, to: number) => void = () => {};
  /** Called when something happens to a client of a listening socket. */
  onClient: (fd: number, event: UserfaultClientEvent) => void = () => {};
  /** Called with a line for people about a client that is dialled. */
  onOutward: (outward: number, line: string) => void = () => {};
  /** Called when a seeder wants the program to do something. */
  onAsk: (ask: number, what: ProgramRequest, rate?: number) => void = () => {};
  /** Called when the handover of a seeded region goes on. */
  onSeeder: (stage: SeederStage) => void = () => {};
  /** Called once when the link is over. */
  onEnd: (error: Error) => void = () => {};
  /** Where backends of this isolate answer the Worker. */
  readonly exposed: MessagePort[] = [];
  readonly #pending = new Map<number, PromiseWithResolvers<HostAnswer>>();
  #nextId = 1;
  #ended = false;

  /** Whether the link is over. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Has the Worker do something. Throws what that throws there. */
  call(command: Unnumbered<HostCommand>, transfer: Transferable[] = []): Promise<HostAnswer> {
    if (this.#ended) throw new ClosedError("Cannot use a backend whose Worker has ended");
    const id = this.#nextId++;
    const pending = Promise.withResolvers<HostAnswer>();
    this.#pending.set(id, pending);
    this.post({ ...command, id }, transfer);
    return pending.promise;
  }

  /** Ends the Worker, whatever it does; answers when nothing is left of it. */
  abstract terminate(): Awaitable<void>;

  /** Sends a command. */
  protected abstract post(command: HostCommand, transfer: Transferable[]): void;

  /** Takes what came from the Worker. */
  protected receive(message: HostMessage): void {
    if ("event" in message) return this.#tell(message);
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if ("error" in message) pending?.reject(unpackError(message.error));
    else pending?.resolve(message);
  }

  #tell(message: Extract<HostMessage, { event: string }>): void {
    switch (message.event) {
      case "local":
        return this.onLocal(message.from, message.to);
      case "client":
        return this.onClient(message.fd, message.client);
      case "outward":
        return this.onOutward(message.outward, message.line);
      case "ask":
        return this.onAsk(message.ask, message.what, message.rate);
      case "seeder":
        return this.onSeeder(message.stage);
      case "detached": {
        const error = message.error === undefined ? undefined : unpackError(message.error);
        return this.onDetached(message.fd, error);
      }
    }
  }

  /** The link is over: whoever waits for an answer gets the error. Answers whether it was not before. */
  protected end(error: Error): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    for (const port of this.exposed) port.close();
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    this.onEnd(error);
    return true;
  }
}
