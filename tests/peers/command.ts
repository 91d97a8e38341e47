/**
 * Runs the tools of other projects.
 *
 * @module
 */

/** What a tool came to. */
export interface ToolOutcome {
  /** Its exit code. */
  code: number;
  /** Its standard output. */
  out: string;
  /** Its standard error. */
  err: string;
}

/** Runs a tool to its end; its environment is ours and what is told. */
export async function tryRun(
  command: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<ToolOutcome> {
  const options = { args, env: { LC_ALL: "C", ...env }, stdin: "null" } as const;
  const { code, stdout, stderr } = await new Deno.Command(command, options).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out: out!, err: err! };
}

/** Runs a tool that must succeed, and answers its standard output. */
export async function run(command: string, ...args: string[]): Promise<string> {
  const { code, out, err } = await tryRun(command, args);
  if (code === 0) return out;
  throw new Error(`${command} ${args.join(" ")} ended with exit code ${code}:\n${out}${err}`);
}
