/** From Kubernetes objects to mesh resources; CA; status writer. */
export {};
