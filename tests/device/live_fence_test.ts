/**
 * A program that still has a device open whose region was given away, while its seeder lives on: what it
 * writes fails, and gets nowhere.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { nextOf, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory, tryShell } from "./command.ts";

const SIZE = 3 << 20, AT = 4096;
const needs = requires("root", "/dev/fuse", "/dev/loop-control");

for (const device of ["loop", "fuse"] as const) {
  Deno.test({
    name: withReason(`what is written by ${device} after the region was given away fails`, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const region = `${directory.path}/region`;
      await Deno.writeFile(region, new Uint8Array(SIZE).fill(1));
      // Slow, so that the seeder is needed for longer than the test takes.
      await using seeder = new TelemapProcess([
        ...["seed", `delay:file:${region}#rate=1MB/s`, "--device", device],
        ...["--listen", "telemap://127.0.0.1:0", "--json"],
      ]);
      const { url, path } = await seeder.next();
      const [go, log] = [`${directory.path}/go`, `${directory.path}/log`];
      await shell(`mkfifo ${go}`);
      // As a program that has opened it before, and does not close it.
      const writing = tryShell(
        `exec 3<>${path}; echo > ${log}; read _ < ${go};
         head -c ${AT} /dev/zero | dd bs=${AT} seek=1 conv=notrunc,fdatasync status=none >&3`,
      );
      await using leecher = new TelemapProcess([
        ...["leech", `${url}`, "--cache", `file:${directory.path}/copy`, "--device", device],
        ...["--strategy", "force", "--max-time", "0", "--json"],
      ]);
      const ready = await nextOf(leecher, "ready");
      assert(Number(ready["localBytes"]) < SIZE, "the seeder may have gone already");
      await Deno.writeTextFile(go, "\n");
      const { success, stderr } = await writing;
      assertEquals(success, false, "it was told that all is durable");
      const why = device === "loop"
        ? /Input\/output error/
        : /Operation not permitted|Permission denied/;
      assertMatch(stderr, why);
      const stage = await nextOf(seeder, "stage");
      assertEquals(stage["stage"], "suspending");
      for (const each of ["offered", "given"]) {
        assertEquals((await nextOf(seeder, "stage"))["stage"], each);
      }
      assertEquals((await Deno.readFile(region))[AT], 1);
      assertEquals(
        await shell(
          `dd if=${ready["path"]} bs=${AT} skip=1 count=1 status=none | tr -d '\\001' | wc -c`,
        ),
        "0\n",
      );
      leecher.kill("SIGINT");
      assertEquals((await leecher.end()).code, 0);
    },
  });
}
