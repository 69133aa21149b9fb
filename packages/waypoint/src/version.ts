/** Which release this is. */
import { type Release, releaseOf } from "@fairway/runtime";

export const version: Release = releaseOf(new URL("../package.json", import.meta.url));
