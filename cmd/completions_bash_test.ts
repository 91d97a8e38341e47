import { assert, assertEquals } from "@std/assert";
import { bashScript } from "./completions_bash.ts";
import { COMMANDS } from "./telemap.ts";

/** What bash offers for the end of a line, each as the word would become. */
async function complete(line: string, cwd?: string): Promise<string[]> {
  const script = `${bashScript(COMMANDS)}
compopt() { :; }
COMP_LINE=$1 COMP_POINT=\${#1}
_telemap
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, success } = await new Deno.Command("bash", {
    args: ["--norc", "-c", script, "bash", line],
    ...(cwd !== undefined && { cwd }),
  }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  assert(success);
  return new TextDecoder().decode(stdout).split("\n").filter((word) => word !== "");
}

Deno.test("bash completes commands", async () => {
  assertEquals(await complete("telemap "), [
    ...COMMANDS.map(({ name }) => name),
    "--help",
    "--version",
  ]);
  assertEquals(await complete("telemap ser"), ["serve"]);
  assertEquals(await complete("telemap help in"), ["info"]);
});

Deno.test("bash completes the options of a command", async () => {
  assertEquals(await complete("telemap mount memory:1 --"), [
    "--device",
    "--at",
    "--read-only",
    "--managed",
    "--cache",
    "--chunk",
    "--profile",
    "--pull-workers",
    "--pull-rate",
    "--pull-first",
    "--push-workers",
    "--push-interval",
    "--durability",
    "--discard-cache",
    "--token-file",
    "--json",
    "--help",
  ]);
  assertEquals(await complete("telemap mount --dev"), ["--device"]);
  assertEquals(await complete("telemap leech telemap://there --s"), ["--suspend", "--strategy"]);
});

Deno.test("bash completes the values of options", async () => {
  assertEquals(await complete("telemap mount --device "), ["auto", "nbd", "fuse", "loop"]);
  assertEquals(await complete("telemap mount --device=l"), ["loop"]);
  assertEquals(await complete("telemap mount --device loop tele"), [
    "telemap://",
    "telemap+unix:///",
  ]);
  assertEquals(await complete("telemap serve --name "), []);
});

Deno.test("bash completes operands, whatever options stand between", async () => {
  assertEquals(await complete("telemap completions "), ["bash", "zsh", "fish"]);
  assertEquals(await complete("telemap copy --verify --concurrency 3 mem"), ["memory:"]);
  assertEquals(await complete("telemap copy memory:1 --verify fi"), ["file:/"]);
  assertEquals(await complete("telemap completions bash "), []);
  assertEquals(await complete("telemap migrate "), ["status", "recover", "promote", "demo"]);
  for (const before of ["", "file:/a ", "file:/a --json file:/b "]) {
    assertEquals(await complete(`telemap migrate status ${before}fi`), ["file:/"]);
  }
});

Deno.test("bash completes paths, also inside URLs, from the last colon on", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-complete-" });
  try {
    await Deno.writeTextFile(`${directory}/region.img`, "");
    await Deno.writeTextFile(`${directory}/token`, "");
    assertEquals(await complete("telemap serve --token-file to", directory), ["token"]);
    assertEquals(await complete(`telemap info file:${directory}/re`), [`${directory}/region.img`]);
    assertEquals(await complete("telemap serve memory:1 --listen nbd+"), ["nbd+unix:///"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
