/** What a test needs, real where cheap; only ever a development dependency. */
export {};
