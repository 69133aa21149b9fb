// Generates src/gen: our own definitions in proto/, and Envoy's resources from the .proto files inside @grpc/grpc-js-xds. Of Envoy's
// thousand messages only those listed here are generated; a field of any other message stays, by its name and as plain bytes, so that
// a resource that sets it can be refused by that name.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { FieldDescriptorProto_Label, FieldDescriptorProto_Type, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

/** File to the messages and enums of it that we read or write. */
const kept = {
  "envoy/config/core/v3/address.proto": ["Address", "SocketAddress", "EnvoyInternalAddress", "CidrRange"],
  "envoy/config/core/v3/base.proto": [
    "Locality",
    "Metadata",
    "HeaderValue",
    "HeaderValueOption",
    "HeaderValueOption.HeaderAppendAction",
    "DataSource",
    "RuntimeFractionalPercent",
  ],
  "envoy/config/core/v3/config_source.proto": ["ConfigSource", "AggregatedConfigSource", "ApiVersion"],
  "envoy/config/core/v3/extension.proto": ["TypedExtensionConfig"],
  "envoy/config/core/v3/health_check.proto": ["HealthStatus"],
  "envoy/config/core/v3/http_uri.proto": ["HttpUri"],
  "envoy/config/core/v3/protocol.proto": ["Http1ProtocolOptions", "Http2ProtocolOptions"],
  "envoy/config/listener/v3/api_listener.proto": ["ApiListener"],
  "envoy/config/listener/v3/listener.proto": ["Listener", "AdditionalAddress"],
  "envoy/config/listener/v3/listener_components.proto": ["FilterChain", "FilterChainMatch", "Filter", "ListenerFilter"],
  "envoy/config/route/v3/route.proto": ["RouteConfiguration"],
  "envoy/config/route/v3/route_components.proto": [
    "VirtualHost",
    "Route",
    "WeightedCluster",
    "WeightedCluster.ClusterWeight",
    "RouteMatch",
    "RouteMatch.GrpcRouteMatchOptions",
    "RouteAction",
    "RouteAction.RequestMirrorPolicy",
    "RouteAction.MaxStreamDuration",
    "RouteAction.ClusterNotFoundResponseCode",
    "RetryPolicy",
    "RetryPolicy.RetryBackOff",
    "RedirectAction",
    "RedirectAction.RedirectResponseCode",
    "DirectResponseAction",
    "HeaderMatcher",
    "QueryParameterMatcher",
  ],
  "envoy/config/cluster/v3/circuit_breaker.proto": ["CircuitBreakers", "CircuitBreakers.Thresholds"],
  "envoy/config/cluster/v3/cluster.proto": [
    "Cluster",
    "Cluster.DiscoveryType",
    "Cluster.LbPolicy",
    "Cluster.EdsClusterConfig",
    "Cluster.CommonLbConfig",
    "Cluster.CommonLbConfig.LocalityWeightedLbConfig",
    "LoadBalancingPolicy",
    "LoadBalancingPolicy.Policy",
  ],
  "envoy/config/cluster/v3/outlier_detection.proto": ["OutlierDetection"],
  "envoy/config/endpoint/v3/endpoint.proto": ["ClusterLoadAssignment"],
  "envoy/config/endpoint/v3/endpoint_components.proto": ["Endpoint", "LbEndpoint", "LocalityLbEndpoints"],
  "envoy/config/rbac/v3/rbac.proto": ["RBAC", "RBAC.Action", "Policy", "Permission", "Permission.Set", "Principal", "Principal.Set"],
  "envoy/extensions/filters/http/jwt_authn/v3/config.proto": [
    "JwtAuthentication",
    "JwtProvider",
    "JwtHeader",
    "JwtClaimToHeader",
    "RemoteJwks",
    "RequirementRule",
    "JwtRequirement",
    "JwtRequirementOrList",
  ],
  "envoy/extensions/filters/http/rbac/v3/rbac.proto": ["RBAC"],
  "envoy/extensions/filters/http/router/v3/router.proto": ["Router"],
  "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto": [
    "HttpConnectionManager",
    "HttpConnectionManager.CodecType",
    "HttpConnectionManager.PathWithEscapedSlashesAction",
    "HttpConnectionManager.ServerHeaderTransformation",
    "HttpConnectionManager.UpgradeConfig",
    "HttpFilter",
    "Rds",
  ],
  "envoy/extensions/filters/network/rbac/v3/rbac.proto": ["RBAC"],
  "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto": ["TcpProxy", "TcpProxy.WeightedCluster", "TcpProxy.WeightedCluster.ClusterWeight"],
  "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto": ["LeastRequest"],
  "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto": ["RoundRobin"],
  "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto": ["WrrLocality"],
  "envoy/extensions/upstreams/http/v3/http_protocol_options.proto": [
    "HttpProtocolOptions",
    "HttpProtocolOptions.ExplicitHttpConfig",
    "HttpProtocolOptions.UseDownstreamHttpConfig",
  ],
  "envoy/type/matcher/v3/filter_state.proto": ["FilterStateMatcher"],
  "envoy/type/matcher/v3/metadata.proto": ["MetadataMatcher", "MetadataMatcher.PathSegment"],
  "envoy/type/matcher/v3/path.proto": ["PathMatcher"],
  "envoy/type/matcher/v3/regex.proto": ["RegexMatcher", "RegexMatchAndSubstitute"],
  "envoy/type/matcher/v3/string.proto": ["StringMatcher"],
  "envoy/type/matcher/v3/value.proto": ["ValueMatcher", "ListMatcher", "OrMatcher"],
  "envoy/type/v3/percent.proto": ["Percent", "FractionalPercent", "FractionalPercent.DenominatorType"],
  "envoy/type/v3/range.proto": ["Int32Range"],
};

const types = FieldDescriptorProto_Type;
const deps = join(dirname(createRequire(import.meta.url).resolve("@grpc/grpc-js-xds/package.json")), "deps");
const modules = ["envoy-api", "googleapis", "xds", "protoc-gen-validate"];

function buf(...args) {
  const { status, error } = spawnSync("buf", args, { cwd: import.meta.dirname, stdio: "inherit" });
  if (status !== 0) throw new Error(`buf ${args[0]} failed: ${error?.message ?? `exit ${status}`}`);
}

/** Copies the files and all that they import into one folder, as buf wants them. */
function collect(files, folder) {
  const seen = new Set();
  const open = [...files];
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    const source = modules.map((module) => join(deps, module, file)).find((path) => existsSync(path));
    if (seen.has(file) || source === undefined) continue; // buf brings google/protobuf itself
    seen.add(file);
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    const text = readFileSync(source, "utf8").replaceAll(/,?\s+ignore_empty: true/g, ""); // their annotations are newer than their validate.proto
    writeFileSync(join(folder, file), text);
    open.push(...[...text.matchAll(/^import (?:public )?"([^"]+)"/gm)].map(([, name]) => name));
  }
}

function trim({ file: files }) {
  const names = new Set(Object.entries(kept).flatMap(([file, words]) => words.map((word) => `.${file.split("/").slice(0, -1).join(".")}.${word}`)));
  const isKept = (type) => type.startsWith(".google.protobuf.") || names.has(type);
  const home = new Map();
  for (const file of files) {
    file.service = [];
    file.extension = [];
    file.options = undefined;
    const scope = `.${file.package}`;
    file.messageType = file.messageType.filter((message) => isKept(`${scope}.${message.name}`));
    file.enumType = file.enumType.filter(({ name }) => isKept(`${scope}.${name}`));
    const visit = (message, path) => {
      home.set(path, file.name);
      for (const { name } of message.enumType) home.set(`${path}.${name}`, file.name);
      message.options = message.options?.mapEntry ? message.options : undefined;
      message.nestedType = message.nestedType.filter(({ name, options }) => options?.mapEntry || isKept(`${path}.${name}`));
      message.enumType = message.enumType.filter(({ name }) => isKept(`${path}.${name}`));
      const entries = new Set(message.nestedType.filter(({ options }) => options?.mapEntry).map(({ name }) => `${path}.${name}`));
      for (const field of message.field) {
        field.options = undefined;
        if (field.typeName === "" || isKept(field.typeName) || entries.has(field.typeName)) continue;
        // A oneof of its own is the only way to say of bytes whether they are there at all.
        if (field.type === types.MESSAGE && field.label !== FieldDescriptorProto_Label.REPEATED && !Object.hasOwn(field, "oneofIndex")) {
          field.proto3Optional = true;
          field.oneofIndex = message.oneofDecl.length;
          message.oneofDecl.push({ $typeName: "google.protobuf.OneofDescriptorProto", name: `_${field.name}` });
        }
        field.type = field.type === types.ENUM ? types.INT32 : types.BYTES;
        field.typeName = "";
      }
      for (const nested of message.nestedType) visit(nested, `${path}.${nested.name}`);
    };
    for (const message of file.messageType) visit(message, `${scope}.${message.name}`);
    for (const { name } of file.enumType) home.set(`${scope}.${name}`, file.name);
  }
  for (const name of names) if (!home.has(name)) throw new Error(`${name} is not in these .proto files`);
  const used = files.filter(({ messageType, enumType, name }) => messageType.length + enumType.length > 0 && name !== "google/protobuf/descriptor.proto");
  for (const file of used) {
    const needed = new Set();
    const visit = (message) => {
      for (const { typeName } of message.field) if (home.has(typeName)) needed.add(home.get(typeName));
      for (const nested of message.nestedType) visit(nested);
    };
    for (const message of file.messageType) visit(message);
    needed.delete(file.name);
    file.dependency = [...needed];
    file.publicDependency = [];
    file.weakDependency = [];
  }
  return { $typeName: "google.protobuf.FileDescriptorSet", file: used };
}

buf("generate");
const folder = mkdtempSync(join(tmpdir(), "fairway-protos-"));
try {
  collect(Object.keys(kept), join(folder, "proto"));
  buf("build", join(folder, "proto"), "--as-file-descriptor-set", "--exclude-source-info", "-o", join(folder, "all.binpb"));
  const trimmed = trim(fromBinary(FileDescriptorSetSchema, readFileSync(join(folder, "all.binpb"))));
  writeFileSync(join(folder, "trimmed.binpb"), toBinary(FileDescriptorSetSchema, trimmed));
  buf("generate", join(folder, "trimmed.binpb"), "--template", "buf.gen.resources.yaml");
} finally {
  rmSync(folder, { recursive: true });
}
