/**
 * Runs code as another user, on this thread only.
 *
 * @module
 */
import { checked } from "../ffi/errno.ts";
import { libc, perArch } from "../ffi/libc.ts";

const SYS_SETRESUID = perArch({ x86_64: 117n, aarch64: 147n });
const UNCHANGED = -1;

const symbols = libc({
  // long syscall(long number, ...), here int setresuid(uid_t ruid, uid_t euid, uid_t suid): unlike
  // the function of that name it leaves the other threads alone
  setresuid: { name: "syscall", parameters: ["usize", "i32", "i32", "i32"], result: "i32" },
});

/** Calls a function, which must not wait, as a user without privileges. Needs root. */
export function asEffectiveUser<T>(user: number, call: () => T): T {
  setEffectiveUser(user);
  try {
    return call();
  } finally {
    setEffectiveUser(0);
  }
}

function setEffectiveUser(user: number): void {
  const result = symbols().setresuid(SYS_SETRESUID, UNCHANGED, user, UNCHANGED);
  checked(result, "become another user", `user ${user}`);
}
