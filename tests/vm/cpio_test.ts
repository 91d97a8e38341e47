import { assertEquals } from "@std/assert";
import { writeCpio } from "./cpio.ts";
import { dependencies } from "./kernel.ts";

const hasBusybox = await Deno.stat("/bin/busybox").then(() => true, () => false);

Deno.test({
  name: "an independent cpio unpacks what was packed",
  ignore: !hasBusybox, // apt-get install busybox-static
  fn: async () => {
    const directory = await Deno.makeTempDir();
    const sizes = [0, 1, 2, 3, 4, 5000];
    const files = sizes.map((size) => ({
      path: `folder/${"f".repeat(size % 7)}${size}`,
      mode: 0o640,
      data: crypto.getRandomValues(new Uint8Array(size)),
    }));
    const archive = writeCpio([{ path: "folder", mode: 0o755 }, ...files]);
    await Deno.writeFile(`${directory}/archive`, archive);
    const unpack = new Deno.Command("/bin/busybox", {
      args: ["cpio", "-i", "-F", "archive"],
      cwd: directory,
      stderr: "null",
    });
    assertEquals((await unpack.output()).code, 0);
    for (const { path, data } of files) {
      assertEquals(await Deno.readFile(`${directory}/${path}`), data);
      assertEquals((await Deno.stat(`${directory}/${path}`)).mode! & 0o777, 0o640);
    }
    await Deno.remove(directory, { recursive: true });
  },
});

Deno.test("a module's dependencies are read out of its file, under the names of files", () => {
  const module = (text: string) =>
    new TextEncoder().encode(`\x7fELF\0license=GPL\0${text}name=x\0`);
  assertEquals(dependencies(module("depends=mbcache,9pnet-virtio\0")), ["mbcache", "9pnet_virtio"]);
  assertEquals(dependencies(module("depends=\0")), []);
  assertEquals(dependencies(module("")), []);
});
