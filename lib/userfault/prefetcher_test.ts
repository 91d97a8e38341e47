import { assert, assertEquals } from "@std/assert";
import { EPOLL, EventFd } from "../../ffi/epoll.ts";
import { openLibc } from "../../ffi/libc.ts";
import { Reactor } from "../net/reactor.ts";
import { PagedRegion } from "./paged_region.ts";
import { Prefetcher } from "./prefetcher.ts";

openLibc();

const PAGE = 4096;
const MIB_PAGES = (1 << 20) / PAGE;

/** Regions one behind the other, of so many pages each. */
function regionsOf(...pages: number[]): PagedRegion[] {
  let address = PAGE;
  return pages.map((count) => {
    const region = new PagedRegion(
      { address, size: count * PAGE, offset: address, pageSize: PAGE },
      PAGE,
      PAGE,
    );
    address += count * PAGE;
    return region;
  });
}

interface Pull {
  region: number;
  from: number;
  to: number;
  answer: (well: boolean) => void;
}

/** A prefetcher whose pulls a test answers, in a reactor that runs. */
class Stage implements AsyncDisposable {
  readonly regions: PagedRegion[];
  readonly pulls: Pull[] = [];
  readonly prefetcher: Prefetcher;
  readonly reactor: Reactor;
  readonly #wake = new EventFd();
  readonly #running: Promise<void>;
  #onPull: () => void = () => {};

  /** `answer` is called with each pull, within it. */
  constructor(regions: PagedRegion[], atOnce: boolean, answer: (pull: Pull) => void = () => {}) {
    this.regions = regions;
    this.reactor = new Reactor(this.#wake);
    this.prefetcher = new Prefetcher(this.reactor, regions, {
      atOnce,
      pull: (region, from, to, done) => {
        region.beginAhead(from, to);
        const pull = {
          region: regions.indexOf(region),
          from,
          to,
          answer: (well: boolean) => {
            if (well) region.settle(from, to);
            else region.giveUpAhead(from, to);
            done(well);
          },
        };
        this.pulls.push(pull);
        answer(pull);
        this.#onPull();
      },
    });
    this.#running = this.reactor.run();
  }

  /** Answers when there were so many pulls. */
  async pulled(count: number): Promise<Pull[]> {
    if (this.pulls.length < count) {
      await new Promise<void>((resolve) => {
        this.#onPull = () => this.pulls.length >= count && resolve();
      });
    }
    return this.pulls;
  }

  /** Lets the reactor do what is due. */
  async turn(): Promise<void> {
    for (let turn = 0; turn < 3; turn++) {
      await new Promise<void>((resolve) => {
        this.reactor.addDeadline(performance.now(), resolve);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.prefetcher.stop();
    this.reactor.stop();
    await this.#running;
    this.reactor[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
  }
}

function runsOf(pulls: Pull[]): [number, number, number][] {
  return pulls.map(({ region, from, to }) => [region, from, to]);
}

Deno.test("Prefetcher pulls 1 MiB a piece, eight at a time, until all is there", async () => {
  await using stage = new Stage(regionsOf(10 * MIB_PAGES + 5, 3), false);
  await stage.pulled(8);
  await stage.turn();
  const first = Array.from(
    { length: 8 },
    (_, piece): [number, number, number] => [0, piece * MIB_PAGES, (piece + 1) * MIB_PAGES],
  );
  assertEquals(runsOf(stage.pulls), first);
  stage.pulls[4]!.answer(true);
  await stage.pulled(9);
  await stage.turn();
  assertEquals(stage.pulls.length, 9);
  const completed = stage.prefetcher.completed;
  for (let answered = 0; answered < 12; answered++) {
    if (answered !== 4) (await stage.pulled(answered + 1))[answered]!.answer(true);
  }
  await completed;
  assertEquals(runsOf(stage.pulls.slice(8)), [
    [0, 8 * MIB_PAGES, 9 * MIB_PAGES],
    [0, 9 * MIB_PAGES, 10 * MIB_PAGES],
    [0, 10 * MIB_PAGES, 10 * MIB_PAGES + 5],
    [1, 0, 3],
  ]);
  assert(stage.regions.every((region) => region.isComplete));
});

for (const atOnce of [true, false]) {
  const how = atOnce ? "says so" : "is found to";
  Deno.test(`Prefetcher gives way to events where the backend ${how} answer at once`, async () => {
    using event = new EventFd();
    event.signal();
    let seen = -1;
    await using stage = new Stage(regionsOf(40 * MIB_PAGES), atOnce, (pull) => pull.answer(true));
    stage.reactor.add(event.fd, EPOLL.IN, () => {
      event.drain();
      seen = stage.pulls.length;
    });
    await stage.prefetcher.completed;
    const piece = atOnce ? MIB_PAGES / 16 : MIB_PAGES;
    assertEquals(runsOf(stage.pulls.slice(0, 2)), [[0, 0, piece], [0, piece, 2 * piece]]);
    assert(seen >= 0 && seen <= 2, `${seen} pieces came before an event`);
  });
}

Deno.test("Prefetcher goes on where a fault was, and leaves out what others pull", async () => {
  await using stage = new Stage(regionsOf(4 * MIB_PAGES, 3 * MIB_PAGES), false);
  stage.regions[1]!.beginUrgent(MIB_PAGES + 10, MIB_PAGES + 20);
  stage.prefetcher.faulted(stage.regions[1]!, MIB_PAGES);
  await stage.pulled(8);
  assertEquals(runsOf(stage.pulls), [
    [1, MIB_PAGES, MIB_PAGES + 10],
    [1, MIB_PAGES + 20, 2 * MIB_PAGES + 20],
    [1, 2 * MIB_PAGES + 20, 3 * MIB_PAGES],
    [0, 0, MIB_PAGES],
    [0, MIB_PAGES, 2 * MIB_PAGES],
    [0, 2 * MIB_PAGES, 3 * MIB_PAGES],
    [0, 3 * MIB_PAGES, 4 * MIB_PAGES],
    [1, 0, MIB_PAGES],
  ]);
});

Deno.test("Prefetcher waits for what faults pull before it is complete", async () => {
  await using stage = new Stage(regionsOf(4), true, (pull) => pull.answer(true));
  const { regions: [region] } = stage;
  region!.beginUrgent(1, 2);
  let complete = false;
  const completed = stage.prefetcher.completed.then(() => complete = true);
  await stage.pulled(2);
  await stage.turn();
  assertEquals(complete, false);
  region!.settle(1, 2);
  await completed;
});

Deno.test("Prefetcher pauses after a failure, and pulls again what failed", async () => {
  await using stage = new Stage(regionsOf(2), false);
  const [pull] = await stage.pulled(1);
  const failed = performance.now();
  pull!.answer(false);
  await stage.pulled(2);
  assert(performance.now() - failed >= 900, "it tried again at once");
  stage.pulls[1]!.answer(true);
  await stage.prefetcher.completed;
  assertEquals(runsOf(stage.pulls), [[0, 0, 2], [0, 0, 2]]);
});

Deno.test("Prefetcher pulls nothing more once it is stopped", async () => {
  await using stage = new Stage(regionsOf(20 * MIB_PAGES), false);
  await stage.pulled(8);
  stage.prefetcher.stop();
  for (const { answer } of stage.pulls.slice()) answer(true);
  await stage.turn();
  assertEquals(stage.pulls.length, 8);
});
