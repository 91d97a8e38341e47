/** WebAssembly instances that move to another process while they compute. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { TextLineStream } from "@std/streams";
import { openLibc } from "../../ffi/libc.ts";
import { instantiate, Program } from "../../examples/moving_instance/program.ts";
import { migrateInstance, seedInstance, UsageError } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { WasmSqlite } from "./wasm_sqlite.ts";

openLibc();

const needs = requires("/dev/userfaultfd");

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** A program of this repository in a process of its own, and the lines that it prints. */
class Source implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;

  constructor(path: string) {
    const { pathname } = new URL(path, import.meta.url);
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "-A", pathname],
      stdout: "piped",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  get over(): Promise<Deno.CommandStatus> {
    return this.#child.status;
  }

  async next(): Promise<string> {
    const { value } = await this.#lines.read();
    assert(value !== undefined, "The source has ended");
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
    await this.#lines.cancel();
  }
}

test("the demo moves a program that computes, and the result is that of one process", async () => {
  const { pathname } = new URL("../../examples/moving_instance/demo.ts", import.meta.url);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "-A", pathname, "3"],
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals([code, err], [0, ""], out);
  assert(/suspended there in generation (\d+), .* in generation \1\n/.test(out!), out);
  assert(/It stood still for [\d.]+ ms/.test(out!), out);
  assert(out!.includes("is what one process alone makes of it"), out);
  assert(out!.includes("[x] go on in another one"), out);
});

test("SQLite with a database in its memory moves while it is written", async () => {
  await using source = new Source("./wasm_sqlite.ts");
  const url = await source.next();
  assertEquals(await source.next(), "at work");
  const sqlite = await WasmSqlite.make();
  const moved = await migrateInstance({ source: url, instantiate: () => sqlite.instance });
  const written = Number(await source.next());
  const { db, rows } = moved.state as { db: number; rows: number };
  assertEquals(rows, written);
  assert(rows >= 1000);
  console.log(`${rows} rows, ${moved.downtimeMs.toFixed(1)} ms of downtime`);
  assertEquals(sqlite.ask(db, "pragma integrity_check"), "ok");
  assertEquals(sqlite.ask(db, "select count(*) from t"), `${rows - 1}`);
  assertEquals(sqlite.ask(db, "select count(*) from t where twice = 2 * id"), `${rows - 1}`);
  sqlite.run(db, "insert into t values (7, 'again', 14)");
  assertEquals(sqlite.ask(db, "select max(id) from t"), `${rows}`);
  assertEquals(sqlite.ask(db, "select text from t where id = 7"), "again");
  assertEquals((await source.over).success, true);
});

test("another module is refused while the instance still runs at the source", async () => {
  await using source = new Source("../../examples/moving_instance/source.ts");
  const { url } = JSON.parse(await source.next());
  const other = async () => {
    // (module (memory (export "memory") 1))
    const bytes = Uint8Array.fromBase64("AGFzbQEAAAAFAwEAAQcKAQZtZW1vcnkCAA==");
    return (await WebAssembly.instantiate(bytes)).instance;
  };
  await assertRejects(
    () => migrateInstance({ source: url, instantiate: other }),
    UsageError,
    "Cannot set the global",
  );
  const { instance } = await migrateInstance({ source: url, instantiate });
  assertEquals(new Program(instance).list().length, 2);
});

test("what is no instance, or grew beyond what was told, is refused, and runs on", async () => {
  const instance = await instantiate(), program = new Program(instance);
  program.sow(1);
  let resumed = 0;
  await using seeded = await seedInstance(instance, {
    listen: "telemap://127.0.0.1:0",
    hooks: { onResume: () => void resumed++ },
  });
  const memory = instance.exports["memory"] as WebAssembly.Memory;
  memory.grow(1);
  await assertRejects(
    () => migrateInstance({ source: seeded.url, instantiate }),
    Error,
    "grew to 655360 bytes",
  );
  assertEquals(seeded.stage, "serving");
  program.step();
  assertEquals([program.generation, resumed], [1, 0]);
});
