/**
 * SQLite compiled to WebAssembly, as it comes from npm, with a database in its memory; and, run by
 * itself, a process that writes to one until it is taken over.
 *
 * @module
 */
import initSqlJs from "sql.js";
import { seedInstance } from "../../mod.ts";

/** What of the glue around SQLite is used here. */
interface Sqlite {
  _malloc(bytes: number): number;
  _free(place: number): void;
  stackAlloc(bytes: number): number;
  HEAP32: Int32Array;
  HEAPU8: Uint8Array;
  cwrap(name: string, result: string, args: string[]): (...args: (number | string)[]) => number;
}

/**
 * Memory that an instance takes before it is used: the glue would not notice that it grows as it is
 * moved.
 */
const ROOM = 32 << 20;

const { pathname: GLUE } = new URL(import.meta.resolve("sql.js"));

/** An instance of SQLite, and how to call it. */
export class WasmSqlite {
  /** The instance. */
  readonly instance: WebAssembly.Instance;
  readonly #sqlite: Sqlite;

  /** Makes an instance in which no database is open. */
  static async make(): Promise<WasmSqlite> {
    const bytes = await Deno.readFile(GLUE.replace(/\.js$/, ".wasm"));
    let instance: WebAssembly.Instance | undefined;
    const sqlite: Sqlite = await initSqlJs({
      instantiateWasm(imports: WebAssembly.Imports, receive: (made: WebAssembly.Instance) => void) {
        WebAssembly.instantiate(bytes, imports).then((made) => receive(instance = made.instance));
        return {};
      },
    });
    sqlite._free(sqlite._malloc(ROOM));
    return new WasmSqlite(instance!, sqlite);
  }

  private constructor(instance: WebAssembly.Instance, sqlite: Sqlite) {
    this.instance = instance;
    this.#sqlite = sqlite;
  }

  /** Opens a database in memory; answers where SQLite keeps what it knows of it. */
  open(): number {
    const place = this.#sqlite.stackAlloc(4);
    const code = this.#call("sqlite3_open", ["string", "number"])(":memory:", place);
    if (code !== 0) throw new Error(`SQLite answers ${code}`);
    return this.#sqlite.HEAP32[place >> 2]!;
  }

  /** Runs statements that answer nothing. */
  run(db: number, sql: string): void {
    const types = ["number", "string", "number", "number", "number"];
    const code = this.#call("sqlite3_exec", types)(db, sql, 0, 0, 0);
    if (code !== 0) throw new Error(`SQLite answers ${code} to ${sql}`);
  }

  /** The first column of the first row of what a statement answers. */
  ask(db: number, sql: string): string {
    const place = this.#sqlite.stackAlloc(4);
    const types = ["number", "string", "number", "number", "number"];
    this.#call("sqlite3_prepare_v2", types)(db, sql, -1, place, 0);
    const statement = this.#sqlite.HEAP32[place >> 2]!;
    this.#call("sqlite3_step", ["number"])(statement);
    const at = this.#call("sqlite3_column_text", ["number", "number"])(statement, 0);
    const { HEAPU8 } = this.#sqlite;
    const text = new TextDecoder().decode(HEAPU8.subarray(at, HEAPU8.indexOf(0, at)));
    this.#call("sqlite3_finalize", ["number"])(statement);
    return text;
  }

  #call(name: string, args: string[]): (...args: (number | string)[]) => number {
    return this.#sqlite.cwrap(name, "number", args);
  }
}

/** Transactions of ten rows each, until it is suspended. */
async function writeUntilSuspended(): Promise<void> {
  const sqlite = await WasmSqlite.make(), db = sqlite.open();
  sqlite.run(db, "create table t(id integer primary key, text, twice)");
  let isGoing = true, rows = 0;
  const stopped = Promise.withResolvers<void>();
  const seeded = await seedInstance(sqlite.instance, {
    listen: "telemap://127.0.0.1:0",
    state: () => ({ db, rows }),
    hooks: {
      async onSuspend() {
        isGoing = false;
        await stopped.promise;
      },
    },
  });
  console.log(seeded.url);
  while (isGoing) {
    const values = Array.from({ length: 10 }, () => `(${++rows}, 'row ${rows}', ${2 * rows})`);
    sqlite.run(db, `begin; insert into t values ${values}; commit; delete from t where id = 7`);
    if (rows === 1000) console.log("at work");
    await new Promise((resolve) => setTimeout(resolve));
  }
  console.log(`${rows}`);
  stopped.resolve();
  await seeded.released;
  await seeded.close();
}

if (import.meta.main) await writeUntilSuspended();
