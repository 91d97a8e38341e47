/**
 * A remote whose server or host crashes and is started again, as a mount sees it over connections:
 * calls fail while it is away, or are sent again when it is back, and a flush says once that what was
 * acknowledged before may be lost.
 *
 * @module
 */
import { type Awaitable, type Backend, type ZeroOptions } from "../lib/backend/backend.ts";
import { ConnectionError, IntegrityError } from "../lib/backend/errors.ts";
import { FlushLedger } from "../lib/backend/flush_ledger.ts";
import { Power, PowerCutDisk, PowerCutError } from "./power_cut.ts";

/** What crashed: the process, or the host with what was not flushed. */
export type Crash = "kill" | "power";

/** The host of a region, and the disk that it lies on. */
export class RemoteHost {
  /** What outlives every crash. */
  readonly disk: PowerCutDisk;
  /** Its present life. */
  power: Power;
  /** Starts it again where it is off. */
  readonly restart: () => void;

  /** Switches a host with a disk of `size` bytes on. */
  constructor(size: number, power: Power, restart: () => void) {
    this.disk = new PowerCutDisk(size);
    this.power = power;
    this.restart = restart;
  }

  /** A session of a mount, which ends with the mount's power. */
  connect(mount: Power): Backend {
    return new RemoteSession(this, mount);
  }
}

class RemoteSession implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable = true;
  readonly readOnly = false;
  readonly #host: RemoteHost;
  readonly #mount: Power;
  readonly #ledger = new FlushLedger();
  #life: Power | undefined;
  #closed = false;

  constructor(host: RemoteHost, mount: Power) {
    this.#host = host;
    this.#mount = mount;
    this.size = host.disk.size;
  }

  readAt(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#call((disk) => disk.readAt(buffer, offset));
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    await this.#call((disk) => disk.writeAt(buffer, offset));
    this.#ledger.acknowledge();
  }

  async zero(offset: number, length: number, options?: ZeroOptions): Promise<void> {
    await this.#call((disk) => disk.zero!(offset, length, options));
    this.#ledger.acknowledge();
  }

  async flush(): Promise<void> {
    const { mark } = this.#ledger;
    await this.#call((disk) => {
      if (this.#ledger.isInDoubt(mark)) {
        this.#ledger.report(mark);
        throw new IntegrityError("The remote was started anew");
      }
      return disk.flush();
    });
    this.#ledger.flushed(mark);
  }

  close(): void {
    this.#closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** Calls on the disk of the host, of its present life or a later one. */
  async #call(action: (disk: Backend) => Awaitable<void>): Promise<void> {
    const { choose } = this.#mount;
    for (let patience = choose(2) * choose(20);; patience--) {
      try {
        return await this.#callOnce(action);
      } catch (error) {
        this.#mount.check();
        if (!(error instanceof PowerCutError)) throw error;
        if (patience <= 0 || this.#closed) throw new ConnectionError("The remote is away");
      }
      await new Promise((resolve) => setTimeout(resolve, choose(10)));
      if (choose(4) === 0) this.#host.restart();
    }
  }

  /** The call is lost with the connection; an answer that is on its way when a server dies is not. */
  async #callOnce(action: (disk: Backend) => Awaitable<void>): Promise<void> {
    this.#mount.check();
    const { power, disk } = this.#host;
    if (this.#life !== undefined && this.#life !== power) this.#ledger.connectionLost();
    this.#life = power;
    if (this.#closed) throw new ConnectionError("The connection is closed");
    await this.#travel(power);
    power.check();
    await action(disk.open(power));
    await this.#travel(power);
    this.#mount.check();
    if (this.#life !== power) throw new PowerCutError();
  }

  /** Takes some time, or hardly any. */
  async #travel({ choose }: Power): Promise<void> {
    if (choose(3) === 0) await new Promise((resolve) => setTimeout(resolve, choose(6)));
    else await Promise.resolve();
  }
}
