/** The pairs of others: haproxy, nginx and stunnel as their packages have them, one core each, and whatever a user names with --peer. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Peer, type PeerHop, services } from "./peer-pair.ts";

/** A peer, or why there is none. */
export type FoundPeer = { readonly peer: Peer } | { readonly missing: string };

const ciphers = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const shell = "/bin/sh";

export const knownPeers: Readonly<Record<"haproxy" | "nginx" | "stunnel", () => FoundPeer>> = {
  haproxy: () => {
    const program = find("haproxy");
    if (program === undefined) return { missing: "haproxy is not on this machine (Debian: apt-get install haproxy)" };
    return {
      peer: {
        key: "haproxy",
        name: "haproxy mTLS pair",
        fresh: true,
        command: (hop) => ({ program, args: ["-db", "-f", join(hop.folder, "config")], config: haproxyConfig(hop) }),
      },
    };
  },
  nginx: () => {
    const program = find("nginx");
    const module = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"].map((folder) => join(folder, "ngx_stream_module.so")).find(existsSync);
    if (program === undefined || module === undefined)
      return { missing: "nginx with its stream module is not on this machine (Debian: apt-get install nginx libnginx-mod-stream)" };
    return {
      peer: {
        key: "nginx",
        name: "nginx mTLS pair",
        fresh: true,
        command: (hop) => ({
          program,
          args: ["-p", hop.folder, "-e", join(hop.folder, "error.log"), "-c", join(hop.folder, "config")],
          config: nginxConfig(hop, module),
        }),
      },
    };
  },
  stunnel: () => {
    const program = find("stunnel4") ?? find("stunnel");
    if (program === undefined) return { missing: "stunnel is not on this machine (Debian: apt-get install stunnel4)" };
    return {
      peer: {
        key: "stunnel",
        name: "stunnel mTLS pair",
        fresh: true,
        command: (hop) => ({ program, args: [join(hop.folder, "config")], config: stunnelConfig(hop) }),
      },
    };
  },
};

/** `--peer "<name> :: <first command> :: <second command>"`; what may stand in the commands is in --help. */
export function customPeer(text: string): Peer {
  const [name, first, second, ...rest] = text.split("::").map((part) => part.trim());
  if (!name || !first || !second || rest.length > 0) throw new Error(`--peer takes "<name> :: <first command> :: <second command>", not "${text}"`);
  for (const command of [first, second]) {
    const absent = ["{echo}", "{sink}", "{source}"].filter((word) => !command.includes(word));
    if (absent.length > 0) throw new Error(`--peer "${name}": ${absent.join(", ")} is missing from: ${command}`);
  }
  return {
    key: name,
    name: `${name} pair`,
    fresh: first.includes("{fresh}") && second.includes("{fresh}"),
    command: (hop) => ({ program: shell, args: ["-c", fill(hop.side === "first" ? first : second, hop)] }),
  };
}

function fill(command: string, { listen, to, files, folder }: PeerHop): string {
  const values: Record<string, string> = { host: listen.host, "to-host": to.host, ...files, folder };
  for (const service of services) {
    values[service] = String(listen.ports[service]);
    values[`to-${service}`] = String(to.ports[service]);
  }
  return command.replaceAll(/\{([a-z-]+)\}/g, (whole, name: string) => values[name] ?? whole);
}

function find(program: string): string | undefined {
  return ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"].map((folder) => join(folder, program)).find(existsSync);
}

/** Sessions are resumed as haproxy does it by default, but not for `fresh`. */
function haproxyConfig({ side, listen, to, files, connections }: PeerHop): string {
  const bind = side === "second" ? `ssl crt ${files.pem} ca-file ${files.ca} verify required` : "";
  const server = side === "first" ? `ssl verify required ca-file ${files.ca} crt ${files.pem}` : "";
  const listeners = services.map((service) => {
    const full = service === "fresh" && side === "first" ? "no-ssl-reuse" : "";
    return `listen ${service}
  bind ${listen.host}:${listen.ports[service]} backlog 4096 ${bind}
  server s ${to.host}:${to.ports[service]} ${server} ${full}`;
  });
  return `global
  nbthread 1
  maxconn ${connections}
  ssl-default-bind-ciphersuites ${ciphers}
  ssl-default-server-ciphersuites ${ciphers}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  maxconn ${connections}
  timeout connect 30s
  timeout client 300s
  timeout server 300s
${listeners.join("\n")}
`;
}

/** Names in certificates are identities of the mesh, which nginx cannot check; it checks the chain on the side that accepts. */
function nginxConfig({ side, listen, to, files, folder, connections }: PeerHop, module: string): string {
  const accept = `ssl_certificate ${files.cert}; ssl_certificate_key ${files.key}; ssl_client_certificate ${files.ca}; ssl_verify_client on;
  ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites ${ciphers};`;
  const dial = `proxy_ssl on; proxy_ssl_certificate ${files.cert}; proxy_ssl_certificate_key ${files.key}; proxy_ssl_trusted_certificate ${files.ca};
  proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites ${ciphers};`;
  const servers = services.map(
    (service) => `  server {
    listen ${listen.host}:${listen.ports[service]} ${side === "second" ? "ssl" : ""} backlog=4096;
    proxy_pass ${to.host}:${to.ports[service]};
    ${side === "first" ? `proxy_ssl_session_reuse ${service === "fresh" ? "off" : "on"};` : ""}
  }`,
  );
  return `load_module ${module};
worker_processes 1; daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log crit;
events { worker_connections ${2 * connections + 100}; }
stream {
  ${side === "second" ? accept : dial}
${servers.join("\n")}
}
`;
}

function stunnelConfig({ side, listen, to, files, folder }: PeerHop): string {
  const sections = services.map(
    (service) => `[${service}]
client = ${side === "first" ? "yes" : "no"}
accept = ${listen.host}:${listen.ports[service]}
connect = ${to.host}:${to.ports[service]}
${service === "fresh" ? "sessionResume = no" : ""}`,
  );
  return `foreground = quiet
pid = ${folder}/pid
syslog = no
debug = 3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
cert = ${files.cert}
key = ${files.key}
CAfile = ${files.ca}
verifyChain = yes
sslVersionMin = TLSv1.3
ciphersuites = ${ciphers}
${sections.join("\n")}
`;
}
