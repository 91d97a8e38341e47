/**
 * A database in use on ext4 that moves from process to process by `telemap seed` and `telemap leech`,
 * and what is known to have been committed to it.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DeviceKind } from "../../mod.ts";
import { type Event, nextOf, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory, tryShell } from "./command.ts";
import { SqliteWriter } from "./sqlite_writer.ts";

/** What a host needs for it, beside a device. */
export const DATABASE_NEEDS = ["mkfs.ext4", "sqlite3", "stdbuf"] as const;

/** Commits before a move begins, and after it. */
const COMMITS = 10;

/** The content of a row, in SQL: its number tells it, and rows have more than one page. */
const CONTENT = "printf('%.*c', 5000, char(65 + i % 26))";

const SCHEMA = "CREATE TABLE part (i INTEGER PRIMARY KEY, content TEXT);" +
  "CREATE TABLE total (count); INSERT INTO total VALUES (0); SELECT 'made';";

/** Rows that are not as they were written, and whether the total is of some other moment. */
const WRONG = `SELECT (SELECT count(*) FROM part WHERE content <> ${CONTENT})
  + (SELECT count(*) <> max(i) FROM part)
  + (SELECT count(*) FROM part) <> (SELECT count FROM total)`;

/** How a region is taken over: as soon as little is left, or by force, where that is too much. */
export const STRATEGIES = {
  wait: ["--max-downtime", "1s"],
  // No handover takes so little, so that the last of it always comes after.
  force: ["--strategy", "force", "--max-downtime", "1ms"],
} as const;

/** See the module. It begins without a file system. */
export class MovingDatabase {
  readonly #device: DeviceKind;
  #isMade = false;
  /** The last transaction that was told to be committed. */
  #committed = 0;

  /** Its region appears as that device everywhere. */
  constructor(device: DeviceKind) {
    this.#device = device;
  }

  /**
   * Moves the region from a backend to a cache while transactions are committed one after another,
   * and checks that it is whole there, can be written and is in order. Answers in words for how long
   * the database stood still.
   */
  async move(from: string, to: string, strategy: keyof typeof STRATEGIES): Promise<string> {
    using source = temporaryDirectory();
    using target = temporaryDirectory();
    using beside = temporaryDirectory();
    const pid = `${beside.path}/pid`, device = ["--device", this.#device, "--json"];
    // In the middle of a transaction as likely as not.
    const suspend = `kill -9 $(cat ${pid}); ` +
      `until umount ${source.path} 2>/dev/null; do sleep 0.01; done`;
    const seeding = ["--listen", "telemap://127.0.0.1:0", "--suspend", suspend, ...device];
    await using seeder = new TelemapProcess(["seed", from, ...seeding]);
    const { url, path } = await seeder.next();
    await using undo = new AsyncDisposableStack();
    if (!this.#isMade) await shell(`mkfs.ext4 -q ${path}`);
    undo.defer(() => unmountWhereMounted(source.path));
    await shell(`mount ${path} ${source.path}`);
    await using writer = new SqliteWriter(`${source.path}/db`);
    await Deno.writeTextFile(pid, `${writer.pid}`);
    await this.#begin(writer);
    const before = this.#committed;
    const killed = this.#commitForEver(writer);

    const leeching = ["--cache", to, ...STRATEGIES[strategy], ...device];
    await using leecher = new TelemapProcess(["leech", `${url}`, ...leeching]);
    const ready = await nextOf(leecher, "ready");
    undo.defer(() => unmountWhereMounted(target.path));
    await shell(`mount ${ready["path"]} ${target.path}`);
    assertEquals(await killed, "", "the writer failed");
    const committed = this.#committed;
    assert(committed > before, "nothing was written while the region moved");
    const { predictedDowntimeMs: predicted } = ready;
    assert(strategy === "wait" || Number(predicted) > 1, "nothing was forced");
    await this.#check(`${target.path}/db`);
    await this.#commitSome(`${target.path}/db`);
    await nextOf(leecher, "complete");
    const { code, err } = await seeder.end();
    assertEquals({ code, err }, { code: 0, err: "" });

    await this.#check(`${target.path}/db`);
    assertMatch(await shell(`grep ' ${target.path} ' /proc/mounts`), / ext4 rw,/);
    await shell(`umount ${target.path} && e2fsck -fn ${ready["path"]} 2>&1`);
    leecher.kill("SIGINT");
    const ended = await leecher.end();
    assertEquals([ended.code, ended.err], [0, ""]);
    return `${this.#device}, ${strategy}: ${words(ready)}, ${committed - before} commits`;
  }

  /** Makes the tables where there are none, and commits a little. */
  async #begin(writer: SqliteWriter): Promise<void> {
    await writer.send("PRAGMA synchronous=FULL;");
    if (!this.#isMade) assertEquals(await writer.run(SCHEMA), "made");
    this.#isMade = true;
    for (let count = 0; count < COMMITS; count++) await this.#commit(writer);
  }

  async #commit(writer: SqliteWriter): Promise<void> {
    const i = this.#committed + 1;
    const insert = `INSERT INTO part SELECT i, ${CONTENT} FROM (SELECT ${i} AS i);`;
    const update = `UPDATE total SET count = ${i};`;
    assertEquals(await writer.run(`BEGIN; ${insert} ${update} COMMIT; SELECT ${i};`), `${i}`);
    this.#committed = i;
  }

  /** Commits until the writer is killed; answers what that said of errors. */
  async #commitForEver(writer: SqliteWriter): Promise<string> {
    try {
      for (;;) await this.#commit(writer);
    } catch {
      return await writer.end();
    }
  }

  async #commitSome(database: string): Promise<void> {
    await using writer = new SqliteWriter(database);
    await this.#begin(writer);
    assertEquals(await writer.end(), "");
  }

  /** Checks that a database is sound, and has all that was committed and nothing else. */
  async #check(database: string): Promise<void> {
    const statements = `PRAGMA integrity_check; SELECT count FROM total; ${WRONG};`;
    const told = await shell(`sqlite3 ${database} "${statements}"`);
    const [integrity, total, wrong] = told.trim().split("\n");
    assertEquals([integrity, wrong], ["ok", "0"], told);
    const count = Number(total);
    // The last commit may not have been told of any more.
    const isAll = count === this.#committed || count === this.#committed + 1;
    assert(isAll, `${count} transactions are there, and ${this.#committed} were committed`);
    this.#committed = count;
  }
}

function words({ downtimeMs, suspendMs, rounds, lastSetBytes }: Event): string {
  const [downtime, suspend] = [downtimeMs, suspendMs].map((ms) => Number(ms).toFixed(1));
  return `${downtime} ms of downtime (${suspend} to suspend) after ${rounds} rounds, ` +
    `${Number(lastSetBytes) / 1024} KiB in the last set`;
}

/** For the end of a test that failed; lazily, as whoever has the region may be gone. */
async function unmountWhereMounted(path: string): Promise<void> {
  await tryShell(`umount --lazy ${path}`);
}
