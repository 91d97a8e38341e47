import { assertEquals } from "@std/assert";
import { configOf } from "./host_process_config.ts";

Deno.test("a process gets the nearest configuration from the working directory upwards", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  try {
    await Deno.mkdir(`${directory}/a/b`, { recursive: true });
    assertEquals(configOf(`${directory}/a/b`), ["--no-config"]);
    await Deno.writeTextFile(`${directory}/deno.jsonc`, "{}");
    assertEquals(configOf(`${directory}/a/b`), ["--config", `${directory}/deno.jsonc`]);
    await Deno.writeTextFile(`${directory}/a/deno.json`, "{}");
    assertEquals(configOf(`${directory}/a/b`), ["--config", `${directory}/a/deno.json`]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
