/**
 * Runs the examples in the documentation of the library.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";

const ROOT = new URL("../../", import.meta.url);
const DOCUMENTED = [
  "mod.ts",
  "lib/host/open_backend.ts",
  "lib/host/serve.ts",
  "lib/mount/direct.ts",
  "lib/mount/managed.ts",
  "lib/tracking/tracked_memory.ts",
];

const needs = requires("root", "/dev/fuse");
Deno.test({
  name: withReason("the examples of the library's documentation run", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    // Without the configuration, which looks for leaks: they are of one library that stays open.
    const options = ["--no-config", "--no-check", "--allow-all", "--doc"];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["test", ...options, ...DOCUMENTED.map((path) => new URL(path, ROOT).pathname)],
      cwd: directory.path,
      env: { NO_COLOR: "1" },
    }).output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals(code, 0, `${out}${err}`);
    assertEquals(/(\d+) passed \| 0 failed/.exec(out!)?.[1], `${DOCUMENTED.length}`);
    assertEquals([...Deno.readDirSync(directory.path)], []);
  },
});
