/**
 * A remote behind a link, and the host that asks it for requests of a MiB, in simulated time: what a
 * {@linkcode FlightWindow} makes of it, the same each time.
 *
 * @module
 */
import { Draws } from "../lib/chunk/draws.ts";
import type { FlightWindow } from "../lib/chunk/flight_window.ts";
import { Link } from "../lib/chunk/link.ts";

/** What lies between; times in ms. */
export interface SimulatedLink {
  /** Bytes a ms. */
  rate: number;
  /** The round-trip time. */
  rtt: number;
  /** Time of this host's CPU that each answer takes, one after the other; none unless told. */
  cpu?: number;
  /** Up to so much later, by chance, answers are noticed each for itself; not unless told. */
  late?: number;
  /** Decides what is by chance. */
  seed?: number;
}

const REQUEST = 1 << 20;
/** What somebody waits for, in bytes. */
const URGENT = 1 << 16;
/** Timers of the runtime are late by up to so many ms. */
const TIMER_MS = 2;

/** See the module. */
export class SimulatedRemote {
  /** The time. */
  now = 0;
  /** Bytes that came, all in all. */
  received = 0;
  /** Bytes in flight now, and at most so far. */
  inFlight = 0;
  mostInFlight = 0;
  /** Bytes that are asked for at most, all in all. */
  wanted = Infinity;
  readonly #window: FlightWindow;
  #link: SimulatedLink;
  #back: Link;
  #draws: Draws;
  #drawn = 0;
  readonly #events: { at: number; what: () => void }[] = [];
  #requests = 0;
  #asked = 0;
  #cpuFree = 0;
  #turn = 0;

  /** Begins to ask at 0 ms. */
  constructor(window: FlightWindow, link: SimulatedLink) {
    this.#window = window;
    this.#link = link;
    this.#back = new Link(link.rate * 1000);
    this.#draws = new Draws(link.seed ?? 0, "simulation");
    this.#at(0, () => this.#ask());
  }

  /** It becomes another link, for what is sent from now on. */
  become(link: SimulatedLink): void {
    this.#link = link;
    this.#back = new Link(link.rate * 1000);
  }

  /** Goes on to a moment, or until all came that is wanted; answers the bytes that came meanwhile. */
  run(until: number): number {
    const before = this.received;
    while (this.received < this.wanted && (this.#events[0]?.at ?? Infinity) <= until) this.#step();
    if (this.received < this.wanted) this.now = until;
    return this.received - before;
  }

  /** Answers the time that something takes which is asked for now, beside all that. */
  urgent(): number {
    const began = this.now;
    let over = NaN;
    this.#send(URGENT, 0, () => over = this.now);
    while (Number.isNaN(over)) this.#step();
    return over - began;
  }

  /** Begins requests as the window lets. */
  #ask(): void {
    const turn = ++this.#turn;
    while (this.#asked < this.wanted) {
      const delay = this.#window.delay(this.#requests, this.inFlight, this.now);
      if (delay === 0) this.#request();
      else {
        const at = this.now + Math.max(delay, 1) + this.#draw() * TIMER_MS;
        if (delay < Infinity) this.#at(at, () => turn === this.#turn && this.#ask());
        return;
      }
    }
  }

  #request(): void {
    this.#requests++;
    this.#asked += REQUEST;
    this.inFlight += REQUEST;
    this.mostInFlight = Math.max(this.inFlight, this.mostInFlight);
    this.#window.began(REQUEST, this.now);
    this.#send(REQUEST, this.#link.cpu ?? 0, () => {
      this.#requests--;
      this.inFlight -= REQUEST;
      this.received += REQUEST;
    });
  }

  #send(bytes: number, cpu: number, answered: () => void): void {
    const began = this.now;
    const { rtt, late = 0 } = this.#link;
    this.#at(began + rtt / 2, () => {
      const left = this.#back.carry(this.now, bytes);
      this.#at(left + rtt / 2 + late * this.#draw(), () => {
        this.#cpuFree = Math.max(this.#cpuFree, this.now) + cpu;
        this.#at(this.#cpuFree, () => {
          answered();
          this.#window.answered(bytes, began, this.now);
          this.#ask();
        });
      });
    });
  }

  #draw(): number {
    return this.#draws.at(this.#drawn++);
  }

  #at(at: number, what: () => void): void {
    let index = this.#events.length;
    while (index > 0 && this.#events[index - 1]!.at > at) index--;
    this.#events.splice(index, 0, { at, what });
  }

  #step(): void {
    const { at, what } = this.#events.shift()!;
    this.now = at;
    what();
  }
}
