/** Kubernetes as derived collections: client, supervised reflector, derive, apply, leader. */
export type { Collection, CollectionEvent, KubeClient, KubeObject, ObjectMeta, ResourceType } from "./collection.ts";
