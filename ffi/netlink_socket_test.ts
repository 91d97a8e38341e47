import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { requires, withReason } from "../tests/requires.ts";
import { SystemError } from "./errno.ts";
import { openLibc } from "./libc.ts";
import { GENL_CTRL, text, unsigned } from "./netlink.ts";
import { GenericNetlink, UeventSocket } from "./netlink_socket.ts";
import { parseUevent } from "./uevent.ts";

openLibc();

const root = requires("root", "/sys/class/mem/null/uevent");

Deno.test("the kernel's family of families is found, and answers about itself", async () => {
  using families = new GenericNetlink("nlctrl", GENL_CTRL.VERSION);
  const name = { type: GENL_CTRL.ATTR_FAMILY_NAME, value: { string: "nlctrl" } };
  for (let round = 0; round < 3; round++) {
    const [answer, ...more] = await families.request(GENL_CTRL.CMD_GETFAMILY, [name]);
    assertEquals(more, []);
    assertEquals(text(answer!.get(GENL_CTRL.ATTR_FAMILY_NAME)!), "nlctrl");
    assertEquals(unsigned(answer!.get(GENL_CTRL.ATTR_FAMILY_ID)), GENL_CTRL.ID);
  }
});

Deno.test("a family that the kernel does not have is ENOENT, a wrong command EOPNOTSUPP", async () => {
  const find = () => new GenericNetlink("telemap-none", 1);
  assertEquals(assertThrows(find, SystemError).code, "ENOENT");
  using families = new GenericNetlink("nlctrl", GENL_CTRL.VERSION);
  const error = await assertRejects(() => families.request(200, []), SystemError);
  assertEquals(error.code, "EOPNOTSUPP");
});

Deno.test({
  name: withReason("announcements about a device arrive, or the deadline passes", root),
  ignore: root.ignore,
  fn: async () => {
    using events = new UeventSocket();
    Deno.writeTextFileSync("/sys/class/mem/null/uevent", "change");
    const isNull = (path: string) => path === "/devices/virtual/mem/null";
    const event = await events.next(({ path }) => isNull(path), performance.now() + 5000);
    assertEquals(event?.action, "change");
    assertEquals(event?.properties.get("DEVNAME"), "null");
    assertEquals(await events.next(() => false, performance.now() + 20), undefined);
  },
});

Deno.test("an announcement is read; what udev sends to its own group is not one", () => {
  const encode = (text: string) => new TextEncoder().encode(text);
  const event = parseUevent(encode("add@/devices/x\0ACTION=add\0DEVNAME=a=b\0\0"));
  assertEquals(event?.path, "/devices/x");
  assertEquals([...event!.properties], [["ACTION", "add"], ["DEVNAME", "a=b"]]);
  assertEquals(parseUevent(encode("libudev\0\xfe\xed")), undefined);
  assertEquals(parseUevent(new Uint8Array()), undefined);
});
