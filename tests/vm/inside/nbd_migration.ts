/**
 * A database in use moves between processes on NBD devices. Runs inside the virtual machine (see
 * `../vm_test.ts`), as root.
 *
 * @module
 */
import { moveTwice } from "../../device/moving_database.ts";

// The emulated processor is slow.
Deno.test("a database in use on ext4 moves between nbd devices twice, and no commit is lost", () => {
  return moveTwice("nbd", ["--max-downtime", "1s"]);
});
