/** A shop to try the mesh with: web asks api, api counts in a store. */
export {};
