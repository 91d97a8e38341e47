/**
 * A region whose size is no multiple of a page moves by a file of fuse, with its last byte.
 */
import { assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { nextOf, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory } from "./command.ts";

const SIZE = 3 * 4096 + 5;
const needs = requires("root", "/dev/fuse");

Deno.test({
  name: withReason("a region of an odd size moves to its last byte", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const content = new Uint8Array(SIZE).map((_, at) => at % 251 + 1);
    await Deno.writeFile(`${directory.path}/region`, content);
    await using seeder = new TelemapProcess([
      ...["seed", `file:${directory.path}/region`, "--device", "fuse", "--json"],
      ...["--listen", "telemap://127.0.0.1:0"],
    ]);
    const { url, path, size } = await seeder.next();
    assertEquals(size, SIZE);
    const last = (text: string, device: unknown) =>
      shell(`printf ${text} | dd of=${device} bs=1 seek=${SIZE - 1} conv=notrunc status=none`);
    await last("a", path);
    await using leecher = new TelemapProcess([
      ...["leech", `${url}`, "--cache", `file:${directory.path}/copy`, "--device", "fuse"],
      "--json",
    ]);
    const ready = await nextOf(leecher, "ready");
    content[SIZE - 1] = "a".charCodeAt(0);
    assertEquals(await Deno.readFile(`${ready["path"]}`), content);
    await last("b", ready["path"]);
    await nextOf(leecher, "complete");
    assertEquals((await seeder.end()).code, 0);
    leecher.kill("SIGINT");
    assertEquals((await leecher.end()).code, 0);
    content[SIZE - 1] = "b".charCodeAt(0);
    assertEquals(await Deno.readFile(`${directory.path}/copy`), content);
  },
});
