/**
 * A SQLite database, and a query that looks up rows which lie all over it: each takes a page of the
 * index and one of the table, and the next one is known only when both are there.
 *
 * @module
 */

/** Bytes of a row in the table and the index, about. */
const ROW_BYTES = 1044;

/** The database, and how much is looked up in it. */
export interface Lookups {
  /** Rows that it has. */
  rows: number;
  /** Rows that the query looks up. */
  lookups: number;
}

/** The rows of a database of about so many bytes. */
export function rowsOf(bytes: number): number {
  return Math.floor(bytes / ROW_BYTES);
}

/** Makes the database with the command `sqlite3`. */
export async function makeDatabase(path: string, { rows }: Lookups): Promise<void> {
  await sqlite([path], [
    "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;",
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, body BLOB);",
    `INSERT INTO item SELECT value, ${nameOf("value")}, randomblob(900)`,
    `FROM generate_series(1, ${rows});`,
    "CREATE INDEX item_name ON item (name);",
  ]);
}

/** Starts `sqlite3`, which looks rows up; answers the milliseconds until it has ended. */
export async function lookUp(path: string, { rows, lookups }: Lookups): Promise<number> {
  const step = Math.floor(rows / lookups);
  const start = performance.now();
  const found = await sqlite(["-readonly", path], [
    `WITH wanted(name) AS MATERIALIZED (SELECT ${nameOf(`value * ${step}`)}`,
    `FROM generate_series(1, ${lookups}))`,
    "SELECT count(*), sum(id), sum(length(body)) FROM wanted CROSS JOIN item USING (name);",
  ]);
  const lasted = performance.now() - start;
  const expected = [lookups, step * lookups * (lookups + 1) / 2, 900 * lookups].join("|");
  if (found !== expected) throw new Error(`The query found ${found} instead of ${expected}`);
  return lasted;
}

/** Neighbours in the table have names that are none in the index. */
function nameOf(id: string): string {
  return `printf('%08x', ${id} * 2654435761 % 4294967296)`;
}

async function sqlite(args: string[], statements: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sqlite3", {
    args: [...args, statements.join(" ")],
  }).output();
  if (!success) throw new Error(`sqlite3 failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout).trim();
}
