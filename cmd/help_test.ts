import { assertEquals, assertStringIncludes } from "@std/assert";
import { defineCommand } from "./command.ts";
import { commandHelp, programHelp } from "./help.ts";
import { parseCommandLine } from "./parse.ts";
import { COMMANDS } from "./telemap.ts";

Deno.test("a command's help says all that its table says", () => {
  const command = defineCommand({
    name: "attach",
    summary: "Attach a region",
    description: "It stays.",
    operands: [{ name: "BACKEND", help: "the region", value: "url", optional: true }],
    options: {
      listen: { help: "where", value: "url", label: "URL", many: true, required: true },
      device: { help: "what", value: ["auto", "nbd"], default: "auto" },
      json: { help: "for scripts" },
    },
    examples: [{ call: "telemap attach memory:1", does: "one byte" }],
    run() {},
  });
  assertEquals(
    commandHelp(command),
    `Attach a region.

It stays.

Usage: telemap attach [BACKEND] --listen URL… [OPTION]…

Operands:
  BACKEND  the region

Options:
  --listen URL       where (may be repeated)
  --device auto|nbd  what (default auto)
  --json             for scripts
  -h, --help         print this help

Examples:
  # one byte
  telemap attach memory:1`,
  );
});

Deno.test("the program's help lists every command", () => {
  const text = programHelp(COMMANDS);
  for (const { name, summary } of COMMANDS) {
    assertStringIncludes(text, name);
    assertStringIncludes(text, summary);
  }
});

Deno.test("every help fits a terminal of 100 columns", () => {
  const texts = [programHelp(COMMANDS), ...COMMANDS.map(commandHelp)];
  const long = texts.flatMap((text) => text.split("\n"))
    .filter((line) => line.length > 100);
  assertEquals(long, []);
});

Deno.test("every example is a call that its command takes", () => {
  for (const command of COMMANDS) {
    for (const { call } of command.examples) {
      const bare = call.replace(/^source <\((.*)\)$/, "$1").replace(/ > .*$/, "");
      const words = [...bare.matchAll(/'([^']*)'|([^ ]+)/g)].map(([, quoted, word]) =>
        quoted ?? word!
      );
      assertEquals(words.slice(0, 2), ["telemap", command.name]);
      parseCommandLine(command, words.slice(2));
    }
  }
});
