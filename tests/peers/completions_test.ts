/**
 * The completion scripts in the shells they are for. (Bash, which every host has, is tried beside
 * its script's source.)
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { fishScript } from "../../cmd/completions_fish.ts";
import { zshScript } from "../../cmd/completions_zsh.ts";
import { COMMANDS } from "../../cmd/telemap.ts";
import { requires, withReason } from "../requires.ts";

/**
 * Types each line and a tab at an interactive zsh on a terminal, and prints what the line became.
 * `$1` is the script.
 */
const TYPE_IN_ZSH = `
zmodload zsh/zpty
zpty shell "TERM=dumb zsh -f -i"
zpty -w shell "autoload -Uz compinit; compinit -u -D; source $1
  show() { print -r -- \\"[\\$BUFFER]\\"; BUFFER=; }; zle -N show
  bindkey '^T' show; bindkey '^I' complete-word; print REA''DY"
zpty -r shell seen '*READY*'
for line in "\${@[2,-1]}"; do
  zpty -w -n shell "$line"$'\\t\\x14'
  zpty -r -m shell seen $'*\\\\[*\\\\]*'
  print -r -- "\${\${seen##*\\[}%%\\]*}"
done
zpty -d shell
`;

async function run(command: string, args: string[]): Promise<string[]> {
  const { stdout, stderr } = await new Deno.Command(command, { args }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  return new TextDecoder().decode(stdout).replace(/\n$/, "").split("\n");
}

async function withScript(
  script: string,
  use: (path: string, directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-complete-" });
  try {
    await Deno.writeTextFile(`${directory}/_telemap`, script);
    await Deno.writeTextFile(`${directory}/region.img`, "");
    await use(`${directory}/_telemap`, directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const zsh = requires("zsh");
Deno.test({
  name: withReason("zsh completes commands, options, values and paths", zsh),
  ignore: zsh.ignore,
  fn: () =>
    withScript(zshScript(COMMANDS), async (script, directory) => {
      const becomes = {
        "telemap ser": "telemap serve ",
        "telemap help ver": "telemap help version ",
        "telemap mount --devi": "telemap mount --device=",
        "telemap mount --device=lo": "telemap mount --device=loop ",
        "telemap info memo": "telemap info memory:",
        "telemap copy memory:1 telemap+": "telemap copy memory:1 telemap+unix:///",
        "telemap completions z": "telemap completions zsh ",
        [`telemap serve --token-file ${directory}/reg`]:
          `telemap serve --token-file ${directory}/region.img `,
        [`telemap info file:${directory}/reg`]: `telemap info file:${directory}/region.img `,
      };
      const typed = ["-f", "-c", TYPE_IN_ZSH, "zsh", script, ...Object.keys(becomes)];
      assertEquals(await run("zsh", typed), Object.values(becomes));
    }),
});

const fish = requires("fish");
Deno.test({
  name: withReason("fish completes commands, options and values", fish),
  ignore: fish.ignore,
  fn: () =>
    withScript(fishScript(COMMANDS), async (script, directory) => {
      const complete = async (line: string) => {
        const ask = "source $argv[1]; complete -C $argv[2]";
        const offers = await run("fish", ["--no-config", "-c", ask, script, line]);
        return offers.map((offer) => offer.split("\t")[0]);
      };
      assertEquals(await complete("telemap ser"), ["serve"]);
      assertEquals(await complete("telemap help ver"), ["version"]);
      assertEquals(await complete("telemap mount --devi"), ["--device"]);
      assertEquals(await complete("telemap mount --device "), ["auto", "fuse", "loop", "nbd"]);
      assertEquals(await complete("telemap copy mem"), ["memory:"]);
      assertEquals(await complete("telemap completions z"), ["zsh"]);
      assertEquals(await complete(`telemap serve --token-file ${directory}/reg`), [
        `${directory}/region.img`,
      ]);
    }),
});
