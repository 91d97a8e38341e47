/**
 * Reads the JUnit report of `deno test --junit-path`, so that tests can be counted exactly.
 *
 * Deno writes a test case for each test and for each of its steps (named `TEST > STEP`), and
 * one without a time for each test that `--filter` left out.
 *
 * @module
 */
import { SKIP_MARK } from "./requires.ts";

/** A test that was skipped. */
export interface SkippedTest {
  /** Its name without the reason. */
  name: string;
  /** Why, as `withReason` of requires.ts wrote it; empty where the test does not say. */
  reason: string;
}

/** What became of a set of tests. Steps count as part of their test. */
export interface TestCounts {
  /** Tests that passed. */
  passed: number;
  /** Names of the tests that failed. */
  failed: string[];
  /** The tests that were not run because something is missing here. */
  skipped: SkippedTest[];
}

const SUITE = /<testsuite [^>]*>(.*?)<\/testsuite>/gs;
const CASE = /<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs;

/** Counts the tests of a report. */
export function parseReport(xml: string): TestCounts {
  const counts: TestCounts = { passed: 0, failed: [], skipped: [] };
  for (const suite of xml.matchAll(SUITE)) {
    const cases = [...suite[1]!.matchAll(CASE)]
      .map(([, attributes = "", body = ""]) => ({
        name: attribute(attributes, "name") ?? "",
        filteredOut: attribute(attributes, "time") === undefined,
        body,
      }));
    const names = new Set(cases.map(({ name }) => name));
    for (const { name, filteredOut, body } of cases) {
      if (filteredOut || isStep(name, names)) continue;
      if (/<(failure|error)\b/.test(body)) counts.failed.push(name);
      else if (/<skipped\b/.test(body)) counts.skipped.push(takeReason(name));
      else counts.passed++;
    }
  }
  return counts;
}

function isStep(name: string, names: ReadonlySet<string>): boolean {
  for (let end = name.indexOf(" > "); end >= 0; end = name.indexOf(" > ", end + 1)) {
    if (names.has(name.slice(0, end))) return true;
  }
  return false;
}

function takeReason(name: string): SkippedTest {
  const [bare = "", reason = ""] = name.split(SKIP_MARK, 2);
  return { name: bare, reason };
}

function attribute(attributes: string, name: string): string | undefined {
  const value = new RegExp(`(?:^| )${name}="([^"]*)"`).exec(attributes)?.[1];
  return value?.replace(/&(lt|gt|quot|apos|amp);/g, (_, entity: string) => ENTITIES[entity]!);
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
