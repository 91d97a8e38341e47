/**
 * A {@linkcode Channel} over any pair of byte streams: a connection of Deno, standard input and
 * output, a TLS tunnel. For sockets in a Worker, `DescriptorChannel` is the fast one.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import type { Channel, Protocol, RegionMemory, Slot } from "./channel.ts";
import { joined } from "./joined.ts";

/** The two directions of a connection, e.g. a `Deno.Conn`. */
export interface ByteStream {
  /** Bytes from the peer. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Bytes to the peer. */
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
}

const INPUT_BYTES_MIN = 64 << 10;
const INPUT_BYTES_MAX = (32 << 20) + (64 << 10);
const HEADER_BYTES = 16 << 10;
const BACKLOG_BYTES = 8 << 20;
const LINGER_MS = 5000;

/** See the module. */
export class StreamChannel implements Channel {
  input = new Uint8Array(INPUT_BYTES_MIN);
  inputView = new DataView(this.input.buffer);
  outputView = new DataView(new ArrayBuffer(HEADER_BYTES));
  start = 0;
  end = 0;

  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #lingerMs: number;
  #protocol: Protocol | undefined;
  #parts: Uint8Array<ArrayBuffer>[] = [];
  #headerTail = 0;
  #backlog = 0;
  #starved = false;
  #resumed: PromiseWithResolvers<void> | undefined;
  #closing = false;
  #error: Error | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;
  /** The peer had its time to read what was queued. */
  readonly #lingered = Promise.withResolvers<void>();
  #written: Promise<void> = Promise.resolve();

  /**
   * Locks both directions. A closing connection may take `lingerMs` to read what was already
   * answered.
   */
  constructor(stream: ByteStream, lingerMs = LINGER_MS) {
    this.#lingerMs = lingerMs;
    this.#reader = stream.readable.getReader();
    this.#writer = stream.writable.getWriter();
  }

  /** Serves until the connection is over; answers when everything about it is closed. */
  async run(protocol: Protocol): Promise<void> {
    this.#protocol = protocol;
    try {
      this.flush();
      while (!this.#closing) {
        await this.#mayRead();
        const { value, done } = await this.#reader.read();
        if (done || this.#closing) break;
        this.#append(value);
        this.#protocol.receive();
        this.flush();
      }
    } catch (error) {
      this.#error ??= error instanceof Error ? error : new Error(String(error));
    }
    await this.#finish();
  }

  handOver(protocol: Protocol): void {
    this.#protocol = protocol;
  }

  consume(length: number): void {
    this.start += length;
  }

  readAhead(_held: number): void {
    // The stream reads ahead by itself.
  }

  expect(length: number): void {
    if (length > INPUT_BYTES_MAX) throw new ProtocolError(`Cannot take ${length} bytes at once`);
    if (this.start + length > this.input.length) this.#makeRoom(length - (this.end - this.start));
  }

  hasRoom(): boolean {
    if (this.#backlog < BACKLOG_BYTES) return true;
    this.#starved = true;
    return false;
  }

  reserve(length: number): number {
    if (this.#headerTail + length > HEADER_BYTES) {
      this.outputView = new DataView(new ArrayBuffer(HEADER_BYTES));
      this.#headerTail = 0;
    }
    const at = this.#headerTail;
    this.#headerTail += length;
    this.#push(new Uint8Array(this.outputView.buffer, at, length));
    return at;
  }

  queueMemory(memory: RegionMemory, offset: number, length: number): void {
    this.#push(memory.bytes.slice(offset, offset + length));
  }

  queueSlot(slot: Slot, length: number): void {
    this.#push(slot.bytes.subarray(0, length));
  }

  queueCopy(bytes: Uint8Array): void {
    this.#push(new Uint8Array(bytes));
  }

  flush(): void {
    if (this.#parts.length === 0) return;
    const message = joined(this.#parts);
    this.#parts = [];
    // The header buffer was handed to the stream with the message.
    this.outputView = new DataView(new ArrayBuffer(HEADER_BYTES));
    this.#headerTail = 0;
    this.#written = this.#writer.write(message)
      .then(() => this.#sent(message.length))
      .catch((error: Error) => this.#fail(error));
  }

  acquire(length: number): Slot {
    return { bytes: new Uint8Array(length), address: 0 };
  }

  release(_slot: Slot): void {}

  beginAsync(): void {}

  endAsync(): void {}

  pause(): void {
    this.#resumed ??= Promise.withResolvers();
  }

  resume(): void {
    this.#resumed?.resolve();
    this.#resumed = undefined;
  }

  /** A peer that takes no replies may not go on sending requests. */
  async #mayRead(): Promise<void> {
    while (!this.#closing && (this.#resumed !== undefined || this.#starved)) {
      await Promise.race([this.#resumed?.promise ?? this.#written, this.#lingered.promise]);
    }
  }

  deadline(milliseconds: number, expire: () => void): () => void {
    const timer = setTimeout(expire, milliseconds);
    return () => clearTimeout(timer);
  }

  close(error?: Error): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#error ??= error;
    this.resume();
    this.flush();
    this.#linger = setTimeout(this.#lingered.resolve, this.#lingerMs);
    // Cancelling closes both directions of a connection of Deno: what is queued goes first.
    Promise.race([this.#written, this.#lingered.promise])
      .then(() => this.#reader.cancel())
      .catch(() => {});
  }

  #push(part: Uint8Array<ArrayBuffer>): void {
    this.#parts.push(part);
    this.#backlog += part.length;
  }

  #append(chunk: Uint8Array<ArrayBuffer>): void {
    if (this.start === this.end) this.start = this.end = 0;
    if (this.end + chunk.length > this.input.length) this.#makeRoom(chunk.length);
    this.input.set(chunk, this.end);
    this.end += chunk.length;
  }

  /** Moves what was not consumed to the front of an array with room for `more` bytes behind it. */
  #makeRoom(more: number): void {
    const kept = this.input.subarray(this.start, this.end);
    const needed = kept.length + more;
    if (needed <= this.input.length) {
      this.input.copyWithin(0, this.start, this.end);
    } else {
      const grown = new Uint8Array(2 ** Math.ceil(Math.log2(needed)));
      grown.set(kept);
      this.input = grown;
      this.inputView = new DataView(grown.buffer);
    }
    this.end = kept.length;
    this.start = 0;
  }

  #sent(length: number): void {
    this.#backlog -= length;
    if (!this.#starved || this.#backlog >= BACKLOG_BYTES || this.#closing) return;
    this.#starved = false;
    this.#protocol!.drained();
    this.flush();
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.close();
  }

  async #finish(): Promise<void> {
    this.close();
    const sent = this.#written.then(() => this.#writer.close()).catch(() => {});
    await Promise.race([sent, this.#lingered.promise]);
    clearTimeout(this.#linger);
    this.#protocol!.closed(this.#error);
    // Where the peer did not read all, waiting for this would be waiting for the peer.
    this.#writer.abort().catch(() => {});
    await this.#reader.cancel().catch(() => {});
  }
}
