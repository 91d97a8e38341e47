/**
 * A region that moves between two sides of this isolate, over the real wire, with a store at the
 * source that answers, and fails, as a test says.
 *
 * @module
 */
import {
  type LeechOptions,
  MigratingBackend,
  openLeeched,
} from "../../lib/host/migrating_backend.ts";
import type { LeecherCore } from "../../lib/migration/leecher_core.ts";
import { decodeReply, decodeRequest, encodeReply } from "../../lib/migration/message_codec.ts";
import type { SeederReply } from "../../lib/migration/messages.ts";
import type { SeededProgram, SeederCore } from "../../lib/migration/seeder_core.ts";
import { connectTelemap, type ConnectTelemapOptions } from "../../lib/rpc/client.ts";
import { Gate } from "../gate.ts";
import { TestWireServer } from "../rpc/wire_server.ts";
import { ScheduledBackend } from "../scheduled_backend.ts";

/** How a {@linkcode MovingRegion} is made. */
export interface MovingOptions {
  /** Bytes of the region. */
  size: number;
  /** Bytes of a chunk. */
  chunkSize: number;
  /** What the program at the source does otherwise than to agree at once. */
  program?: Partial<SeededProgram>;
  /** What a leecher has to show. */
  token?: string;
  /** Changes what the source answers. */
  tamper?: (reply: SeederReply) => SeederReply;
}

/** How the region is brought to the other side. */
export interface MovedOptions extends Partial<LeechOptions> {
  /** How the source is reached. */
  connect?: ConnectTelemapOptions;
  /** Where it is reached; where it listens unless told. */
  url?: string;
  /** Where the copy comes to lie; in memory unless told. */
  cache?: string;
}

/** One side's end of it. */
interface Target extends AsyncDisposable {
  /** What programs see. */
  region: MigratingBackend;
  /** What brings it here. */
  core: LeecherCore;
}

/** See the module. */
export class MovingRegion implements AsyncDisposable {
  /** Holds up what the store at the source does, and notes it. */
  readonly gate = new Gate();
  /** The store at the source. */
  readonly store: ScheduledBackend;
  /** What programs at the source see. */
  readonly source: MigratingBackend;
  /** What gives it away. */
  readonly seeder: SeederCore;
  /** What the source was asked, by type, in order. */
  readonly asked: string[] = [];
  /** Whether the program at the source runs. */
  running = true;
  /** What was written down at the source. */
  readonly records: string[] = [];
  /** Whether an operation of the store fails, by its name. */
  fails: (name: string) => boolean = () => false;
  /** Where the source is reached. */
  server: TestWireServer;
  readonly #options: MovingOptions;
  #isDead = false;
  readonly #awaited: { type: string; resolve: () => void }[] = [];

  /** Seeds a region of zeroes. */
  constructor(options: MovingOptions) {
    this.#options = options;
    this.store = new ScheduledBackend({
      size: options.size,
      step: this.gate.step,
      fails: (name) => this.fails(name),
    });
    this.source = new MigratingBackend(this.store, options.chunkSize, undefined);
    this.seeder = this.source.seed({
      flush() {},
      suspend: () => void (this.running = false),
      resume: () => void (this.running = true),
      throttle() {},
      record: (state) => void this.records.push(state),
      onStage() {},
      ...options.program,
    });
    this.server = this.#listen();
  }

  /** Begins to bring it to the other side. */
  async leech(options: MovedOptions = {}): Promise<Target> {
    const { connect, url = this.server.url, cache = "memory:", ...rest } = options;
    const { chunkSize, token } = this.#options;
    const remote = await connectTelemap(url, { log: () => {}, token, ...connect });
    const leech = crypto.getRandomValues(new Uint8Array(16));
    const opening = openLeeched(remote, cache, { chunkSize, peer: url, leech, ...rest });
    const region = await opening.catch(async (error) => {
      await remote.close();
      throw error;
    });
    return {
      region,
      core: region.leecher!,
      [Symbol.asyncDispose]: async () => {
        if (!region.leecher!.isOwner) await region.abandon();
        await region.close();
      },
    };
  }

  /** Answers when the source is asked the next request of a type. */
  whenAsked(type: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#awaited.push({ type, resolve });
    return promise;
  }

  /** The source's host dies; the region in its store does not. */
  async die(): Promise<void> {
    this.#isDead = true;
    await this.server[Symbol.asyncDispose]();
  }

  /** It is there again, at the same place. */
  revive(): void {
    this.#isDead = false;
    this.server = this.#listen(Number(new URL(this.server.url).port));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gate.open();
    if (!this.#isDead) await this.die();
    await this.source.close();
  }

  #listen(port = 0): TestWireServer {
    const control = async (message: Uint8Array<ArrayBuffer>) => {
      const { type } = decodeRequest(message);
      this.asked.push(type);
      for (const awaited of this.#awaited) if (awaited.type === type) awaited.resolve();
      const reply = await this.seeder.control(message);
      return tamper === undefined ? reply : encodeReply(tamper(decodeReply(reply)));
    };
    const { token, tamper } = this.#options;
    return TestWireServer.start({ backend: this.source, control, port, ...(token && { token }) });
  }
}
