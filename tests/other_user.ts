/**
 * A copy of Deno and of this repository that every user may read and run: the checkout, or the home
 * directory that holds Deno, may be closed to all but their owner.
 *
 * @module
 */

/** What a program of this repository imports, beside its own folder. */
const PARTS = ["deno.json", "deno.lock", ".jsr", "mod.ts", "cmd", "ffi", "lib", "tests"];

/** The user and the group without any right of their own. */
export const NOBODY = 65534;

/** The words before a command that drop to {@linkcode NOBODY}. */
export const AS_NOBODY = [
  ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  ...["--inh-caps=-all", "--ambient-caps=-all"],
];

/** Deno and this repository, for all users. */
export class OpenCopy implements Disposable {
  /** The directory of the copy. */
  readonly path = Deno.makeTempDirSync({ prefix: "telemap-open-" });
  /** Where Deno is. */
  readonly deno = `${this.path}/deno`;

  /** Copies. */
  constructor() {
    const root = new URL("..", import.meta.url).pathname;
    Deno.chmodSync(this.path, 0o755);
    run("cp", Deno.execPath(), this.deno);
    run("cp", "-r", "--", ...PARTS.map((name) => `${root}${name}`), this.path);
    run("chmod", "-R", "a+rX", "--", this.path);
  }

  /** Where a file of this repository is, by its path from the root. */
  file(path: string): string {
    return `${this.path}/${path}`;
  }

  /** Removes the copy. */
  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

function run(command: string, ...args: string[]): void {
  const { success, stderr } = new Deno.Command(command, { args }).outputSync();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
}
