/**
 * A {@linkcode Channel} over a nonblocking stream socket in a reactor: many requests a read, all
 * their replies in one write, with plain addresses so that nothing is allocated a request.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno, SystemError } from "../../ffi/errno.ts";
import { close, Iovec } from "../../ffi/file.ts";
import { Mapping } from "../../ffi/mman.ts";
import { unread, writev } from "../../ffi/socket.ts";
import { ProtocolError } from "../backend/errors.ts";
import type { Channel, Protocol, RegionMemory, Slot } from "./channel.ts";
import { ReceiveBuffer } from "./receive_buffer.ts";
import type { Reactor } from "./reactor.ts";
import type { SlotPool } from "./slot_pool.ts";

/** The largest message that fits: a 32 MiB payload and its header. Only touched pages cost memory. */
const INPUT_BYTES = (32 << 20) + (64 << 10);
/** What one read asks for where the message in hand does not need more. */
const READ_BYTES = 256 << 10;
/** Small messages use this much of the buffer over and over, so that it stays in the CPU's cache. */
const WINDOW_BYTES = 1 << 20;
/** Reads in a row for one connection before the others have their turn. */
const READS_A_TURN = 8;
const HEADER_BYTES = 128 << 10;
const ENTRIES = 512;
/** Replies that wait for a slow reader, in bytes, before requests are left unread. */
const BACKLOG_BYTES = 8 << 20;
const LINGER_MS = 5000;

/** Answers of up to so many bytes in all are small: their number is what costs. */
const SMALL_BYTES = 64 << 10;
/** What a write costs of the kernel's memory, about: so many times its bytes, and so many more. */
const WRITE_COST = { TIMES: 2, MORE: 768 } as const;
/** So many times what it is sent now, a peer has still to read where it is in no hurry. */
const ENOUGH_UNREAD = 4;

/** See the module. */
export class DescriptorChannel implements Channel {
  readonly outputView: DataView<ArrayBuffer>;

  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #fd: number;
  readonly #lingerMs: number;
  #input = new ReceiveBuffer(INPUT_BYTES);
  /** What came while the message that ends `#input` was worked on; takes its place afterwards. */
  #ahead: ReceiveBuffer | undefined;
  readonly #headers = Mapping.map({ length: HEADER_BYTES, subject: "a send buffer" });
  readonly #queue = new Iovec(ENTRIES);
  readonly #lengths = new Float64Array(ENTRIES);
  readonly #addresses = new Float64Array(ENTRIES);
  /** What each queued entry keeps alive: a slot to give back, or bytes of the region. */
  readonly #owners: (Slot | undefined)[] = new Array(ENTRIES).fill(undefined);
  #protocol: Protocol | undefined;
  #onDisposed: (() => void) | undefined;
  #expected = 0;
  #headerTail = 0;
  #queued = 0;
  #queuedBytes = 0;
  #watched: number = EPOLL.IN;
  #paused = false;
  #starved = false;
  #busy = false;
  #closing = false;
  #lost = false;
  #disposed = false;
  #closeError: Error | undefined;
  #cancelLinger: (() => void) | undefined;

  /**
   * Takes the descriptor over: it is closed with the channel. A closing connection may take
   * `lingerMs` to read what was already answered.
   */
  constructor(reactor: Reactor, pool: SlotPool, fd: number, lingerMs = LINGER_MS) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#fd = fd;
    this.#lingerMs = lingerMs;
    this.outputView = new DataView(this.#headers.bytes.buffer);
  }

  /** Begins to receive for a protocol; `onDisposed` is called when the descriptor is closed. */
  attach(protocol: Protocol, onDisposed?: () => void): void {
    this.#protocol = protocol;
    this.#onDisposed = onDisposed;
    this.#reactor.add(this.#fd, this.#watched, (events) => this.#ready(events));
  }

  /** Hands what comes next to another protocol on the same connection. */
  handOver(protocol: Protocol): void {
    this.#protocol = protocol;
  }

  get input(): Uint8Array<ArrayBuffer> {
    return this.#input.bytes;
  }

  get inputView(): DataView<ArrayBuffer> {
    return this.#input.view;
  }

  get start(): number {
    return this.#input.start;
  }

  get end(): number {
    return this.#input.end;
  }

  consume(length: number): void {
    const input = this.#input;
    input.start += length;
    this.#expected = 0;
    if (this.#ahead === undefined || input.start < input.end || this.#ahead.end === 0) return;
    input.start = input.end = 0;
    this.#input = this.#ahead;
    this.#ahead = input;
  }

  readAhead(held: number): void {
    if (this.end - this.start !== held) return;
    this.#ahead ??= new ReceiveBuffer(INPUT_BYTES);
    // The end of the stream, or an error, shows again when the next read is due.
    this.#ahead.receive(this.#fd, Math.min(this.#ahead.room, READ_BYTES));
  }

  expect(length: number): void {
    if (length > INPUT_BYTES) throw new ProtocolError(`Cannot take ${length} bytes at once`);
    this.#expected = length;
  }

  hasRoom(): boolean {
    if (this.#fits()) return true;
    this.#send();
    if (this.#fits()) return true;
    this.#starved = !this.#lost;
    return false;
  }

  reserve(length: number): number {
    const at = this.#headerTail;
    this.#headerTail += length;
    const last = this.#queued - 1;
    const address = this.#headers.address + at;
    // Replies without payload lie side by side: one entry for all of them.
    if (last >= 0 && this.#addresses[last]! + this.#lengths[last]! === address) {
      this.#lengths[last] = this.#lengths[last]! + length;
      this.#queue.set(last, this.#addresses[last]!, this.#lengths[last]!);
      this.#queuedBytes += length;
    } else {
      this.#enqueue(address, length, undefined);
    }
    return at;
  }

  queueMemory(memory: RegionMemory, offset: number, length: number): void {
    this.#enqueue(memory.address + offset, length, undefined);
  }

  queueSlot(slot: Slot, length: number): void {
    this.#enqueue(slot.address, length, slot);
  }

  queueCopy(bytes: Uint8Array): void {
    const slot = this.#pool.acquire(bytes.length);
    slot.bytes.set(bytes);
    this.queueSlot(slot, bytes.length);
  }

  flush(): void {
    this.#send();
    while (this.#starved && !this.#disposed && this.#fits()) {
      this.#starved = false;
      this.#protocol!.drained();
      this.#send();
    }
    if (this.#disposed) return;
    this.#watch();
    if (this.#closing && this.#queued === 0 && !this.#busy) this.#dispose();
  }

  acquire(length: number): Slot {
    return this.#pool.acquire(length);
  }

  release(slot: Slot): void {
    this.#pool.release(slot);
  }

  beginAsync(): void {
    this.#reactor.beginAsync();
  }

  endAsync(): void {
    this.#reactor.endAsync();
  }

  pause(): void {
    this.#paused = true;
    this.#watch();
  }

  resume(): void {
    this.#paused = false;
    this.#watch();
  }

  deadline(milliseconds: number, expire: () => void): () => void {
    const deadline = this.#reactor.addDeadline(performance.now() + milliseconds, expire);
    return () => this.#reactor.cancelDeadline(deadline);
  }

  close(error?: Error): void {
    if (this.#closing || this.#disposed) return;
    this.#closing = true;
    this.#closeError = error;
    if (this.#busy) return;
    this.#finish();
  }

  #ready(events: number): void {
    this.#busy = true;
    try {
      if ((events & EPOLL.OUT) !== 0) this.flush();
      // Where a reading tells more of what happened than the event does, it is left to that.
      if ((events & ~EPOLL.OUT) !== 0 && this.#listens()) this.#fill();
      else if ((events & (EPOLL.HUP | EPOLL.ERR)) !== 0) this.#fail(undefined);
    } catch (error) {
      // Whatever went wrong with this connection, the others of the reactor go on.
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
    this.#busy = false;
    if (this.#closing) this.#finish();
  }

  /** Whether more may be read: a peer that takes no replies may not go on sending requests. */
  #listens(): boolean {
    return !this.#paused && !this.#starved && !this.#closing;
  }

  #fill(): void {
    for (let turn = 0; turn < READS_A_TURN && this.#listens(); turn++) {
      const room = this.#makeRoom();
      if (room === 0) throw new ProtocolError("Cannot take more as nothing is taken out");
      const count = this.#receive(room);
      if (count < 0) return;
      if (count === 0) return this.close();
      this.#protocol!.receive();
      const unhurried = count < room && this.#peerIsBehind();
      this.flush();
      if (unhurried) this.#reactor.unhurried();
      if (count < room) return;
    }
  }

  /** Whether the peer has many more small answers to read than those that wait to be sent. */
  #peerIsBehind(): boolean {
    const bytes = this.#queuedBytes;
    if (bytes > SMALL_BYTES) return false;
    const cost = WRITE_COST.TIMES * bytes + WRITE_COST.MORE;
    return unread(this.#fd) >= ENOUGH_UNREAD * cost;
  }

  /** Reads behind `end`: the bytes that came, 0 at the end of the stream, or -1 for none now. */
  #receive(room: number): number {
    const count = this.#input.receive(this.#fd, room);
    if (count >= 0) return count;
    const number = errno();
    if (number === ERRNO.EAGAIN || number === ERRNO.EINTR) return -1;
    const gone = number === ERRNO.ECONNRESET;
    this.#fail(
      gone ? undefined : new SystemError({ syscall: "read", errno: number, subject: "a peer" }),
    );
    return -1;
  }

  /** How many bytes to read next, with the buffer arranged so that the message in hand fits. */
  #makeRoom(): number {
    const input = this.#input;
    if (input.start === input.end) input.start = input.end = 0;
    const missing = Math.max(this.#expected - (input.end - input.start), 0);
    // To the end of a large message and no further: while that is worked on, what follows can be
    // read elsewhere.
    const wanted = this.#expected > READ_BYTES ? missing : READ_BYTES;
    if (input.start > 0 && input.end + wanted > WINDOW_BYTES) input.compact();
    return Math.min(wanted, input.room);
  }

  #send(): void {
    while (this.#queued > 0) {
      const sent = writev(this.#fd, this.#queue, this.#queued);
      if (sent >= 0) {
        this.#sent(sent);
        continue;
      }
      const number = errno();
      if (number === ERRNO.EINTR) continue;
      if (number === ERRNO.EAGAIN) return;
      const gone = number === ERRNO.EPIPE || number === ERRNO.ECONNRESET;
      const subject = "a peer's socket";
      return this.#fail(
        gone ? undefined : new SystemError({ syscall: "writev", errno: number, subject }),
      );
    }
  }

  #fits(): boolean {
    return !this.#lost && this.#queued + 3 <= ENTRIES && this.#headerTail + 64 <= HEADER_BYTES &&
      this.#queuedBytes < BACKLOG_BYTES;
  }

  #enqueue(address: number, length: number, owner: Slot | undefined): void {
    if (this.#lost) {
      if (owner !== undefined) this.#pool.release(owner);
      return;
    }
    if (this.#queued === ENTRIES) this.#send();
    if (this.#queued === ENTRIES) {
      // Only a protocol that does not ask for room gets here: better no answer than a torn one.
      if (owner !== undefined) this.#pool.release(owner);
      return this.#fail(new Error("Cannot queue more replies than a channel holds"));
    }
    const index = this.#queued++;
    this.#queue.set(index, address, length);
    this.#addresses[index] = address;
    this.#lengths[index] = length;
    this.#owners[index] = owner;
    this.#queuedBytes += length;
  }

  /** Forgets what was sent; the rest of a reply cut in two moves to the front. */
  #sent(count: number): void {
    this.#queuedBytes -= count;
    let done = 0;
    while (done < this.#queued && count >= this.#lengths[done]!) {
      count -= this.#lengths[done]!;
      const owner = this.#owners[done];
      if (owner !== undefined) {
        this.#owners[done] = undefined;
        this.#pool.release(owner);
      }
      done++;
    }
    const left = this.#queued - done;
    this.#queued = left;
    if (left === 0) {
      this.#headerTail = 0;
      return;
    }
    for (let index = 0; index < left; index++) {
      const from = done + index;
      const cut = index === 0 ? count : 0;
      const address = this.#addresses[from]! + cut;
      const length = this.#lengths[from]! - cut;
      const owner = this.#owners[from];
      if (from !== index) this.#owners[from] = undefined;
      this.#owners[index] = owner;
      this.#addresses[index] = address;
      this.#lengths[index] = length;
      this.#queue.set(index, address, length);
    }
  }

  #watch(): void {
    const events = (this.#listens() ? EPOLL.IN : 0) | (this.#queued > 0 ? EPOLL.OUT : 0);
    if (events === this.#watched || this.#disposed) return;
    this.#watched = events;
    this.#reactor.modify(this.#fd, events);
  }

  /** The connection is of no use any more. */
  #fail(error: Error | undefined): void {
    this.#closing = this.#lost = true;
    this.#closeError ??= error;
    this.#forgetQueue();
    if (!this.#busy) this.#dispose();
  }

  #finish(): void {
    if (this.#disposed) return;
    if (this.#queued === 0) return this.#dispose();
    this.#cancelLinger ??= this.deadline(this.#lingerMs, () => this.#fail(undefined));
    this.flush();
  }

  #forgetQueue(): void {
    for (let index = 0; index < this.#queued; index++) {
      const owner = this.#owners[index];
      this.#owners[index] = undefined;
      if (owner !== undefined) this.#pool.release(owner);
    }
    this.#queued = this.#queuedBytes = 0;
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#cancelLinger?.();
    if (!this.#lost) this.#discardInput();
    this.#lost = true;
    this.#reactor.remove(this.#fd);
    close(this.#fd);
    this.#protocol!.closed(this.#closeError);
    this.#forgetQueue();
    this.#input[Symbol.dispose]();
    this.#ahead?.[Symbol.dispose]();
    this.#headers.unmap();
    this.#onDisposed?.();
  }

  /** TCP would answer what lies unread with a reset, and drop replies that are still on their way. */
  #discardInput(): void {
    for (let turn = 0; turn < READS_A_TURN; turn++) {
      this.#input.start = this.#input.end = 0;
      if (this.#input.receive(this.#fd, READ_BYTES) <= 0) return;
    }
  }
}
