/**
 * Runs the library examples of README.md as they stand there, but for their paths and the port.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { freePort } from "../free_port.ts";

const ROOT = new URL("../../", import.meta.url);

const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");
/** What each example prints. */
const PRINTS = ["hello\n", "1\n69632 4096\n", "65536 65536\n"];

Deno.test({
  name: withReason("the examples of the README run and type-check", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const port = freePort();
    const readme = await Deno.readTextFile(new URL("README.md", ROOT));
    const examples = [...readme.matchAll(/```ts\n(.*?)```/gs)].map(([, example]) => example!);
    assertEquals(examples.length, PRINTS.length);
    for (const [index, example] of examples.entries()) {
      const program = example
        .replaceAll("/srv/", `${directory.path}/`)
        .replaceAll(":4100", `:${port}`)
        .replace("./mod.ts", new URL("mod.ts", ROOT).href);
      await Deno.writeTextFile(`${directory.path}/example.ts`, program);
      for (const [command, expected] of [["check", ""], ["run", PRINTS[index]]] as const) {
        const permissions = command === "run" ? ["--allow-all"] : [];
        const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
          args: [command, "--quiet", ...permissions, `${directory.path}/example.ts`],
        }).output();
        const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
        assertEquals({ command, code, out, err }, { command, code: 0, out: expected, err: "" });
      }
    }
    const region = await Deno.readFile(`${directory.path}/region`);
    assertEquals(new TextDecoder().decode(region.subarray(4096, 4101)), "jello");
    assertEquals((await Deno.readFile(`${directory.path}/small`))[70_000], 1);
  },
});
