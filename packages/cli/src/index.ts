/** fairway: ask, explain, act. */
export {};
