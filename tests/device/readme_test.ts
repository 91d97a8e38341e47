/**
 * Runs the library example of README.md as it stands there, but for its path and its port.
 *
 * @module
 */
import { assertEquals, assertExists } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";

const ROOT = new URL("../../", import.meta.url);

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

const needs = requires("root", "/dev/fuse");
Deno.test({
  name: withReason("the example of the README runs and type-checks", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const readme = await Deno.readTextFile(new URL("README.md", ROOT));
    const example = /```ts\n(.*?)```/s.exec(readme)?.[1];
    assertExists(example);
    const program = example
      .replaceAll("/srv/region", `${directory.path}/region`)
      .replaceAll(":4100", `:${freePort()}`)
      .replace("./mod.ts", new URL("mod.ts", ROOT).href);
    await Deno.writeTextFile(`${directory.path}/example.ts`, program);
    for (const [command, expected] of [["check", ""], ["run", "hello\n"]] as const) {
      const permissions = command === "run" ? ["--allow-all"] : [];
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [command, "--quiet", ...permissions, `${directory.path}/example.ts`],
      }).output();
      const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      assertEquals({ command, code, out, err }, { command, code: 0, out: expected, err: "" });
    }
    const region = await Deno.readFile(`${directory.path}/region`);
    assertEquals(new TextDecoder().decode(region.subarray(4096, 4101)), "jello");
  },
});
