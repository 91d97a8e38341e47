/**
 * One part of the group that a host has, as a mount of its own sees it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import type { GroupPart } from "../migration/group_head.ts";
import type { BackendHost, ServedMemory } from "./host.ts";
import type { BackendFacts, FuseOptions, MemoryOptions } from "./protocol.ts";

/** What a device and a mount need of the host of a region. */
export type DeviceHost = Pick<
  BackendHost,
  "facts" | "serveNbd" | "serveFuse" | "serveMemory" | "startAnother" | "flush" | "close"
>;

/** See the module. */
export class HostedPart implements DeviceHost {
  readonly facts: BackendFacts;
  readonly #host: BackendHost;
  readonly #name: string;
  readonly #onClose: () => Promise<void>;

  /** Shows what the host has there, until it is closed: then whoever has the group is told. */
  constructor(host: BackendHost, { name, size }: GroupPart, onClose: () => Promise<void>) {
    const { blockSize, durable, readOnly } = host.facts;
    this.facts = { size, blockSize, durable, readOnly };
    this.#host = host;
    this.#name = name;
    this.#onClose = onClose;
  }

  serveNbd(fd: number, flags: number, onDetached: () => void): Promise<void> {
    return this.#host.serveNbd(fd, flags, onDetached, this.#name);
  }

  serveFuse(
    fd: number,
    options: FuseOptions,
    onDetached: (error: Error | undefined) => void,
  ): Promise<void> {
    return this.#host.serveFuse(fd, options, onDetached, this.#name);
  }

  serveMemory(
    fd: number,
    options: MemoryOptions,
    onDetached: (error: Error | undefined) => void,
  ): Promise<ServedMemory> {
    return this.#host.serveMemory(fd, options, onDetached, this.#name);
  }

  startAnother(): Promise<BackendHost> {
    throw new UsageError("Cannot open a part of a group in several Workers", {
      hint: "leave out handlers",
    });
  }

  flush(): Promise<void> {
    return this.#host.flush();
  }

  close(): Promise<void> {
    return this.#onClose();
  }
}
