/** Who is captured (controller contract 1.2, ztunnel contract 7.8): one pure decision, the same for the CNI plugin and for running pods. */
import type { Namespace, Pod } from "@fairway/kube";

export const dataplaneModeLabel = "istio.io/dataplane-mode";
export const redirectionAnnotation = "ambient.istio.io/redirection";
const sidecarAnnotation = "sidecar.istio.io/status";
const bypassInboundAnnotation = "ambient.istio.io/bypass-inbound-capture";
const dnsCaptureAnnotation = "ambient.istio.io/dns-capture";
const virtualInterfacesAnnotation = "istio.io/reroute-virtual-interfaces";
const legacyVirtualInterfacesAnnotation = "traffic.sidecar.istio.io/kubevirtInterfaces";

export interface EnrolmentOptions {
  readonly excludeNamespaces: readonly string[];
  /** Where the mesh's own programs run. */
  readonly systemNamespace: string;
  readonly dnsCapture: boolean;
}

export interface CaptureOptions {
  readonly dnsCapture: boolean;
  /** Only what the pod sends is captured (third-party ingress). */
  readonly bypassInbound: boolean;
  /** Interfaces whose traffic counts as the pod's own (virtual machines, containers in the pod). */
  readonly virtualInterfaces: readonly string[];
}

export type LeftOutReason = "not-labelled" | "opted-out" | "host-network" | "sidecar" | "excluded-namespace" | "ztunnel" | "terminal";

export type Enrolment =
  | { readonly kind: "enrol"; readonly capture: CaptureOptions; readonly warnings: readonly string[] }
  | { readonly kind: "leave-out"; readonly reason: LeftOutReason };

/** `namespace` is undefined while it is not known; then only the pod's own label can enrol it. */
export function enrolmentOf(pod: Pod, namespace: Namespace | undefined, options: EnrolmentOptions): Enrolment {
  const { labels = {}, annotations = {}, namespace: podNamespace = "" } = pod.metadata;
  const podMode = labels[dataplaneModeLabel];
  const namespaceMode = namespace?.metadata.labels?.[dataplaneModeLabel];
  const leaveOut = (reason: LeftOutReason): Enrolment => ({ kind: "leave-out", reason });
  if (pod.spec?.hostNetwork === true) return leaveOut("host-network");
  if (annotations[sidecarAnnotation] !== undefined) return leaveOut("sidecar");
  if (options.excludeNamespaces.includes(podNamespace)) return leaveOut("excluded-namespace");
  if (podNamespace === options.systemNamespace && labels["app"] === "ztunnel") return leaveOut("ztunnel");
  if (podMode === "none") return leaveOut("opted-out");
  if (podMode !== "ambient" && namespaceMode !== "ambient") return leaveOut("not-labelled");
  if (isTerminal(pod)) return leaveOut("terminal");
  return { kind: "enrol", ...captureOf(annotations, options.dnsCapture) };
}

/** A pod whose containers ended for good: its addresses may be another pod's already. */
export function isTerminal(pod: Pod): boolean {
  return pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
}

/** Per-pod overrides (ztunnel contract 7.4); what is not a boolean is left out with a warning. */
function captureOf(annotations: Readonly<Record<string, string>>, dnsCapture: boolean): { capture: CaptureOptions; warnings: readonly string[] } {
  const warnings: string[] = [];
  const flag = (name: string, fallback: boolean): boolean => {
    const text = annotations[name];
    if (text === undefined) return fallback;
    if (text === "true" || text === "false") return text === "true";
    warnings.push(`annotation ${name}: "${text.slice(0, 40)}" is neither true nor false and is ignored`);
    return fallback;
  };
  const interfaces = annotations[virtualInterfacesAnnotation] ?? annotations[legacyVirtualInterfacesAnnotation] ?? "";
  const virtualInterfaces = interfaces
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .filter((name) => {
      if (isInterfaceName(name)) return true;
      warnings.push(`annotation ${virtualInterfacesAnnotation}: "${name.slice(0, 40)}" is not an interface name and is ignored`);
      return false;
    });
  return {
    capture: { dnsCapture: flag(dnsCaptureAnnotation, dnsCapture), bypassInbound: flag(bypassInboundAnnotation, false), virtualInterfaces },
    warnings,
  };
}

/** The names become text of a rule: only what the kernel takes as a name and nft as a string. */
function isInterfaceName(name: string): boolean {
  return /^[A-Za-z0-9_.-]{1,15}$/.test(name);
}
