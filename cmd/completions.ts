/**
 * `telemap completions`: prints a script that completes telemap's command lines in a shell.
 *
 * @module
 */
import { defineCommand } from "./command.ts";
import { bashScript } from "./completions_bash.ts";
import { fishScript } from "./completions_fish.ts";
import { zshScript } from "./completions_zsh.ts";

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** See the module. */
export const completions = defineCommand({
  name: "completions",
  summary: "Print a completion script for a shell",
  description: "The script knows all commands, options and values; it calls nothing.",
  operands: [{ name: "SHELL", help: "bash, zsh or fish", value: ["bash", "zsh", "fish"] }],
  options: {},
  examples: [
    { call: "source <(telemap completions bash)", does: "for this bash" },
    {
      call: "telemap completions zsh > ~/.zfunc/_telemap",
      does: "for every zsh, with ~/.zfunc in fpath",
    },
    {
      call: "telemap completions fish > ~/.config/fish/completions/telemap.fish",
      does: "for every fish",
    },
  ],
  run([shell], _values, commands) {
    console.log(SCRIPTS[shell as keyof typeof SCRIPTS](commands).trimEnd());
  },
});
