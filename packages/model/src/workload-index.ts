/** Every way to find workloads in a snapshot: by uid, address, pod name, DNS name, node, and as endpoints of a service. */
import type { IpAddress, NetworkAddress, NetworkId } from "./address.ts";
import { GroupBatch, GroupIndex } from "./group-index.ts";
import { hashText, type Keyed, type MapEditor, PersistentMap } from "./persistent-map.ts";
import type { ServiceKey, Workload, WorkloadUid } from "./workload.ts";

/** One address and those who claim it; `owner` is who is found. */
interface ContestedAddress extends NetworkAddress {
  readonly owner: Workload;
  readonly rivals: readonly Workload[];
}

/** A workload that has one address and no rival for it, which is almost every one, stands for its own claim. */
type AddressClaim = Workload | ContestedAddress;

interface NameKey {
  readonly namespace: string;
  readonly name: string;
}

/** Workloads of one namespace that have one name: almost always a single one, which then stands for itself. */
type Namesakes = Workload | (NameKey & { readonly workloads: readonly Workload[] });

interface Indices {
  readonly byUid: PersistentMap<WorkloadUid, Workload>;
  readonly byAddress: PersistentMap<NetworkAddress, AddressClaim>;
  readonly byName: PersistentMap<NameKey, Namesakes>;
  /** Workloads that have a DNS name, by namespace and that name. */
  readonly byHostname: GroupIndex<WorkloadUid, Workload>;
  readonly byNode: GroupIndex<WorkloadUid, Workload>;
  readonly endpoints: GroupIndex<WorkloadUid, Workload>;
}

const byUid: Keyed<WorkloadUid, Workload> = { keyOf: ({ uid }) => uid, hash: hashText, isKey: ({ uid }, key) => uid === key };
const byAddress: Keyed<NetworkAddress, AddressClaim> = {
  keyOf: (claim) => ({ network: claim.network, ip: claimedBy(claim) }),
  hash: ({ network, ip }) => hashText(ip, hashText(network)),
  isKey: (claim, { network, ip }) => claimedBy(claim) === ip && claim.network === network,
};
const byName: Keyed<NameKey, Namesakes> = {
  keyOf: (namesakes) => namesakes,
  hash: ({ namespace, name }) => hashText(name, hashText(namespace)),
  isKey: (namesakes, { namespace, name }) => namesakes.name === name && namesakes.namespace === namespace,
};
const nobody: readonly Workload[] = [];

export class WorkloadIndex {
  readonly #indices: Indices;

  private constructor(indices: Indices) {
    this.#indices = indices;
  }

  static readonly empty: WorkloadIndex = new WorkloadIndex({
    byUid: PersistentMap.empty(byUid),
    byAddress: PersistentMap.empty(byAddress),
    byName: PersistentMap.empty(byName),
    byHostname: GroupIndex.empty(byUid),
    byNode: GroupIndex.empty(byUid),
    endpoints: GroupIndex.empty(byUid),
  });

  get(uid: WorkloadUid): Workload | undefined {
    return this.#indices.byUid.get(uid);
  }

  all(): Iterable<Workload> {
    return this.#indices.byUid;
  }

  atAddress(network: NetworkId, ip: IpAddress): Workload | undefined {
    const claim = this.#indices.byAddress.get({ network, ip });
    return claim && "owner" in claim ? claim.owner : claim;
  }

  withHostname(namespace: string, hostname: string): Workload | undefined {
    return first(this.#indices.byHostname.members(hostnameKey(namespace, hostname)));
  }

  /** When several match, a pod is preferred. */
  withName(pod: NameKey & { readonly serviceAccount: string }, node: string | undefined): Workload | undefined {
    const namesakes = workloadsOf(this.#indices.byName.get(pod));
    return best(namesakes.filter((workload) => workload.serviceAccount === pod.serviceAccount && (node === undefined || workload.node === node)));
  }

  onNode(node: string): Iterable<Workload> {
    return this.#indices.byNode.members(node);
  }

  endpointsOf(key: ServiceKey): Iterable<Workload> {
    return this.#indices.endpoints.members(key);
  }

  /** Removals first. An endpoint may arrive before its service: it is indexed under the service's key, and waits there. */
  apply(removed: readonly WorkloadUid[], upserted: readonly Workload[]): WorkloadIndex {
    if (removed.length === 0 && upserted.length === 0) return this;
    const { byHostname, byNode, endpoints } = this.#indices;
    const groups: Groups = { byHostname: new GroupBatch(), byNode: new GroupBatch(), endpoints: new GroupBatch() };
    const maps = editAll(this.#indices, (editors) => {
      for (const uid of removed) unlink(editors, groups, editors.byUid.get(uid));
      for (const uid of removed) editors.byUid.delete(uid);
      for (const workload of upserted) {
        unlink(editors, groups, editors.byUid.get(workload.uid));
        editors.byUid.set(workload);
        link(editors, groups, workload);
      }
    });
    return new WorkloadIndex({
      ...maps,
      byHostname: byHostname.apply(groups.byHostname),
      byNode: byNode.apply(groups.byNode),
      endpoints: endpoints.apply(groups.endpoints),
    });
  }
}

interface Editors {
  readonly byUid: MapEditor<WorkloadUid, Workload>;
  readonly byAddress: MapEditor<NetworkAddress, AddressClaim>;
  readonly byName: MapEditor<NameKey, Namesakes>;
}

interface Groups {
  readonly byHostname: GroupBatch<WorkloadUid, Workload>;
  readonly byNode: GroupBatch<WorkloadUid, Workload>;
  readonly endpoints: GroupBatch<WorkloadUid, Workload>;
}

function editAll(indices: Indices, change: (editors: Editors) => void): Pick<Indices, "byUid" | "byAddress" | "byName"> {
  let byAddress = indices.byAddress;
  let byName = indices.byName;
  const byUid = indices.byUid.edit((uids) => {
    byAddress = byAddress.edit((addresses) => {
      byName = byName.edit((names) => change({ byUid: uids, byAddress: addresses, byName: names }));
    });
  });
  return { byUid, byAddress, byName };
}

function link(editors: Editors, groups: Groups, workload: Workload): void {
  for (const address of addressesOf(workload)) setClaims(editors, address, [...claimants(editors, address), workload]);
  setNamesakes(editors, workload, [...workloadsOf(editors.byName.get(workload)), workload]);
  setInGroups(groups, workload, workload);
}

function unlink(editors: Editors, groups: Groups, workload: Workload | undefined): void {
  if (workload === undefined) return;
  const isOther = ({ uid }: Workload) => uid !== workload.uid;
  for (const address of addressesOf(workload)) setClaims(editors, address, claimants(editors, address).filter(isOther));
  setNamesakes(editors, workload, workloadsOf(editors.byName.get(workload)).filter(isOther));
  setInGroups(groups, workload, undefined);
}

function setInGroups(groups: Groups, { uid, hostname, namespace, node, services }: Workload, value: Workload | undefined): void {
  if (hostname !== "") groups.byHostname.set(hostnameKey(namespace, hostname), uid, value);
  if (node !== "") groups.byNode.set(node, uid, value);
  for (const key of services.keys()) groups.endpoints.set(key, uid, value);
}

/** Host-network workloads share the node's address and are never found by it (ztunnel contract 5.6). */
function addressesOf({ network, networkMode, addresses }: Workload): NetworkAddress[] {
  if (networkMode === "host-network") return [];
  return [...new Set(addresses)].map((ip) => ({ network, ip }));
}

function claimants(editors: Editors, address: NetworkAddress): readonly Workload[] {
  const claim = editors.byAddress.get(address);
  if (claim === undefined) return nobody;
  return "owner" in claim ? [claim.owner, ...claim.rivals] : [claim];
}

function claimedBy(claim: AddressClaim): IpAddress {
  return "owner" in claim ? claim.ip : (claim.addresses[0] as IpAddress);
}

function setClaims(editors: Editors, { network, ip }: NetworkAddress, workloads: readonly Workload[]): void {
  const owner = best(workloads);
  if (owner === undefined) editors.byAddress.delete({ network, ip });
  else if (workloads.length === 1 && owner.addresses.length === 1) editors.byAddress.set(owner);
  else editors.byAddress.set({ network, ip, owner, rivals: workloads.length === 1 ? nobody : workloads.filter((workload) => workload !== owner) });
}

function workloadsOf(namesakes: Namesakes | undefined): readonly Workload[] {
  if (namesakes === undefined) return nobody;
  return "workloads" in namesakes ? namesakes.workloads : [namesakes];
}

function setNamesakes(editors: Editors, { namespace, name }: NameKey, workloads: readonly Workload[]): void {
  const [only, ...more] = workloads;
  if (only === undefined) editors.byName.delete({ namespace, name });
  else editors.byName.set(more.length === 0 ? only : { namespace, name, workloads });
}

/** Who owns a contested address or name (ztunnel contract 5.6); among equals the lowest uid, so that arrival order never matters. */
function best(workloads: readonly Workload[]): Workload | undefined {
  let chosen: Workload | undefined;
  for (const workload of workloads) {
    if (chosen === undefined || rank(workload) < rank(chosen) || (rank(workload) === rank(chosen) && workload.uid < chosen.uid)) chosen = workload;
  }
  return chosen;
}

function rank({ uid, tunnelProtocol }: Workload): number {
  const isPod = uid.includes("//Pod/");
  if (tunnelProtocol === "hbone") return isPod ? 0 : 2;
  return isPod ? 1 : 3;
}

function first(workloads: Iterable<Workload>): Workload | undefined {
  return best([...workloads]);
}

function hostnameKey(namespace: string, hostname: string): string {
  return `${namespace}/${hostname}`;
}
