/**
 * The WebAssembly program that moves: a to-do list, and an automaton that goes on beside it.
 *
 * @module
 */

const TEXT_AT = 32768, ITEM_BYTES = 128, CELLS = 512 * 512;

interface Exports {
  memory: WebAssembly.Memory;
  items: WebAssembly.Global;
  generation: WebAssembly.Global;
  now: WebAssembly.Global;
  add(length: number): number;
  finish(item: number): void;
  step(): void;
}

/** Makes an instance in which nothing has happened yet. */
export async function instantiate(): Promise<WebAssembly.Instance> {
  const bytes = await Deno.readFile(new URL("./program.wasm", import.meta.url));
  return (await WebAssembly.instantiate(bytes)).instance;
}

/** An instance, to be worked with. */
export class Program {
  readonly #exports: Exports;

  /** Goes on with an instance, wherever it comes from. */
  constructor(instance: WebAssembly.Instance) {
    this.#exports = instance.exports as unknown as Exports;
  }

  /** Generations so far. */
  get generation(): number {
    return Number(this.#exports.generation.value);
  }

  /** The cells, row by row: 1 for one that lives. */
  get cells(): Uint8Array {
    return new Uint8Array(this.#exports.memory.buffer, this.#exports.now.value, CELLS);
  }

  /** Makes a generation. */
  step(): void {
    this.#exports.step();
  }

  /** Sets cells by chance, the same each time for a seed. */
  sow(seed: number): void {
    let value = seed | 1;
    const { cells } = this;
    for (let cell = 0; cell < cells.length; cell++) {
      value ^= value << 13;
      value ^= value >>> 17;
      value ^= value << 5;
      cells[cell] = value >>> 31;
    }
  }

  /** Adds something to be done; answers its number. */
  add(text: string): number {
    const place = new Uint8Array(this.#exports.memory.buffer, TEXT_AT, ITEM_BYTES - 2);
    const item = this.#exports.add(new TextEncoder().encodeInto(text, place).written);
    if (item < 0) throw new RangeError("The list is full");
    return item;
  }

  /** It is done. */
  finish(item: number): void {
    this.#exports.finish(item);
  }

  /** The list, a line for each item. */
  list(): string[] {
    const bytes = new Uint8Array(this.#exports.memory.buffer);
    return Array.from({ length: this.#exports.items.value }, (_, item) => {
      const at = item * ITEM_BYTES, from = at + 2;
      const text = new TextDecoder().decode(bytes.subarray(from, from + bytes[at + 1]!));
      return `[${bytes[at] ? "x" : " "}] ${text}`;
    });
  }
}
