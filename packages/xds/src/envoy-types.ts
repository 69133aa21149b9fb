/** Type URLs of the resources that route requests (waypoint contract 2.1), in push order (4.4). */

export const clusterTypeUrl = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
export const endpointTypeUrl = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
export const listenerTypeUrl = "type.googleapis.com/envoy.config.listener.v3.Listener";
export const routeTypeUrl = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
