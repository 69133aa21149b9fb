/** The mesh of a ztunnel under test, as its local configuration: two pods, and as many workloads again as are asked for, ten behind each service. */
export function mesh(a: string, b: string, others: number): string {
  const workload = (name: string, namespace: string, ip: string, services: string): string =>
    `  - {uid: cluster//Pod/${namespace}/${name}, name: ${name}, namespace: ${namespace}, serviceAccount: ${name}, workloadName: ${name}, workloadIps: ["${ip}"], protocol: HBONE, services: ${services}}`;
  const hostOf = (index: number): string => `s${Math.floor(index / 10)}.far.svc.cluster.local`;
  const far = Array.from({ length: others }, (_, index) =>
    workload(`w${index}`, "far", `10.${100 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`, `{"far/${hostOf(index)}": {80: 8080}}`),
  );
  const services = Array.from({ length: Math.ceil(others / 10) }, (_, index) => {
    const vip = `10.200.${(index >> 8) & 255}.${index & 255}`;
    return `  - {name: s${index}, namespace: far, hostname: s${index}.far.svc.cluster.local, vips: ["/${vip}"], ports: {80: 8080}}`;
  });
  return [
    "workloads:",
    workload("a", "default", a, "{}"),
    workload("b", "default", b, "{}"),
    ...far,
    "policies: []",
    services.length === 0 ? "services: []" : "services:",
    ...services,
    "",
  ].join("\n");
}
