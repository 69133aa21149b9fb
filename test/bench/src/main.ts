/** Direct, plain TCP, our HBONE pair and a haproxy mTLS pair, side by side in one run. */
export {};
