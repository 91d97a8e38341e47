/**
 * Searches all worlds of a model, breadth first: that none is at fault, and that each has a way out.
 *
 * @module
 */

/** What is searched. */
export interface Model<World> {
  /** Where it begins. */
  first: World;
  /** The same for two worlds exactly where they are the same. */
  keyOf(world: World): string;
  /** Visits each world that may be the next one. */
  moves(world: World, visit: Visit<World>): void;
  /** What must not be in a world that follows on another; undefined where all is well. */
  faultOf(world: World, before: World): string | undefined;
  /** Whether everything is as it should be in the end. */
  isSettled(world: World): boolean;
  /** Whether there need be no way from here to a world that is settled. */
  isExcused(world: World): boolean;
}

/** `bySelf`: it happens by itself sooner or later, without a user or a fault. */
export type Visit<World> = (label: string, next: World, bySelf: boolean) => void;

/** What a move throws that must not be; the search names the moves that led there. */
export class Fault extends Error {}

/** What a search came to. */
export interface Found {
  /** Worlds that can be reached. */
  worlds: number;
  /** Moves from one to another. */
  moves: number;
  /** Worlds that are settled. */
  settled: number;
  /** What must not be, with the moves that lead there; undefined where all is well. */
  fault: string | undefined;
}

/** Searches a model to its end, or to the first fault. */
export function search<World>(model: Model<World>): Found {
  return new Search(model).run();
}

class Search<World> {
  readonly #model: Model<World>;
  readonly #worlds: World[] = [];
  readonly #indexes = new Map<string, number>();
  /** The world from which each was first reached, and how. */
  readonly #origins: { from: number; label: string }[] = [];
  /** From and to of the moves that happen by themselves, in turn. */
  readonly #bySelf: number[] = [];
  #moves = 0;

  constructor(model: Model<World>) {
    this.#model = model;
  }

  run(): Found {
    this.#reach(this.#model.first, -1, "the start");
    const fault = this.#firstFault();
    const settled = this.#worlds.flatMap((world, at) => this.#model.isSettled(world) ? [at] : []);
    return {
      ...{ worlds: this.#worlds.length, moves: this.#moves, settled: settled.length },
      fault: fault ?? this.#withoutWayOut(settled),
    };
  }

  #firstFault(): string | undefined {
    for (let at = 0; at < this.#worlds.length; at++) {
      const world = this.#worlds[at]!;
      let fault: string | undefined;
      try {
        this.#model.moves(world, (label, next, bySelf) => {
          this.#moves++;
          if (next === world) return;
          const known = this.#worlds.length;
          const to = this.#reach(next, at, label);
          if (to === known) fault ??= this.#faultAt(to, world);
          if (bySelf && to !== at) this.#bySelf.push(at, to);
        });
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        fault = `${error.message}: ${this.#pathTo(at)}`;
      }
      if (fault !== undefined) return fault;
    }
  }

  /** Answers the number of a world. */
  #reach(world: World, from: number, label: string): number {
    const key = this.#model.keyOf(world);
    const known = this.#indexes.get(key);
    if (known !== undefined) return known;
    const at = this.#worlds.push(world) - 1;
    this.#indexes.set(key, at);
    this.#origins.push({ from, label });
    return at;
  }

  #faultAt(at: number, before: World): string | undefined {
    const fault = this.#model.faultOf(this.#worlds[at]!, before);
    return fault && `${fault}: ${this.#pathTo(at)}`;
  }

  /** A world from which no settled one is reached by what happens by itself. */
  #withoutWayOut(settled: number[]): string | undefined {
    const before = this.#worlds.map((): number[] => []);
    for (let at = 0; at < this.#bySelf.length; at += 2) {
      before[this.#bySelf[at + 1]!]!.push(this.#bySelf[at]!);
    }
    const out = new Set(settled);
    for (const at of out) for (const from of before[at]!) out.add(from);
    const stuck = this.#worlds.findIndex((world, at) => {
      return !out.has(at) && !this.#model.isExcused(world);
    });
    return stuck < 0 ? undefined : `there is no way out: ${this.#pathTo(stuck)}`;
  }

  #pathTo(index: number): string {
    const labels: string[] = [];
    for (let at = index; at > 0; at = this.#origins[at]!.from) {
      labels.push(this.#origins[at]!.label);
    }
    return labels.reverse().join(" → ");
  }
}
