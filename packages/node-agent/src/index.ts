/** Enrols pods on a node: CNI plugin, redirection rules, hand-over to ztunnel. */
export {};
