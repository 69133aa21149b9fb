/** The mesh driven only from outside: the API, packets and admin ports. */
export {};
