/**
 * What a test needs of the host beside Deno: commands, files, devices, root. A test whose needs are
 * not met is skipped, and its name says why, so that the test runner can list the reasons.
 *
 * ```ts ignore
 * const needs = requires("nbdkit", "/dev/fuse", "root");
 * Deno.test({ name: withReason("nbdkit reads it", needs), ignore: needs.ignore, fn });
 * ```
 *
 * @module
 */

/** Whether a test is skipped, and why. */
export interface Requirement {
  /** For `Deno.test`. */
  readonly ignore: boolean;
  /** What is missing, e.g. `nbdkit is not installed`; empty where nothing is. */
  readonly reason: string;
}

/** Directories searched after those of PATH: there Debian keeps what only root is meant to run. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/** The Python that Debian's packages put modules into. */
export const PYTHON = "/usr/bin/python3";

/** What stands between a test's name and the reason why it is skipped. */
export const SKIP_MARK = " # skipped: ";

/**
 * Checks needs in order and answers for the first that is not met. A need is `root`; a path from
 * `/` that must exist; `python3:MODULE`, a module of {@linkcode PYTHON}; any other word is a command.
 */
export function requires(...needs: string[]): Requirement {
  for (const need of needs) {
    const reason = missing(need);
    if (reason !== undefined) return { ignore: true, reason };
  }
  return { ignore: false, reason: "" };
}

/** Requires what the caller probed itself: skipped with `reason` unless `available`. */
export function requiresThat(available: boolean, reason: string): Requirement {
  return available ? { ignore: false, reason: "" } : { ignore: true, reason };
}

/** All of several requirements; the first unmet one gives the reason. */
export function requiresAll(...requirements: Requirement[]): Requirement {
  return requirements.find((one) => one.ignore) ?? { ignore: false, reason: "" };
}

/** The test's name, with the reason after it where the test is skipped. */
export function withReason(name: string, requirement: Requirement): string {
  return requirement.ignore ? `${name}${SKIP_MARK}${requirement.reason}` : name;
}

function missing(need: string): string | undefined {
  if (need === "root") return Deno.uid() === 0 ? undefined : "needs root";
  if (need.startsWith("/")) return exists(need) ? undefined : `${need} is not there`;
  if (need.startsWith("python3:")) return missingModule(need.slice("python3:".length));
  return findCommand(need) === undefined ? `${need} is not installed` : undefined;
}

function missingModule(name: string): string | undefined {
  if (!isExecutable(PYTHON)) return `${PYTHON} is not installed`;
  const args = ["-c", `import ${name}`];
  const { success } = new Deno.Command(PYTHON, { args, stdout: "null", stderr: "null" })
    .outputSync();
  return success ? undefined : `the Python module ${name} is not installed`;
}

/** The path of a command, or nothing where it is not installed. */
export function findCommand(name: string): string | undefined {
  const directories = (Deno.env.get("PATH") ?? "").split(":").filter((path) => path !== "");
  return [...directories, ...SYSTEM_DIRECTORIES]
    .map((directory) => `${directory}/${name}`)
    .find((path) => isExecutable(path));
}

function isExecutable(path: string): boolean {
  try {
    const { isFile, mode } = Deno.statSync(path);
    return isFile && ((mode ?? 0) & 0o111) !== 0;
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
