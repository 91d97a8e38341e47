/**
 * `telemap migrate demo`: writes to a region here without a pause, has another process take it over,
 * and goes on writing there.
 *
 * @module
 */
import { ConnectionError, IntegrityError, type MigrationMetrics, Seeder } from "../mod.ts";
import { OwnProcess } from "./own_process.ts";

const SIZE = 64 << 20, PAGE = 4096;
/** Pages that are written again and again. */
const PAGES = 256;
/** For so long the program runs at either side, in ms. */
const RUN_MS = 1000;

/** See the module. */
export async function demonstrateMigration(json: boolean): Promise<void> {
  const say = json ? () => {} : (line: string) => console.log(line);
  const directory = await Deno.makeTempDir({ prefix: "telemap-demo-" });
  try {
    const program = new Program();
    await using seeder = await Seeder.open({
      backend: `memory:${SIZE}`,
      listen: "telemap://127.0.0.1:0",
      as: "path",
      hooks: { onSuspend: () => program.stop() },
    });
    program.start(seeder.mount.path!);
    say(`A program writes to ${seeder.mount.path} (${seeder.mount.device}), process ${Deno.pid}`);
    await pause(RUN_MS);
    const cache = `file:${directory}/region`;
    await using leecher = new OwnProcess(["leech", seeder.url, "--cache", cache, "--json"]);
    const { path, ...metrics } = await taken(leecher);
    const moved = program.count;
    program.start(path);
    say(`Process ${leecher.pid} took it over; the program writes to ${path} now`);
    say(`It stood still for ${metrics.downtimeMs.toFixed(1)} ms, as its ${moved}th write was done`);
    await pause(RUN_MS);
    await program.stop();
    program.verify(path);
    say(`It went on to write ${program.count}; all ${PAGES} pages are as they should be`);
    if (json) {
      const { downtimeMs, rounds, receivedBytes } = metrics;
      const figures = { downtimeMs, rounds, receivedBytes, moved, count: program.count };
      console.log(JSON.stringify({ event: "done", ...figures }));
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Writes a count that goes up, to one page after the other. */
class Program {
  /** Writes that were done, wherever. */
  count = 0;
  #writing: Promise<void> | undefined;
  #going = false;

  start(path: string): void {
    this.#going = true;
    this.#writing = this.#write(path);
  }

  async stop(): Promise<void> {
    this.#going = false;
    await this.#writing;
  }

  /** Throws {@linkcode IntegrityError} unless every page holds what was written to it last. */
  verify(path: string): void {
    using file = Deno.openSync(path);
    const page = new Float64Array(PAGE / 8);
    for (let index = 0; index < PAGES; index++) {
      file.seekSync(index * PAGE, Deno.SeekMode.Start);
      file.readSync(new Uint8Array(page.buffer));
      const last = Math.floor((this.count - 1 - index) / PAGES) * PAGES + index;
      if (page.every((value) => value === last)) continue;
      throw new IntegrityError(`Page ${index} holds ${page[0]} in place of ${last}`);
    }
  }

  async #write(path: string): Promise<void> {
    using file = await Deno.open(path, { read: true, write: true });
    const page = new Float64Array(PAGE / 8), bytes = new Uint8Array(page.buffer);
    while (this.#going) {
      page.fill(this.count);
      await file.seek(this.count % PAGES * PAGE, Deno.SeekMode.Start);
      await file.write(bytes);
      this.count++;
    }
    await file.sync();
  }
}

interface Taken extends MigrationMetrics {
  event: string;
  path: string;
}

/** What a leecher tells once it has taken the region over. */
async function taken(leecher: OwnProcess): Promise<Taken> {
  for (;;) {
    const event = await leecher.next<Taken>();
    if (event === undefined) throw new ConnectionError("The other process took nothing over");
    if (event.event === "ready") return event;
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
