/**
 * SQLite on a database in ext4 on a region whose server is killed in the middle of transactions.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { shell, temporaryDirectory } from "./command.ts";
import { MountedFileSystem, startMount, startServer } from "./served_region.ts";
import { SqliteWriter } from "./sqlite_writer.ts";

const needs = requires(
  ...["root", "/dev/fuse", "/dev/loop-control", "mkfs.ext4", "sqlite3", "stdbuf"],
);
/** Transactions that are under way, or sent, when the server is killed. */
const BURST = 30;

/** Statements of one transaction that writes some 60 KB, and says so once it is committed. */
function transaction(id: number): string {
  return `BEGIN; ${insertion(id)} COMMIT; SELECT 'committed ${id}';`;
}

/** Spills to the database, or its log, before it is committed, as the cache is small. */
function insertion(id: number): string {
  const row = `SELECT ${id}, value, printf('%.*c', 3000, char(65 + (${id} + value) % 26))`;
  return `INSERT INTO part ${row} FROM generate_series(1, 20);`;
}

/** Whether all parts of every transaction that was begun are there, or none of them. */
const WHOLE = `SELECT count(*) FROM (SELECT id FROM part
  WHERE content = printf('%.*c', 3000, char(65 + (id + number) % 26))
  GROUP BY id HAVING count(*) = 20)`;
const PARTS = "SELECT count(*) FROM part";

async function query(database: string, statement: string): Promise<string> {
  return (await shell(`sqlite3 ${database} "${statement}"`)).trim();
}

/** Checks that a database is sound, and holds transactions 1 to `count` and nothing else. */
async function check(database: string, count: number): Promise<void> {
  assertEquals(await query(database, "PRAGMA integrity_check"), "ok");
  assertEquals(Number(await query(database, WHOLE)), count);
  assertEquals(Number(await query(database, PARTS)), 20 * count);
}

/** Writes to the device behind the file system, and leaves to others whether it is flushed. */
async function writeUnflushed(path: string): Promise<string> {
  await shell(`dd if=/dev/urandom of=${path} bs=64k count=16 oflag=direct 2>&1`);
  return await shell(`dd if=${path} bs=64k iflag=direct | sha256sum`);
}

function randomBelow(limit: number): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! % limit;
}

for (const journal of ["wal", "delete"] as const) {
  Deno.test({
    name: withReason(`sqlite (${journal}) outlives its server, killed in a transaction`, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const backend = `file:${directory.path}/region?size=128MiB`;
      let server = await startServer(backend);
      const { url } = server;
      try {
        const mount = await startMount(url, "loop");
        await using _mount = mount.process;
        await shell(`mkfs.ext4 -q ${mount.path}`);
        await using files = await MountedFileSystem.mount(mount.path);
        const database = `${files.path}/data.db`;
        const beside = `${files.path}/beside`;
        let sum = "";
        const killServer = async () => {
          sum = await writeUnflushed(beside);
          server.process.kill("SIGKILL");
          await server.process.end();
        };
        await using writer = new SqliteWriter(database);
        assertEquals(await writer.run(`PRAGMA journal_mode=${journal};`), journal);
        await writer.send("PRAGMA synchronous=FULL; PRAGMA cache_size=4;");
        await writer.send("CREATE TABLE part (id, number, content, PRIMARY KEY (id, number));");
        let id = 1;
        assertEquals(await writer.run(transaction(id)), `committed ${id}`);

        // With a transaction open, some of which was written already.
        id++;
        await writer.run(`BEGIN; ${insertion(id)} SELECT 'written';`);
        await killServer();
        await writer.send(`COMMIT; SELECT 'committed ${id}';`);
        const committed = writer.line();
        const first = await Promise.race([committed, startServer(backend, url)]);
        assert(typeof first !== "string", "a commit was acknowledged without a server");
        server = first;
        assertEquals(await committed, `committed ${id}`);

        // At any moment of a stream of transactions, with a server that comes back by and by.
        for (let round = 0; round < 2; round++) {
          const from = id + 1, killAt = from + randomBelow(BURST / 2);
          console.log(`killing the server after transaction ${killAt - from + 1} of ${BURST}`);
          for (let next = from; next < from + BURST; next++) await writer.send(transaction(next));
          for (id = from; id < from + BURST; id++) {
            assertEquals(await writer.line(), `committed ${id}`);
            if (id !== killAt) continue;
            await killServer();
            server = await startServer(backend, url);
          }
          id--;
        }
        assertEquals(await writer.end(), "");
        await check(database, id);
        assertEquals(await shell(`dd if=${beside} bs=64k iflag=direct | sha256sum`), sum);
        assertMatch(await shell(`grep ' ${files.path} ' /proc/mounts`), / ext4 rw,/);
        await files.unmount();
        await shell(`e2fsck -fn ${mount.path} 2>&1`);
        mount.process.kill("SIGTERM");
        const { code, err } = await mount.process.end();
        assertEquals(code, 0, err);

        // What the store itself holds, now that nothing else is left of it.
        server.process.kill("SIGTERM");
        assertEquals((await server.process.end()).code, 0);
        await using store = await MountedFileSystem.mount(`${directory.path}/region`, "loop");
        await check(`${store.path}/data.db`, id);
        await store.unmount();
      } finally {
        await server.process[Symbol.asyncDispose]();
      }
    },
  });
}
