/**
 * Databases in use move between processes on NBD devices. Runs inside the virtual machine (see
 * `../vm_test.ts`), as root.
 *
 * @module
 */
import { temporaryDirectory } from "../../device/command.ts";
import { MovingDatabase } from "../../device/moving_database.ts";

Deno.test("databases in use on ext4 move between nbd devices, and no commit is lost", async () => {
  using directory = temporaryDirectory();
  // Both at a time, as starting a process takes many seconds on the emulated processors.
  const moves = (["wait", "force"] as const).map((strategy) => {
    const [from, to] = ["from", "to"].map((name) => `file:${directory.path}/${name}-${strategy}`);
    return new MovingDatabase("nbd").move(`${from}?size=16MiB`, to!, strategy);
  });
  await Promise.allSettled(moves);
  for (const words of await Promise.all(moves)) note(words);
});

/** Prints a line for `../vm_test.ts`: of what tests print, the TAP reporter drops everything. */
function note(words: string): void {
  Deno.writeTextFileSync("/dev/ttyS1", `# note: ${words}\n`, { append: true });
}
