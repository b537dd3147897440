//! The names of the fields of the messages that are read, so that what is ignored or wrong can be named.
//!
//! # Sources
//!
//! The protobuf files of the xDS API, v3, of Envoy 1.37; a test compares this table with the official descriptors.
//! `tests/python/xds_fields.py --rust` prints it anew.

/// A protobuf message.
#[derive(Debug)]
pub(super) struct Message {
    /// Its full name.
    pub(super) name: &'static str,
    /// Tag and name of each field, by tag.
    fields: &'static [(u32, &'static str)],
}

impl Message {
    /// The full name of a field; `#99` where the tag is not known.
    pub(super) fn field(&self, tag: u32) -> String {
        match self.fields.iter().find(|(known, _)| *known == tag) {
            Some((_, name)) => format!("{}.{name}", self.name),
            None => format!("{}.#{tag}", self.name),
        }
    }
}

pub(super) static DISCOVERY_RESPONSE: Message = Message {
    name: "envoy.service.discovery.v3.DiscoveryResponse",
    fields: &[
        (1, "version_info"),
        (2, "resources"),
        (3, "canary"),
        (4, "type_url"),
        (5, "nonce"),
        (6, "control_plane"),
        (7, "resource_errors"),
    ],
};

pub(super) static DELTA_DISCOVERY_RESPONSE: Message = Message {
    name: "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    fields: &[
        (1, "system_version_info"),
        (2, "resources"),
        (4, "type_url"),
        (5, "nonce"),
        (6, "removed_resources"),
        (7, "control_plane"),
        (8, "removed_resource_names"),
        (9, "resource_errors"),
    ],
};

pub(super) static RESOURCE: Message = Message {
    name: "envoy.service.discovery.v3.Resource",
    fields: &[
        (1, "version"),
        (2, "resource"),
        (3, "name"),
        (4, "aliases"),
        (6, "ttl"),
        (7, "cache_control"),
        (8, "resource_name"),
        (9, "metadata"),
    ],
};

pub(super) static ANY: Message = Message {
    name: "google.protobuf.Any",
    fields: &[(1, "type_url"), (2, "value")],
};

pub(super) static CLUSTER: Message = Message {
    name: "envoy.config.cluster.v3.Cluster",
    fields: &[
        (1, "name"),
        (2, "type"),
        (3, "eds_cluster_config"),
        (4, "connect_timeout"),
        (5, "per_connection_buffer_limit_bytes"),
        (6, "lb_policy"),
        (8, "health_checks"),
        (9, "max_requests_per_connection"),
        (10, "circuit_breakers"),
        (13, "http_protocol_options"),
        (14, "http2_protocol_options"),
        (16, "dns_refresh_rate"),
        (17, "dns_lookup_family"),
        (18, "dns_resolvers"),
        (19, "outlier_detection"),
        (20, "cleanup_interval"),
        (21, "upstream_bind_config"),
        (22, "lb_subset_config"),
        (23, "ring_hash_lb_config"),
        (24, "transport_socket"),
        (25, "metadata"),
        (26, "protocol_selection"),
        (27, "common_lb_config"),
        (28, "alt_stat_name"),
        (29, "common_http_protocol_options"),
        (30, "upstream_connection_options"),
        (31, "close_connections_on_host_health_failure"),
        (32, "ignore_health_on_host_removal"),
        (33, "load_assignment"),
        (34, "original_dst_lb_config"),
        (36, "typed_extension_protocol_options"),
        (37, "least_request_lb_config"),
        (38, "cluster_type"),
        (39, "respect_dns_ttl"),
        (40, "filters"),
        (41, "load_balancing_policy"),
        (42, "lrs_server"),
        (43, "transport_socket_matches"),
        (44, "dns_failure_refresh_rate"),
        (45, "use_tcp_for_dns_lookups"),
        (46, "upstream_http_protocol_options"),
        (47, "track_timeout_budgets"),
        (48, "upstream_config"),
        (49, "track_cluster_stats"),
        (50, "preconnect_policy"),
        (51, "connection_pool_per_downstream_connection"),
        (52, "maglev_lb_config"),
        (53, "dns_resolution_config"),
        (54, "wait_for_warm_on_init"),
        (55, "typed_dns_resolver_config"),
        (56, "round_robin_lb_config"),
        (57, "lrs_report_endpoint_metrics"),
        (58, "dns_jitter"),
        (59, "transport_socket_matcher"),
    ],
};

pub(super) static EDS_CLUSTER_CONFIG: Message = Message {
    name: "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
    fields: &[(1, "eds_config"), (2, "service_name")],
};

pub(super) static CONFIG_SOURCE: Message = Message {
    name: "envoy.config.core.v3.ConfigSource",
    fields: &[
        (1, "path"),
        (2, "api_config_source"),
        (3, "ads"),
        (4, "initial_fetch_timeout"),
        (5, "self"),
        (6, "resource_api_version"),
        (7, "authorities"),
        (8, "path_config_source"),
    ],
};

pub(super) static CLUSTER_LOAD_ASSIGNMENT: Message = Message {
    name: "envoy.config.endpoint.v3.ClusterLoadAssignment",
    fields: &[
        (1, "cluster_name"),
        (2, "endpoints"),
        (4, "policy"),
        (5, "named_endpoints"),
    ],
};

pub(super) static POLICY: Message = Message {
    name: "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
    fields: &[
        (2, "drop_overloads"),
        (3, "overprovisioning_factor"),
        (4, "endpoint_stale_after"),
        (6, "weighted_priority_health"),
    ],
};

pub(super) static DROP_OVERLOAD: Message = Message {
    name: "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload",
    fields: &[(1, "category"), (2, "drop_percentage")],
};

pub(super) static FRACTIONAL_PERCENT: Message = Message {
    name: "envoy.type.v3.FractionalPercent",
    fields: &[(1, "numerator"), (2, "denominator")],
};

pub(super) static LOCALITY_LB_ENDPOINTS: Message = Message {
    name: "envoy.config.endpoint.v3.LocalityLbEndpoints",
    fields: &[
        (1, "locality"),
        (2, "lb_endpoints"),
        (3, "load_balancing_weight"),
        (5, "priority"),
        (6, "proximity"),
        (7, "load_balancer_endpoints"),
        (8, "leds_cluster_locality_config"),
        (9, "metadata"),
    ],
};

pub(super) static LB_ENDPOINT_LIST: Message = Message {
    name: "envoy.config.endpoint.v3.LocalityLbEndpoints.LbEndpointList",
    fields: &[(1, "lb_endpoints")],
};

pub(super) static LOCALITY: Message = Message {
    name: "envoy.config.core.v3.Locality",
    fields: &[(1, "region"), (2, "zone"), (3, "sub_zone")],
};

pub(super) static LB_ENDPOINT: Message = Message {
    name: "envoy.config.endpoint.v3.LbEndpoint",
    fields: &[
        (1, "endpoint"),
        (2, "health_status"),
        (3, "metadata"),
        (4, "load_balancing_weight"),
        (5, "endpoint_name"),
    ],
};

pub(super) static ENDPOINT: Message = Message {
    name: "envoy.config.endpoint.v3.Endpoint",
    fields: &[
        (1, "address"),
        (2, "health_check_config"),
        (3, "hostname"),
        (4, "additional_addresses"),
    ],
};

pub(super) static ADDRESS: Message = Message {
    name: "envoy.config.core.v3.Address",
    fields: &[
        (1, "socket_address"),
        (2, "pipe"),
        (3, "envoy_internal_address"),
    ],
};

pub(super) static SOCKET_ADDRESS: Message = Message {
    name: "envoy.config.core.v3.SocketAddress",
    fields: &[
        (1, "protocol"),
        (2, "address"),
        (3, "port_value"),
        (4, "named_port"),
        (5, "resolver_name"),
        (6, "ipv4_compat"),
        (7, "network_namespace_filepath"),
    ],
};

pub(super) static METADATA: Message = Message {
    name: "envoy.config.core.v3.Metadata",
    fields: &[(1, "filter_metadata"), (2, "typed_filter_metadata")],
};

pub(super) static STRUCT: Message = Message {
    name: "google.protobuf.Struct",
    fields: &[(1, "fields")],
};

pub(super) static VALUE: Message = Message {
    name: "google.protobuf.Value",
    fields: &[
        (1, "null_value"),
        (2, "number_value"),
        (3, "string_value"),
        (4, "bool_value"),
        (5, "struct_value"),
        (6, "list_value"),
    ],
};

pub(super) static DURATION: Message = Message {
    name: "google.protobuf.Duration",
    fields: &[(1, "seconds"), (2, "nanos")],
};

pub(super) static UINT32_VALUE: Message = Message {
    name: "google.protobuf.UInt32Value",
    fields: &[(1, "value")],
};

pub(super) static MAP_ENTRY: Message = Message {
    name: "envoy.config.core.v3.Metadata.FilterMetadataEntry",
    fields: &[(1, "key"), (2, "value")],
};

pub(super) static STRUCT_ENTRY: Message = Message {
    name: "google.protobuf.Struct.FieldsEntry",
    fields: &[(1, "key"), (2, "value")],
};
