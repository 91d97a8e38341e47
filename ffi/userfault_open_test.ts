import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { asEffectiveUser } from "../tests/effective_user.ts";
import { requires, requiresAll, requiresThat, withReason } from "../tests/requires.ts";
import { ERRNO, errno, SystemError } from "./errno.ts";
import { close, ftruncate, pread, readKernelText } from "./file.ts";
import { openLibc } from "./libc.ts";
import { Mapping, memfdCreate, pageSize } from "./mman.ts";
import {
  featureNames,
  openError,
  openUserfault,
  probeUserfault,
  UFFD_FEATURE,
  UserfaultFeatureError,
} from "./userfault_open.ts";
import { UFFD_IOCTL, UFFD_REGISTER, Userfault } from "./userfaultfd.ts";

openLibc();

const NOBODY = 65534;

const probe = probeUserfault();
const available = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");
const privileged = requiresAll(available, requires("root"));
const restricted = requiresAll(
  privileged,
  requiresThat(
    !privileged.ignore && readKernelText("/proc/sys/vm/unprivileged_userfaultfd").trim() === "0",
    "vm.unprivileged_userfaultfd is set",
  ),
);

Deno.test({
  name: withReason(
    "a userfaultfd is nonblocking and close-on-exec, and told what it can",
    available,
  ),
  ignore: available.ignore,
  fn() {
    const { fd, features, ioctls } = openUserfault();
    const flags = /^flags:\s*(\d+)$/m.exec(readKernelText(`/proc/self/fdinfo/${fd}`));
    const NONBLOCK = 0o4000, CLOEXEC = 0o2000000;
    assertEquals(parseInt(flags![1]!, 8) & (NONBLOCK | CLOEXEC), NONBLOCK | CLOEXEC);
    assertEquals(features, 0);
    assertEquals(ioctls, UFFD_IOCTL.REGISTER | UFFD_IOCTL.UNREGISTER);
    close(fd);
  },
});

Deno.test({
  name: withReason("features that are wanted are used where the kernel has them", available),
  ignore: available.ignore,
  fn() {
    const NOBODY_KNOWS = 1 << 30;
    const { EVENT_REMOVE, THREAD_ID } = UFFD_FEATURE;
    const wanted = EVENT_REMOVE | NOBODY_KNOWS;
    const { fd, features } = openUserfault({ required: THREAD_ID, wanted });
    assertEquals(featureNames(features), ["EVENT_REMOVE", "THREAD_ID"]);
    close(fd);
  },
});

const lacking = requiresAll(
  available,
  requiresThat((probe.features & UFFD_FEATURE.MOVE) === 0, "this kernel has every feature"),
);

Deno.test("a feature that the kernel lacks is named, with the Linux that has it", () => {
  const error = lacking.ignore
    ? new UserfaultFeatureError(["EVENT_FORK", "MOVE", "POISON"], "6.1.0")
    : assertThrows(
      () => openUserfault({ required: UFFD_FEATURE.MOVE | UFFD_FEATURE.EVENT_FORK }),
      UserfaultFeatureError,
    );
  assertEquals(error.since, "6.8");
  assertEquals(error.code, "EOPNOTSUPP");
  assert(error.missing.includes("MOVE"));
  assertStringIncludes(error.message, "Linux 6.8 has that, this is 6.");
});

Deno.test({
  name: withReason("root sees faults of the kernel too, unless it asks for less", privileged),
  ignore: privileged.ignore,
  fn() {
    for (const userModeOnly of [undefined, false, true]) {
      const opened = openUserfault(userModeOnly === undefined ? {} : { userModeOnly });
      assertEquals(opened.userModeOnly, userModeOnly ?? false);
      close(opened.fd);
    }
    assertEquals(probe.ways.map(({ way }) => way), ["device", "syscall", "user mode"]);
    assert(probe.ways[1]!.available);
  },
});

Deno.test({
  name: withReason("a user without privileges gets user mode, and is told what to set", restricted),
  ignore: restricted.ignore,
  fn() {
    const [device, syscall, userMode] = asEffectiveUser(NOBODY, probeUserfault).ways;
    assertEquals(device!.available, false);
    assert(/EACCES; permit this user|ENOENT; Linux 6.1/.test(device!.reason!), device!.reason);
    assertStringIncludes(syscall!.reason!, "EPERM; set vm.unprivileged_userfaultfd=1");
    assertEquals(userMode, { way: "user mode", available: true });

    const all = () => openUserfault({ userModeOnly: false });
    const error = assertThrows(() => asEffectiveUser(NOBODY, all), SystemError);
    assertEquals(error.code, "EPERM");
    const opened = asEffectiveUser(NOBODY, () => openUserfault());
    assertEquals(opened.userModeOnly, true);
    close(opened.fd);
  },
});

Deno.test({
  name: withReason("EVENT_FORK is let go without privileges, unless it is required", restricted),
  ignore: restricted.ignore,
  fn() {
    const { EVENT_FORK, THREAD_ID } = UFFD_FEATURE;
    const wanted = () => openUserfault({ wanted: EVENT_FORK | THREAD_ID });
    const opened = asEffectiveUser(NOBODY, wanted);
    assertEquals(featureNames(opened.features), ["THREAD_ID"]);
    close(opened.fd);
    const required = () => openUserfault({ required: EVENT_FORK });
    const error = assertThrows(() => asEffectiveUser(NOBODY, required), SystemError);
    assertEquals(error.hint, "EVENT_FORK needs CAP_SYS_PTRACE");
  },
});

Deno.test({
  name: withReason("in user mode a system call fails on a missing page", available),
  ignore: available.ignore,
  fn() {
    using memory = Mapping.map({ length: pageSize() });
    const file = memfdCreate("telemap-test");
    ftruncate(file, pageSize(), "telemap-test");
    using uffd = new Userfault(openUserfault({ userModeOnly: true }).fd);
    uffd.register(memory.address, memory.length, UFFD_REGISTER.MISSING);
    const result = pread(file, memory.bytes, 0);
    assertEquals([result, errno()], [-1, ERRNO.EFAULT]);
    close(file);
  },
});

Deno.test("each error of an attempt to open says what to do", () => {
  const table = [
    [ERRNO.EPERM, "syscall", "vm.unprivileged_userfaultfd=1"],
    [ERRNO.EPERM, "user mode", "seccomp"],
    [ERRNO.EACCES, "device", "permit this user to read and write /dev/userfaultfd"],
    [ERRNO.ENOENT, "device", "Linux 6.1"],
    [ERRNO.ENOSYS, "syscall", "CONFIG_USERFAULTFD"],
    [ERRNO.EINVAL, "user mode", "Linux 5.11"],
    [ERRNO.EMFILE, "syscall", "ulimit -n"],
  ] as const;
  for (const [number, way, hint] of table) {
    const error = openError(number, way);
    assertEquals(error.errno, number);
    assertStringIncludes(error.message, hint);
  }
});
