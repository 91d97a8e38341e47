/**
 * Errors of `node:fs`, which runs file calls off this thread and keeps their errno, in the one
 * form that failed system calls have here.
 *
 * @module
 */
import { ERRNO, type ErrnoName, errnoName, SystemError } from "./errno.ts";

const HINTS: Partial<Record<ErrnoName, string>> = {
  EACCES: "check the owner and mode of it and of the directories above, or run as another user",
  EROFS: "its file system is mounted read-only",
  ENOSPC: "its file system is full: make room there",
  ENOENT: "check the path; directories above it are not made",
  EMFILE: "raise the limit with ulimit -n",
};

/** What the reader can do about a call on a file that failed with this errno. */
export function fileHint(errno: number): string | undefined {
  return HINTS[errnoName(errno) as ErrnoName];
}

/**
 * What `node:fs` threw as a {@linkcode SystemError}; anything else but a failed system call (such
 * as a permission that Deno was not given) as it is.
 */
export function fromNodeError(error: unknown, syscall: string, subject: string): unknown {
  if (!(error instanceof Error && "code" in error && typeof error.code === "string")) return error;
  const name = error.code as ErrnoName;
  if (ERRNO[name] === undefined) return error;
  return new SystemError({ syscall, errno: ERRNO[name], subject, hint: HINTS[name] });
}

/** Answers what `call` answers; throws as {@linkcode fromNodeError} puts it. */
export function nodeCall<T>(syscall: string, subject: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNodeError(error, syscall, subject);
  }
}
