/**
 * A region that moves between two sides of this isolate, over the real wire, with a store at the
 * source that answers, and fails, as a test says.
 *
 * @module
 */
import type { Awaitable } from "../../lib/backend/backend.ts";
import {
  type LeechOptions,
  MigratingBackend,
  openLeeched,
} from "../../lib/host/migrating_backend.ts";
import type { LeecherCore } from "../../lib/migration/leecher_core.ts";
import { decodeReply, decodeRequest, encodeReply } from "../../lib/migration/message_codec.ts";
import type { SeederReply } from "../../lib/migration/messages.ts";
import { SeederClient } from "../../lib/migration/seeder_client.ts";
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
  source: MigratingBackend;
  /** What gives it away. */
  seeder: SeederCore;
  /** What the source was asked, by type, in order. */
  readonly asked: string[] = [];
  /** Chunks that were read over the wire, in order; not what only digests were made of. */
  readonly fetched: number[] = [];
  /** Whether the program at the source runs. */
  running = true;
  /** What was written down at the source. */
  readonly records: string[] = [];
  /** Whether an operation of the store fails, by its name. */
  fails: (name: string) => boolean = () => false;
  /** What happens before the source answers a request, by its type. */
  before: (type: string) => Awaitable<void> = () => {};
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
    this.source = this.#open();
    this.seeder = this.#seed();
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

  /** Somebody who asks the source what he likes. */
  client(leech: number): SeederClient {
    const control = (message: Uint8Array) => this.seeder.control(message.slice());
    return new SeederClient({ control }, new Uint8Array(16).fill(leech));
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

  /** After {@linkcode die}: another process seeds what the store holds, which the first did not close. */
  restart(): void {
    this.seeder.close();
    this.source = this.#open();
    this.seeder = this.#seed();
    this.revive();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gate.open();
    if (!this.#isDead) await this.die();
    await this.source.close();
  }

  #open(): MigratingBackend {
    const { chunkSize } = this.#options;
    const source = new MigratingBackend(this.store, chunkSize, undefined);
    const read = source.readAt.bind(source);
    source.readAt = (buffer, offset) => {
      const end = offset + buffer.length;
      for (let at = offset; at < end; at += chunkSize) this.fetched.push(at / chunkSize);
      return read(buffer, offset);
    };
    return source;
  }

  #seed(): SeederCore {
    return this.source.seed({
      flush() {},
      suspend: () => void (this.running = false),
      resume: () => void (this.running = true),
      throttle() {},
      record: (state) => void this.records.push(state),
      onStage() {},
      ...this.#options.program,
    });
  }

  #listen(port = 0): TestWireServer {
    const control = async (message: Uint8Array<ArrayBuffer>) => {
      const { type } = decodeRequest(message);
      this.asked.push(type);
      for (const awaited of this.#awaited) if (awaited.type === type) awaited.resolve();
      await this.before(type);
      const reply = await this.seeder.control(message);
      return tamper === undefined ? reply : encodeReply(tamper(decodeReply(reply)));
    };
    const { token, tamper } = this.#options;
    return TestWireServer.start({ backend: this.source, control, port, ...(token && { token }) });
  }
}
