/** A Kubernetes-shaped cluster on one Linux machine, made of network namespaces. */
export {};
