/**
 * How `telemap leech` is told to pull, and how `telemap seed` gets at a region that asks for a token.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../requires.ts";
import { nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell } from "./command.ts";
import { testInDirectory } from "./test_in_directory.ts";

const MIB = 1 << 20;
const needs = requires("root", "/dev/fuse");
const LISTEN = ["--listen", "telemap://127.0.0.1:0", "--json"] as const;
const DEVICE = ["--device", "fuse", "--json"] as const;

const test = testInDirectory(needs);

test("a leecher pulls no faster than it is told to", async (directory) => {
  // Nothing of it compresses, or is zero.
  await shell(`head -c ${8 * MIB} /dev/urandom > ${directory}/region`);
  await using seeder = new TelemapProcess([
    ...["seed", `file:${directory}/region`, "--device", "fuse", ...LISTEN],
  ]);
  const { url } = await seeder.next();
  await using leecher = new TelemapProcess([
    ...["leech", `${url}`, "--cache", `file:${directory}/copy`, ...DEVICE],
    ...["--pull-rate", "4MiB/s", "--pull-workers", "2"],
  ]);
  let copied = await nextOf(leecher, "progress");
  while (copied["localBytes"] !== 8 * MIB) copied = await nextOf(leecher, "progress");
  // Of the copying alone, less what may be begun at once.
  const milliseconds = Number(copied["totalMs"]);
  assert(milliseconds > 1500, `8 MiB at 4 MiB a second came in ${milliseconds} ms`);
  const { path } = await nextOf(leecher, "ready");
  assertEquals(await Deno.readFile(`${path}`), await Deno.readFile(`${directory}/region`));
});

test("a way to pull that cannot be is one line", async (directory) => {
  for (
    const [option, value, why] of [
      ["--pull-workers", "0", "--pull-workers is a number from 1, not 0"],
      ["--pull-workers", "few", "--pull-workers is a number from 1, not few"],
      ["--pull-rate", "x", 'Cannot read "x" as a rate; write bytes a second, such as 100MB/s'],
      ["--pull-rate", "0MB/s", "Cannot pull at a rate of 0"],
    ] as const
  ) {
    const copy = `file:${directory}/copy`;
    const { code, err } = await telemap([
      ...["leech", "telemap://127.0.0.1:1", "--cache", copy, option, value],
    ]);
    assertEquals([code, err.split("\n").length], [2, 1], `${option} ${value}: ${err}`);
    assertStringIncludes(err, why);
  }
  assertEquals([...Deno.readDirSync(directory)], []);
});

test("a region at a server that wants a token is seeded with that", async (directory) => {
  const token = `${directory}/token`;
  await Deno.writeTextFile(token, "sesame\n");
  await using server = new TelemapProcess([
    ...["serve", "memory:1MiB", "--token-file", token, ...LISTEN],
  ]);
  const { url: backend } = await server.next();
  const refused = await telemap(["seed", `${backend}`, "--device", "fuse", ...LISTEN]);
  assertEquals([refused.code, refused.err.split("\n").length], [1, 1], refused.err);
  assertStringIncludes(refused.err, "A token is needed");
  // The token of its leechers is another one.
  await using seeder = new TelemapProcess([
    ...["seed", `${backend}`, "--backend-token-file", token, "--device", "fuse", ...LISTEN],
  ]);
  const { url, path } = await seeder.next();
  await shell(`printf behind | dd of=${path} conv=notrunc,fsync status=none`);
  await using leecher = new TelemapProcess([
    ...["leech", `${url}`, "--cache", `file:${directory}/copy`, ...DEVICE],
  ]);
  const ready = await nextOf(leecher, "ready");
  assertEquals(await shell(`head -c 6 ${ready["path"]}`), "behind");
  await nextOf(leecher, "complete");
  assertEquals((await seeder.end()).code, 0);
});
