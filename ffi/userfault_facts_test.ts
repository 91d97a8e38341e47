import { assertEquals } from "@std/assert";
import { requiresThat, withReason } from "../tests/requires.ts";
import { close } from "./file.ts";
import { openLibc } from "./libc.ts";
import { memfdCreate } from "./mman.ts";
import { describeDescriptor, isUserfault, userfaultFeatures } from "./userfault_facts.ts";
import { openUserfault, probeUserfault, UFFD_FEATURE } from "./userfault_open.ts";

openLibc();

const needs = requiresThat(probeUserfault().features !== 0, "userfaultfd is not permitted");

Deno.test({
  name: withReason("a userfaultfd and its features are known again", needs),
  ignore: needs.ignore,
  fn() {
    for (const required of [0, UFFD_FEATURE.EVENT_REMOVE | UFFD_FEATURE.EVENT_UNMAP]) {
      const { fd } = openUserfault({ required });
      assertEquals([isUserfault(fd), userfaultFeatures(fd)], [true, required]);
      close(fd);
    }
  },
});

Deno.test("another descriptor is no userfaultfd, and tells what it is", () => {
  const fd = memfdCreate("userfaultfd");
  assertEquals(isUserfault(fd), false);
  assertEquals(describeDescriptor(fd), "/memfd:userfaultfd (deleted)");
  assertEquals(userfaultFeatures(fd), undefined);
  close(fd);
});
