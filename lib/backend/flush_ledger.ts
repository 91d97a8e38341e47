/**
 * Which acknowledged writes a flush has made durable, and which may be lost.
 *
 * A server with a volatile cache may forget writes that it acknowledged when it dies, and a client
 * cannot tell a server that died from a connection that broke. So when a connection is lost,
 * whatever was acknowledged since the last flush is in doubt, and the next flush must say so once
 * instead of promising what it cannot.
 *
 * @module
 */

/** Counts writes; knows nothing of their content. */
export class FlushLedger {
  /** Writes that were acknowledged. */
  #acknowledged = 0;
  /** So many of them are durable. */
  #durable = 0;
  /** So many of them were acknowledged when a connection was lost, not all durable then. */
  #inDoubt = 0;
  /** The doubt about so many of them was reported. */
  #reported = 0;

  /** A write, zero or discard was acknowledged. */
  acknowledge(): void {
    this.#acknowledged++;
  }

  /** The mark of a flush that is submitted now: what it covers. */
  get mark(): number {
    return this.#acknowledged;
  }

  /** A flush was acknowledged: what it covers is durable. */
  flushed(mark: number): void {
    this.#durable = Math.max(this.#durable, mark);
  }

  /** A connection was lost. */
  connectionLost(): void {
    if (this.#acknowledged > this.#durable) this.#inDoubt = this.#acknowledged;
  }

  /** Whether a flush of this mark would promise what is in doubt and was not reported. */
  isInDoubt(mark: number): boolean {
    return Math.min(mark, this.#inDoubt) > Math.max(this.#reported, this.#durable);
  }

  /** The doubt about all that a flush of this mark covers was reported to its caller. */
  report(mark: number): void {
    this.#reported = Math.max(this.#reported, Math.min(mark, this.#inDoubt));
  }
}
