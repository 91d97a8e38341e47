/**
 * A relay of TCP connections that holds every byte up for half a round-trip time each way, without a
 * limit on the rate: `delayed_relay.ts HOST:PORT RTT_MS`. It prints the port where it listens, and
 * serves until it is killed.
 *
 * It shares its machine with what is measured. So bytes go through pipes, which are as long as the
 * way, without being copied; and while there are many, it looks for them only now and then.
 *
 * @module
 */
import { ERRNO, errno } from "../ffi/errno.ts";
import { close } from "../ffi/file.ts";
import {
  accept,
  connectTcp,
  listenTcp,
  setNoDelay,
  setOption,
  setSendBuffer,
  SOL,
} from "../ffi/socket.ts";
import { PipeLine } from "./pipe_line.ts";
import { endWriting, goFirst, POLL, PollSet } from "./relay_calls.ts";

/** Bytes that a way holds: 3 GB/s for 80 ms. */
const BYTES = 256 << 20;
/** Of each socket, which has to last only until the relay looks again. */
const SOCKET_BUFFER = 16 << 20;
/** Where so many bytes were there at once, more are looked for after that many ms. */
const BUSY_BYTES = 16 << 10, LOOK_MS = 0.1;
/** Of how late it wakes, what each time counts for, and what is believed at most, in ms. */
const LATE_SHARE = 0.1, LATE_MOST = 0.2;
const SO_RCVBUFFORCE = 33;

/** One direction of a connection. */
class Way {
  readonly #from: number;
  readonly #to: number;
  readonly #delay: number;
  readonly #pipe = new PipeLine();
  /** What is in the pipe may be given up to byte `end` from then on. */
  readonly #marks: { due: number; end: number }[] = [];
  #taken = 0;
  #given = 0;
  /** When the end of what comes may be given; it has not come yet. */
  #endDue = Infinity;
  #isOver = false;
  /** When it looks for more; it waits for a sign of it where that is in the past. */
  #look = 0;
  /** What it waits for, in the set. */
  #readable = -1;
  #writable = -1;
  #isStuck = false;

  constructor(from: number, to: number, delay: number) {
    this.#from = from;
    this.#to = to;
    this.#delay = delay;
  }

  /** All was given, or there is nobody to give it to. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** There is much, and more is looked for by itself. */
  isBusy(now: number): boolean {
    return !this.#isOver && this.#mayTake && this.#look > now;
  }

  /** Says what it waits for; answers until when. */
  expect(set: PollSet, now: number): number {
    this.#readable = this.#writable = -1;
    if (this.#isOver) return Infinity;
    const mayTake = this.#mayTake;
    if (mayTake && this.#look <= now) this.#readable = set.add(this.#from, POLL.IN);
    if (this.#isStuck) this.#writable = set.add(this.#to, POLL.OUT);
    const look = mayTake && this.#look > now ? this.#look : Infinity;
    return Math.min(look, this.#isStuck ? Infinity : this.#marks[0]?.due ?? this.#endDue);
  }

  /** Takes what is there, which woke it so many ms ago if it waited for that, and gives what is due. */
  go(set: PollSet, now: number, late: number): void {
    if (this.#isOver) return;
    if (this.#readable >= 0) {
      if (set.has(this.#readable)) this.#take(now, now - late);
    } else if (this.#look > 0 && now >= this.#look) this.#take(now, now - LOOK_MS / 2);
    if (this.#writable >= 0 && set.has(this.#writable)) this.#isStuck = false;
    if (!this.#isStuck) this.#give(now);
  }

  /** Lets go of what it holds, once it is over. */
  close(): void {
    this.#pipe[Symbol.dispose]();
  }

  get #mayTake(): boolean {
    return this.#endDue === Infinity && this.#taken - this.#given < BYTES;
  }

  #take(now: number, arrived: number): void {
    if (!this.#mayTake) return;
    const due = arrived + this.#delay;
    const count = this.#pipe.fill(this.#from, BYTES);
    if (count > 0) {
      this.#taken += count;
      this.#marks.push({ due, end: this.#taken });
      this.#look = count < BUSY_BYTES ? 0 : now + LOOK_MS;
    } else if (count < 0 && errno() === ERRNO.EAGAIN) this.#look = 0;
    else this.#endDue = due;
  }

  #give(now: number): void {
    for (let first = this.#marks[0]; first !== undefined && first.due <= now;) {
      const left = first.end - this.#given;
      const count = this.#pipe.drain(this.#to, left);
      if (count < 0 && errno() !== ERRNO.EAGAIN) {
        this.#isOver = true;
        return;
      }
      this.#given += Math.max(count, 0);
      if (count < left) {
        this.#isStuck = true;
        return;
      }
      this.#marks.shift();
      first = this.#marks[0];
    }
    if (this.#marks.length > 0 || now < this.#endDue) return;
    endWriting(this.#to);
    this.#isOver = true;
  }
}

/** Both directions of a connection. */
class Relayed {
  readonly #fds: readonly [number, number];
  readonly #ways: readonly [Way, Way];

  constructor(near: number, far: number, delay: number) {
    for (const fd of [near, far]) {
      setNoDelay(fd);
      setSendBuffer(fd, SOCKET_BUFFER);
      setOption(fd, SOL.SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER);
    }
    this.#fds = [near, far];
    this.#ways = [new Way(near, far, delay), new Way(far, near, delay)];
  }

  get isOver(): boolean {
    return this.#ways.every((way) => way.isOver);
  }

  isBusy(now: number): boolean {
    return this.#ways.some((way) => way.isBusy(now));
  }

  expect(set: PollSet, now: number): number {
    return Math.min(this.#ways[0].expect(set, now), this.#ways[1].expect(set, now));
  }

  go(set: PollSet, now: number, late: number): void {
    for (const way of this.#ways) way.go(set, now, late);
  }

  close(): void {
    for (const way of this.#ways) way.close();
    for (const fd of this.#fds) close(fd);
  }
}

/** Relays to a server, which may be gone. */
function relay(near: number): void {
  try {
    connections.push(new Relayed(near, connectTcp(host, Number(port)), Number(rtt) / 2));
  } catch (error) {
    console.error((error as Error).message);
    close(near);
  }
}

const [target = "", rtt = "0"] = Deno.args;
const [host = "", port = ""] = target.split(":");
const listener = listenTcp("127.0.0.1", 0);
const set = new PollSet();
let connections: Relayed[] = [];
let late = 0;
goFirst();
console.log(listener.port);
for (;;) {
  set.clear();
  const arrived = set.add(listener.fd, POLL.IN), now = performance.now();
  const until = Math.min(...connections.map((each) => each.expect(set, now)), Infinity);
  // Who is early waits on in a loop, which takes the time of what there is much of.
  const early = connections.some((each) => each.isBusy(now)) ? 0 : late;
  const asked = until - early, waits = asked > now;
  const isTime = set.wait(waits ? Math.max(asked - performance.now(), 0) : 0) === 0;
  const woken = performance.now();
  if (waits && isTime) {
    late = Math.min(late + (woken - asked - late) * LATE_SHARE, LATE_MOST);
  }
  for (const each of connections) each.go(set, woken, waits ? early : 0);
  const over = connections.filter((each) => each.isOver);
  if (over.length > 0) connections = connections.filter((each) => !each.isOver);
  for (const each of over) each.close();
  if (!set.has(arrived)) continue;
  for (let near = accept(listener.fd); near >= 0; near = accept(listener.fd)) relay(near);
}
