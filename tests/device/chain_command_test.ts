/**
 * `telemap leech --listen`: a region moves from process to process to process, on the way in use on one
 * and the same device.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { requires } from "../requires.ts";
import { nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell } from "./command.ts";
import { testInDirectory } from "./test_in_directory.ts";

const needs = requires("root", "/dev/fuse");
const LISTEN = ["--listen", "telemap://127.0.0.1:0", "--json"] as const;

const test = testInDirectory(needs);

/** A program that writes the numbers from a first one on into a file that it opened once. */
class Counter implements Disposable {
  readonly #file: Deno.FsFile;
  /** The last number that was written, also at the place that it tells. */
  count: number;
  #closed = false;

  constructor(path: string, count: number) {
    this.#file = Deno.openSync(path, { read: true, write: true });
    this.count = count;
  }

  async step(): Promise<void> {
    const number = BigUint64Array.of(BigInt(this.count + 1));
    for (const offset of [0, 8 * (this.count + 1)]) {
      await this.#file.seek(offset, Deno.SeekMode.Start);
      assertEquals(await this.#file.write(new Uint8Array(number.buffer)), 8);
    }
    this.count++;
  }

  /** Counts until somebody makes that file; then makes another one, and ends. */
  async until(stop: string, stopped: string): Promise<void> {
    while (!existsSync(stop)) await this.step();
    await Deno.writeTextFile(stopped, "");
  }

  /** Lets go of the file; again: does nothing. */
  [Symbol.dispose](): void {
    if (!this.#closed) this.#file.close();
    this.#closed = true;
  }
}

/** The count that a region tells of, all of whose numbers are there. */
async function countIn(path: unknown): Promise<number> {
  const numbers = new BigUint64Array((await Deno.readFile(`${path}`)).buffer);
  const count = Number(numbers[0]);
  for (let number = 1; number <= count; number++) {
    assertEquals(Number(numbers[number]), number, `number ${number} of ${count}`);
  }
  assertEquals(numbers[count + 1], 0n);
  return count;
}

test("a region moves on from a leecher, whose program goes on until then", async (directory) => {
  const [a, b, c] = [`file:${directory}/a`, `file:${directory}/b`, `file:${directory}/c`];
  const [stop, stopped] = [`${directory}/stop`, `${directory}/stopped`];
  await using first = new TelemapProcess([
    ...["seed", `${a}?size=16MiB`, "--device", "fuse"],
    ...LISTEN,
  ]);
  const begun = await first.next();
  {
    using counter = new Counter(`${begun["path"]}`, 0);
    for (let step = 0; step < 10; step++) await counter.step();
  }
  const suspend = `echo > ${stop}; until [ -e ${stopped} ]; do sleep 0.01; done`;
  await using second = new TelemapProcess([
    ...["leech", `${begun["url"]}`, "--cache", b, "--device", "fuse"],
    ...["--suspend", suspend, ...LISTEN],
  ]);
  const here = await nextOf(second, "ready");
  assertEquals(await countIn(here["path"]), 10);
  using counter = new Counter(`${here["path"]}`, 10);
  const counting = counter.until(stop, stopped);
  const { url } = await nextOf(second, "seeding");
  assertEquals((await first.end()).code, 0);
  const before = counter.count;
  await using third = new TelemapProcess([
    ...["leech", `${url}`, "--cache", c, "--device", "fuse", "--json"],
  ]);
  const there = await nextOf(third, "ready");
  await counting;
  assert(counter.count > before, "nothing was written while the region moved on");
  assertEquals([await countIn(there["path"]), there["epoch"]], [counter.count, 2]);
  // It is refused, or the second has gone already.
  await assertRejects(() => counter.step(), Error);
  counter[Symbol.dispose]();
  await nextOf(third, "complete");
  const { code, events, err } = await second.end();
  assertEquals([code, err], [0, ""]);
  assertEquals(
    events.map(({ event, stage }) => stage ?? event).filter((event) => event !== "progress"),
    ["suspending", "offered", "given", "released", "closed"],
  );
  const status = await telemap(["migrate", "status", b, "--json"]);
  const { state, writable } = JSON.parse(status.out);
  assertEquals([state, writable], ["released", false]);
});

test("a group moves on from a leecher, too", async (directory) => {
  const parts = ["a", "b"].flatMap((name) => [
    ...["--group", `${name}=file:${directory}/${name}?size=1MiB`],
  ]);
  await using first = new TelemapProcess(["seed", ...parts, "--device", "fuse", ...LISTEN]);
  const { url } = await first.next();
  const leeching = ["--group", "--device", "fuse"];
  await using second = new TelemapProcess([
    ...["leech", `${url}`, "--cache", `file:${directory}/c`, ...leeching, ...LISTEN],
  ]);
  const here = await nextOf(second, "ready");
  const [, b] = here["parts"] as { path: string }[];
  const next = await nextOf(second, "seeding");
  await shell(`printf 'on the way' | dd of=${b!.path} conv=notrunc status=none`);
  await using third = new TelemapProcess([
    ...["leech", `${next["url"]}`, "--cache", "memory:", ...leeching, "--json"],
  ]);
  const [, last] = (await nextOf(third, "ready"))["parts"] as { path: string }[];
  assertStringIncludes(await Deno.readTextFile(last!.path), "on the way");
});

test("a leecher that cannot listen says so, and nothing has moved", async (directory) => {
  const region = `file:${directory}/region`;
  await using seeder = new TelemapProcess([
    ...["seed", `${region}?size=1MiB`, "--device", "fuse"],
    ...LISTEN,
  ]);
  const { url } = await seeder.next();
  const leech = (...more: string[]) =>
    telemap(["leech", `${url}`, "--cache", `file:${directory}/copy`, "--device", "fuse", ...more]);
  for (
    const [code, args, why] of [
      [1, ["--listen", `${url}`], "EADDRINUSE"],
      [1, ["--listen", `${url}`, "--strategy", "force", "--max-time", "0"], "EADDRINUSE"],
      [2, ["--listen", "telemap://0.0.0.0:0"], "--token-file"],
      [2, ["--listen", "nowhere"], "nowhere"],
      [2, ["--suspend", "true"], "--listen"],
    ] as const
  ) {
    const outcome = await leech(...args);
    assertEquals(outcome.code, code, outcome.err);
    assertStringIncludes(outcome.err, why);
    assertEquals(outcome.err.split("\n").length, 1, outcome.err);
  }
  const { out } = await telemap(["migrate", "status", region, "--json"]);
  assertEquals(JSON.parse(out).state, "owner");
});

test("a leecher that is stopped before it took over lets go of its address", async (directory) => {
  await using seeder = new TelemapProcess([
    ...["seed", `file:${directory}/region?size=1MiB`, "--device", "fuse"],
    ...LISTEN,
  ]);
  const { url } = await seeder.next();
  const socket = `${directory}/socket`;
  await using standby = new TelemapProcess([
    ...["leech", `${url}`, "--cache", `file:${directory}/copy`, "--device", "fuse", "--json"],
    ...["--follow", "50ms", "--listen", `telemap+unix:///?socket=${socket}`],
  ]);
  await nextOf(standby, "lag");
  assert(existsSync(socket));
  standby.kill("SIGINT");
  const { code, err } = await standby.end();
  assertEquals([code, err], [0, ""]);
  assert(!existsSync(socket));
});
