/** `fairway waypoint …`: its options, and which action each runs. */
import type { Argv } from "yargs";
import { connectTarget } from "../kubeconfig.ts";
import { progressOn } from "../output.ts";
import { apply, findWaypoints, generate, list, type Output, remove, status } from "./actions.ts";
import { trafficTypes, type WaypointWish } from "./gateway.ts";

interface CommonArguments {
  readonly kubeconfig: string | undefined;
  readonly namespace: string | undefined;
}

interface WishArguments extends CommonArguments {
  readonly name: string | undefined;
  readonly serviceAccount: string | undefined;
  readonly for: (typeof trafficTypes)[number] | undefined;
  readonly revision: string | undefined;
}

export function waypointCommands(y: Argv): Argv {
  return y
    .option("namespace", { alias: "n", type: "string", describe: "namespace; by default that of the current context" })
    .option("kubeconfig", { type: "string", describe: "path of a kubeconfig; by default as kubectl has it" })
    .command(
      "apply",
      "create a waypoint, or change it",
      (c) =>
        wishOptions(c)
          .option("enroll-namespace", { type: "boolean", default: false, describe: "label the namespace, so that all its services use it" })
          .option("overwrite", { type: "boolean", default: false, describe: "even if the namespace uses another waypoint" })
          .option("wait", { type: "boolean", default: false, describe: "return when it is ready" })
          .example("$0 waypoint apply -n shop --enroll-namespace --wait", "all services of the namespace go through one waypoint")
          .example("$0 waypoint apply -n shop --service-account api", "only what runs as the service account api"),
      async (parsed) => {
        const { client, wish } = wishOf(parsed);
        await apply(client, wish, parsed, output(false));
      },
    )
    .command(
      "generate",
      "print the Gateway that apply would create",
      (c) =>
        wishOptions(c)
          .option("json", { type: "boolean", default: false, describe: "for machines" })
          .example("$0 waypoint generate -n shop | kubectl apply -f -", "the same as apply"),
      (parsed) => generate({ ...wishFrom(parsed), namespace: parsed.namespace ?? "default" }, output(parsed.json)),
    )
    .command(
      "list",
      "list waypoints",
      (c) =>
        c
          .option("all-namespaces", { alias: "A", type: "boolean", default: false, describe: "of every namespace" })
          .option("json", { type: "boolean", default: false, describe: "for machines" })
          .example("$0 waypoint list -A", "every waypoint of the cluster"),
      async ({ kubeconfig, namespace, allNamespaces, json }) => {
        const target = connectTarget(kubeconfig);
        await list(target.client, allNamespaces ? undefined : (namespace ?? target.namespace), output(json));
      },
    )
    .command(
      "status [name]",
      "say whether waypoints work, and what keeps them from it; exit code 1 when one does not",
      (c) =>
        c
          .positional("name", { type: "string", describe: "one waypoint; all of the namespace without it" })
          .option("json", { type: "boolean", default: false, describe: "for machines" })
          .example("$0 waypoint status -n shop", ""),
      async ({ kubeconfig, namespace, name, json }) => {
        const target = connectTarget(kubeconfig);
        if (!(await status(target.client, namespace ?? target.namespace, name, output(json)))) process.exitCode = 1;
      },
    )
    .command(
      "delete [names..]",
      "delete waypoints",
      (c) =>
        c
          .positional("names", { type: "string", array: true, describe: "names of waypoints" })
          .option("all", { type: "boolean", default: false, describe: "every waypoint of the namespace" })
          .check(({ names, all }) => {
            if (((names as readonly string[] | undefined)?.length ?? 0) > 0 !== all) return true;
            throw new Error("name the waypoints to delete, or give --all for every one of the namespace");
          })
          .example("$0 waypoint delete -n shop waypoint", ""),
      async ({ kubeconfig, namespace, names, all }) => {
        const target = connectTarget(kubeconfig);
        const where = namespace ?? target.namespace;
        const chosen = all ? (await findWaypoints(target.client, where)).map(({ name }) => name) : (names ?? []);
        await remove(target.client, where, chosen, output(false));
      },
    )
    .demandCommand(1, "Say what to do with waypoints; fairway waypoint --help lists it.");
}

function wishOptions<T>(y: Argv<T>): Argv<T & Omit<WishArguments, keyof CommonArguments>> {
  return y
    .option("name", { type: "string", describe: 'name of the waypoint; by default "waypoint", or "<service account>-waypoint"' })
    .option("service-account", { type: "string", describe: "only for what runs as this service account" })
    .option("for", { choices: trafficTypes, describe: "which traffic goes through it; by default that of services" })
    .option("revision", { type: "string", describe: "revision of the control plane" }) as unknown as Argv<T & Omit<WishArguments, keyof CommonArguments>>;
}

function wishOf(parsed: WishArguments): { client: ReturnType<typeof connectTarget>["client"]; wish: WaypointWish } {
  const { client, namespace } = connectTarget(parsed.kubeconfig);
  return { client, wish: { ...wishFrom(parsed), namespace: parsed.namespace ?? namespace } };
}

function wishFrom({ name, serviceAccount, for: trafficType, revision }: WishArguments): Omit<WaypointWish, "namespace"> {
  return { name, serviceAccount, trafficType, revision };
}

function output(json: boolean): Output {
  return { print: (text) => void process.stdout.write(text), progress: progressOn(process.stderr, { quiet: json }), json };
}
